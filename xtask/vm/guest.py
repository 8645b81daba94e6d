"""Runs inside the virtual machine, as root, after every boot: stage 1 until the reboot, then stage 2.

Every check prints one line on the second serial port: PASS or FAIL, a name, and the result."""
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import traceback

PAYLOAD = pathlib.Path("/payload")
STATE = pathlib.Path("/var/lib/vm-test")
ADDRESS, HOST = "10.99.0.1", "api.vm.example"
URL = f"https://{HOST}/v1/models"
SECRET = "sk-vm-the-real-credential"
AGENTS = "/sys/fs/cgroup/onecli.slice/onecli-agents.slice"
PINS = pathlib.Path("/sys/fs/bpf/onecli")
# The user who runs the agent: an ordinary user, through the launcher, in a directory of that user. And the agent's own
# user.
PERSON, ROBOT = "alice", "onecli-a-coder"
LAUNCHED = ["runuser", "-u", PERSON, "--", "sh", "-c", 'cd ~/project && exec onecli run --agent coder --dir "$PWD" -- "$@"', "sh"]
out = open("/dev/ttyS1", "w", buffering=1)
failed = False


def say(line):
    print(line, file=out)
    print(line, file=sys.stderr)


def run(*command, check=True, **options):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, **options)
    print(f"$ {' '.join(map(str, command))} -> {done.returncode}\n{done.stdout}", file=sys.stderr)
    if check and done.returncode:
        raise AssertionError(f"{command[0]} {command[1] if len(command) > 1 else ''}: {done.returncode}: {done.stdout[-600:]}")
    return done.stdout


def check(name):
    """Runs a function as a check, and prints its result."""

    def decorate(function):
        global failed
        began = time.monotonic()
        try:
            seen = function() or ""
            verdict = "PASS"
        except Exception as error:
            if not isinstance(error, AssertionError):
                traceback.print_exc()
            seen, verdict, failed = f"{type(error).__name__}: {error}", "FAIL", True
        line = re.sub(r"\s+", " ", str(seen))[:700]
        say(f"{verdict}\t{name}\t{line} ({time.monotonic() - began:.1f} s)")

    return decorate


def seen_upstream():
    file = STATE / "seen"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def status():
    return json.loads(run("onecli", "--json", "status"))


def agent(*command, **options):
    return run(*LAUNCHED, *command, **options)


def start_agent(name, *command):
    log = open(STATE / name, "w")
    return subprocess.Popen([*LAUNCHED, *map(str, command)], stdout=log, stderr=log)


def doctor():
    """The checks of `onecli doctor`, by name."""
    told = json.loads(run("onecli", "--json", "doctor", check=False))
    failed = [f"{check['name']}: {check['detail']}" for check in told if check["status"] == "fail"]
    assert not failed, failed
    return {check["name"]: check for check in told}


def site():
    """Other parts of this machine: a service with a private CA."""
    STATE.mkdir(exist_ok=True)
    if not (STATE / "ca.pem").exists():
        tls = STATE / "tls.cnf"
        tls.write_text(f"[san]\nsubjectAltName=DNS:{HOST}\nbasicConstraints=CA:FALSE\n")
        quiet = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        run(*quiet, "-subj", "/CN=vm test CA", "-days", "30", "-keyout", STATE / "ca.key", "-out", STATE / "ca.pem")
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={HOST}",
            "-keyout", STATE / "key.pem", "-out", STATE / "csr.pem")
        run("openssl", "x509", "-req", "-in", STATE / "csr.pem", "-CA", STATE / "ca.pem", "-CAkey", STATE / "ca.key",
            "-days", "30", "-extfile", tls, "-extensions", "san", "-out", STATE / "cert.pem")
        os.chmod(STATE, 0o755)
        os.chmod(STATE / "ca.pem", 0o644)
    run("ip", "link", "set", "lo", "up", check=False)
    run("ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo", check=False)
    upstream = PAYLOAD / "upstream.py"
    return subprocess.Popen([sys.executable, upstream, ADDRESS, STATE / "cert.pem", STATE / "key.pem", STATE / "seen"])


def expect_injected(kind, text):
    assert "200" in text, text
    assert SECRET not in text, "the credential came back: " + text
    assert seen_upstream()[-1]["authorization"] == f"Bearer {SECRET}", seen_upstream()[-1]
    return f"{kind}: answered, and the credential was blanked"


def package(revision):
    (found,) = PAYLOAD.glob(f"onecli_*-{revision}_*.deb")
    return str(found)


