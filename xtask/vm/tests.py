"""Runs inside the virtual machine instead of guest.py: tests of this repository, on the machine's own kernel.

Every test prints one line on the second serial port: PASS or FAIL, and its name. Its output is on the console."""
import os
import pathlib
import re
import subprocess

PAYLOAD = pathlib.Path("/payload")
# The test programs.
SUITES = ["kernel-tests", "system-tests"]
# Measurements are meaningless on an emulated processor, and the storms take an hour.
NOT_HERE = ["--skip", "kernel::tests::cost", "--skip", "kernel::tests::storm"]
out = open("/dev/ttyS1", "w", buffering=1)

modules = pathlib.Path("/sys/kernel/security/lsm")
print(f"kernel {os.uname().release}, security modules {modules.read_text() if modules.exists() else 'unknown'}", file=out)
# debootstrap creates none; the tests mount theirs over it.
pathlib.Path("/etc/hosts").touch()
# The tests create cgroups that this service manager must not know: commands join them without it.
subprocess.run(["mount", "-t", "tmpfs", "none", "/run/systemd"], check=True)
# Far slower than the machine they were written on: one test at a time, without time limits.
environment = os.environ | {"ONECLI_BIN_DIR": str(PAYLOAD), "RUST_BACKTRACE": "0"}
total = 0
for program in SUITES:
    command = [PAYLOAD / program, *os.environ["NAMES"].split(), *NOT_HERE, "--test-threads=1", "--nocapture"]
    tests = subprocess.Popen(command, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/tmp")
    name, ended = None, 0
    for line in tests.stdout:
        print(line, end="", flush=True)
        if found := re.match(r"test (\S+) \.\.\. ", line):
            name = found[1]
        # If a test prints output, the verdict is on a separate line.
        if name and (verdict := re.search(r"(?:^|\.\.\. )(ok|FAILED)$", line.rstrip())):
            print(f"{'PASS' if verdict[1] == 'ok' else 'FAIL'}\t{name}\t", file=out)
            name, ended = None, ended + 1
        if line.startswith(("NOT RUN", "KNOWN OPEN")):
            print(line.rstrip(), file=out)
    total += ended
    if tests.wait():
        print(f"FAIL\t{program}\tended with {tests.returncode} after {ended} tests", file=out)
if not total:
    print("FAIL\tnothing was run\t", file=out)
print("DONE", file=out)
out.flush()
subprocess.run(["umount", "/run/systemd"])
subprocess.run(["systemctl", "poweroff"])