def clients(when):
    @check(f"{when}: curl")
    def _():
        command = f'curl -sS -w " %{{http_code}}" -H "Authorization: Bearer $VM_API_KEY" {URL}'
        return expect_injected("curl", agent("sh", "-c", command))

    @check(f"{when}: python3")
    def _():
        return expect_injected("python3", agent("python3", PAYLOAD / "client.py", URL))

    @check(f"{when}: node")
    def _():
        return expect_injected("node", agent("node", PAYLOAD / "client.mjs", URL))


def stage_1():
    site()
    # The machine is discarded afterwards: dpkg need not wait for its disk.
    apt = ["apt-get", "install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-unsafe-io"]

    @check("install the package")
    def _():
        run(*apt, package(1), env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        return run("dpkg-query", "-W", "onecli").strip()

    @check("the service runs, key and CA exist, status is green")
    def _():
        assert run("systemctl", "is-active", "onecli-daemon.service").strip() == "active"
        run("journalctl", "--no-pager", "-b", "-u", "onecli-*", "-n", "30", check=False)
        told = status()
        assert told["transparent"] == {"state": "available"} or "available" in json.dumps(told["transparent"]), told
        data = pathlib.Path("/var/lib/onecli")
        assert (data.stat().st_mode & 0o777) == 0o700, oct(data.stat().st_mode)
        assert "BEGIN CERTIFICATE" in run("onecli", "ca", "export")
        return ", ".join(sorted(p.name for p in data.iterdir())) + "; " + run(
            "systemctl", "show", "-P", "StatusText", "onecli-daemon.service").strip()

    @check("the daemon is unprivileged and its helper runs")
    def _():
        seen = []
        for unit, user, bounded in (("onecli-daemon", "onecli", True), ("onecli-helper", "root", False)):
            pid = run("systemctl", "show", "-P", "MainPID", f"{unit}.service").strip()
            fields = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
                          if ":\t" in line)
            assert run("ps", "-o", "user=", "-p", pid).strip() == user, unit
            assert not bounded or int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, fields
            assert fields["Seccomp"] == "2", fields
            seen.append(f"{unit}: {user}, capabilities {fields['CapEff']}")
        return "; ".join(seen)

    @check("doctor finds no failure, its self-test succeeds both ways")
    def _():
        found = doctor()
        for name in ("self-test explicit", "self-test transparent", "self-test TLS", "CA", "CA bundle", "pins"):
            assert found[name]["status"] == "ok", found[name]
        warned = [name for name, told in found.items() if told["status"] == "warn"]
        return f"{len(found)} checks, warnings: {', '.join(warned) or 'none'}"

    @check("manual pages, completions and the configuration are installed")
    def _():
        for path in ("man/man1/onecli-run.1.gz", "man/man8/onecli-daemon.8.gz", "bash-completion/completions/onecli",
                     "zsh/vendor-completions/_onecli", "fish/vendor_completions.d/onecli.fish"):
            assert (pathlib.Path("/usr/share") / path).exists(), path
        run("onecli-daemon", "--check-config")

    @check("the listeners were created in the daemon's slice")
    def _():
        listening = run("ss", "-H", "-tlnp", "--cgroup", "sport = :10256 or sport = :10255")
        lines = listening.strip().splitlines()
        assert len(lines) == 3, listening
        for line in lines:
            assert "/onecli.slice/onecli-daemon.slice/" in line, line
        return "; ".join(f"{line.split()[3]} {re.search('cgroup:([^ ]+)', line)[1]}" for line in lines)

    with open("/etc/onecli/config.toml", "a") as file:
        file.write(f'\n[resolver.hosts]\n"{HOST}" = ["{ADDRESS}"]\n')
    text = pathlib.Path("/etc/onecli/config.toml").read_text()
    text = text.replace("[resolver]\n", "", 1).replace("[upstream]\n", f'[upstream]\nextra_ca_files = ["{STATE}/ca.pem"]\n', 1)
    text = text.replace("[egress]\n", f'[egress]\nallow_addresses = ["{ADDRESS}/32"]\n', 1)
    pathlib.Path("/etc/onecli/config.toml").write_text(text)
    run("systemctl", "restart", "onecli-daemon.service", check=False)

    @check("from package to first injected request: the README's commands")
    def _():
        # The first installation. The secret is for this machine's own service, without a template.
        run("onecli", "secret", "add", "models", "--host", HOST, "--path", "/**", "--bearer", "--env", "VM_API_KEY",
            "--value-stdin", input=SECRET)
        run("onecli", "agent", "add", "coder", "--create-user")
        run("onecli", "grant", "coder", "models")
        script = f'id -un; curl -sS -w " %{{http_code}}" -H "Authorization: Bearer $VM_API_KEY" {URL}'
        text = run("onecli", "run", "--agent", "coder", "--no-dir", "--", "sh", "-c", script)
        assert f"{ROBOT}\n" in text, text
        expect_injected("curl", text)
        return "5 commands, the installation among them"

    @check("an ordinary user runs the agent only with permission")
    def _():
        run("useradd", "--create-home", PERSON)
        run("runuser", "-u", PERSON, "--", "sh", "-c", "mkdir ~/project && echo mine > ~/project/file")
        refused = agent("true", check=False)
        assert "may not" in refused or "not allowed" in refused or "allow-run" in refused, refused
        run("onecli", "agent", "allow-run", "coder", PERSON)
        text = agent("sh", "-c", "id -un; cat file; echo made > made; cat /proc/self/cgroup; grep NoNewPrivs /proc/self/status")
        assert f"{ROBOT}\nmine\n" in text, text
        assert "/onecli-agents-coder.slice/" in text and "NoNewPrivs:\t1" in text, text
        assert pathlib.Path(f"/home/{PERSON}/project/made").owner() == PERSON
        return text

    clients("after installing")

    @check("a unit in the agent's slice is redirected too")
    def _():
        ask = f'curl -sS -w " %{{http_code}}" --cacert /run/onecli/ca-bundle.pem {URL}'
        text = run("systemd-run", "--quiet", "--wait", "--pipe", "--slice=onecli-agents-coder.slice", f"--uid={ROBOT}", "sh", "-c", ask)
        # Its cgroup identifies the agent, and it holds no placeholder.
        assert "placeholder_missing" in text and "401" in text, text
        return "401, because it presents no placeholder"

    @check("a command prints the value, run by a dedicated user")
    def _():
        script = pathlib.Path("/usr/local/bin/print-credential")
        script.write_text('#!/bin/sh\n[ "$(id -un) $HOME" = "onecli-executor /var/lib/onecli-executor" ] || exit 1\n'
                          '[ ! -e /var/lib/onecli/root.key ] || exit 2\ntouch "$HOME/was-here" || exit 3\n'
                          f"echo {SECRET}\n")
        script.chmod(0o755)
        run("onecli", "secret", "add", "printed", "--host", HOST, "--path", "/printed", "--bearer", "--env",
            "VM_PRINTED_KEY", "--exec", str(script))
        run("onecli", "grant", "coder", "printed")
        command = f'curl -sS -w " %{{http_code}}" -H "Authorization: Bearer $VM_PRINTED_KEY" https://{HOST}/printed'
        seen = expect_injected("curl", agent("sh", "-c", command))
        run("onecli", "secret", "remove", "printed")
        return seen

    @check("an agent reaches only what it was granted")
    def _():
        text = agent("sh", "-c", f"curl -sS -m 5 http://{ADDRESS}/; echo end $?", check=False)
        assert not [line for line in seen_upstream() if "reached" in line], seen_upstream()
        return text

    @check("upgrade under load: no request is lost")
    def _():
        # Not in /tmp, because the agent has a private one.
        stop = pathlib.Path("/srv/stop-load")
        stop.unlink(missing_ok=True)
        load = start_agent("load", "python3", PAYLOAD / "load.py", HOST, 4, stop)
        before = len(seen_upstream())
        for _ in range(60):
            time.sleep(2)
            if len(seen_upstream()) > before + 40:
                break
        assert load.poll() is None and len(seen_upstream()) > before + 10, (STATE / "load").read_text()
        pid = run("systemctl", "show", "-P", "MainPID", "onecli-daemon.service").strip()
        stored = run("systemctl", "show", "-P", "NFileDescriptorStore", "onecli-daemon.service").strip()
        began = time.monotonic()
        run(*apt, package(2), env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        took = time.monotonic() - began
        time.sleep(3)
        stop.touch()
        code = load.wait(timeout=120)
        text = (STATE / "load").read_text()
        assert run("systemctl", "show", "-P", "MainPID", "onecli-daemon.service").strip() != pid, "not restarted"
        assert run("dpkg-query", "-W", "-f", "${Version}", "onecli").endswith("-2")
        lines = run("journalctl", "--no-pager", "-b", "-o", "short-monotonic", "-u", "onecli-*", check=False)
        print(lines, file=sys.stderr)
        assert code == 0, text
        return f"{text.strip()}, the upgrade took {took:.1f} s, {stored} sockets were kept"

    clients("after the upgrade")


def stage_2():
    site()

    @check("after the reboot: the service runs")
    def _():
        run("systemctl", "is-active", "onecli-daemon.service", "onecli-daemon.socket", "onecli-agents.slice")
        assert "coder" in run("onecli", "agent", "list")
        return "with the previous agent and secret"

    clients("after the reboot")

    @check("kill -9: back within a second, and agents reached nothing in between")
    def _():
        for line in seen_upstream():
            assert "reached" not in line, line
        stop = pathlib.Path("/srv/stop-lonely")
        stop.unlink(missing_ok=True)
        lonely = start_agent("lonely", "python3", PAYLOAD / "lonely.py", ADDRESS, stop)
        time.sleep(2)
        times = []
        # Emulated processors are some 10 times slower than real ones.
        limit = float(os.environ["BACK_WITHIN"])
        try:
            for _ in range(3):
                pid = int(run("systemctl", "show", "-P", "MainPID", "onecli-daemon.service"))
                began = time.monotonic()
                os.kill(pid, 9)
                while True:
                    told = subprocess.run(["systemctl", "show", "-P", "MainPID,SubState", "onecli-daemon.service"],
                                          text=True, stdout=subprocess.PIPE).stdout.split()
                    if "running" in told and str(pid) not in told:
                        break
                    assert time.monotonic() - began < limit + 60, told
                    time.sleep(0.01)
                monotonic = int(run("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", "onecli-daemon.service"))
                times.append(monotonic / 1e6 - began)
                time.sleep(3)
        finally:
            # The checks after this one remove the package: no agent may run at that time.
            stop.touch()
            lonely.wait(timeout=60)
        text = (STATE / "lonely").read_text()
        reached = [line for line in seen_upstream() if "reached" in line]
        assert not reached, reached
        told = f"ready after {', '.join(f'{t:.2f}' for t in times)} s; {text.strip()} to get past it"
        assert max(times) < limit, told
        return told

    clients("after the crash")

    @check("stopped: agents reach nothing, other processes are unaffected")
    def _():
        run("systemctl", "stop", "onecli-daemon.socket", "onecli-daemon.service")
        # In a separate unit: a slice accepts no process itself while scopes below it run.
        inside = ["systemd-run", "--quiet", "--wait", "--pipe", "--slice=onecli-agents-coder.slice", f"--uid={ROBOT}"]
        before = len([line for line in seen_upstream() if "reached" in line])
        try:
            text = run(*inside, "curl", "-sS", "-m", "5", f"http://{ADDRESS}/", check=False)
            assert "curl: (" in text, "curl did not run in the agent: " + text
            assert len([line for line in seen_upstream() if "reached" in line]) == before, text
            run("curl", "-sS", "-m", "5", f"http://{ADDRESS}/", check=False)
            assert len([line for line in seen_upstream() if "reached" in line]) == before + 1, "an unmanaged process was blocked"
        finally:
            run("systemctl", "start", "onecli-daemon.service")
        return text

    @check("remove: no process and no pin is left, the data stays")
    def _():
        run("apt-get", "remove", "--yes", "onecli")
        assert not pathlib.Path("/usr/bin/onecli").exists()
        assert run("systemctl", "is-active", "onecli-daemon.service", check=False).strip() != "active"
        assert not PINS.exists(), list(PINS.iterdir())
        assert pathlib.Path("/var/lib/onecli").is_dir()

    @check("purge: asks no question, leaves nothing")
    def _():
        run("apt-get", "purge", "--yes", "onecli", stdin=subprocess.DEVNULL)
        for path in ("/var/lib/onecli", "/run/onecli", "/etc/onecli", str(PINS), AGENTS):
            assert not pathlib.Path(path).exists(), path
        users = (run("getent", "passwd") + run("getent", "group")).splitlines()
        # The agents' users stay, with the group by which the launcher recognises them.
        left = [line for line in users if line.startswith("onecli") and not line.startswith(("onecli-a-", "onecli-agents:"))]
        assert not left, left
        left = run("sh", "-c", "find / -xdev -name '*onecli*' -not -path '/var/lib/vm-test/*' -not -path '/proc/*' "
                   "-not -path '/var/log/*' -not -path '/var/lib/systemd/*' -not -path '/var/cache/*' -not -path '/tmp/*' "
                   "-not -path '/var/lib/onecli-agents*'")
        assert not left.strip(), left

    @check("the agent's own user and home are unchanged")
    def _():
        assert ROBOT in run("getent", "passwd")
        assert pathlib.Path(f"/var/lib/onecli-agents/{ROBOT}").is_dir()
        assert pathlib.Path(f"/home/{PERSON}/project/made").exists()


def main():
    STATE.mkdir(exist_ok=True)
    stage = STATE / "stage"
    first = not stage.exists()
    try:
        if first:
            stage.write_text("2")
            stage_1()
        else:
            stage_2()
    except Exception as error:
        traceback.print_exc()
        say(f"FAIL\tthe test itself\t{error!r}")
    run("journalctl", "--no-pager", "-b", "-u", "onecli-*", "-n", "100", check=False)
    subprocess.run(["sync"])
    if first and not os.environ.get("ONE_STAGE"):
        say("REBOOT")
        run("systemctl", "reboot", check=False)
    else:
        say("DONE")
        run("systemctl", "poweroff", check=False)
    time.sleep(60)


main()
