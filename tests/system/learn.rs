//! The output of `onecli agent learn`, pasted into a shell unchanged, makes refused programs succeed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::{self, Outcome, Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::upstream::{Upstream, git};
use serde_json::Value;

use crate::scene::{API, Scene, VALUE, Way};

/// A host for each client, so that each needs a separate rule.
const HOSTS: [&str; 12] = [
    "curl.test",
    "wget.test",
    "urllib.test",
    "requests.test",
    "httpx.test",
    "aiohttp.test",
    "deno.test",
    "git.test",
    "npm.test",
    "pip.test",
    "openssl.test",
    "node.test",
];
/// In transparent mode the first refusal is that of a name. The second names port and path, and the third names the
/// program's next request.
const ROUNDS: usize = 4;

/// An upstream for all hosts, and an agent that may reach none.
struct World {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
}

impl World {
    fn new(agent: &[&str], ebpf: bool) -> World {
        let dir = tempfile::tempdir().unwrap();
        let index = format!(r#"<a href="/files/{WHEEL}">{WHEEL}</a>"#);
        let upstream = Upstream::builder(&HOSTS)
            .git(git::Repo::new("me", "password"))
            .page("/simple/onecli-learnt/", "text/html", index)
            .page(&format!("/files/{WHEEL}"), "application/octet-stream", wheel(dir.path()))
            .page("/-/ping", "application/json", "{}")
            .start();
        let builder = Daemon::builder().upstream(&upstream);
        let daemon = if ebpf { builder } else { builder.no_ebpf() }.start();
        let agent = daemon.add_agent("coder", agent);
        // Connections that are tunnelled unread show the upstream's own certificate.
        let ours = std::fs::read_to_string(daemon.ca_file()).unwrap();
        std::fs::write(bundle(&daemon), ours + upstream.ca_pem()).unwrap();
        World { daemon, upstream, agent }
    }

    fn authority(&self, name: &str) -> String {
        format!("{name}.test:{}", self.upstream.https_addr().port())
    }

    /// The script of a client that sends its requests to a separate host, and fails if it is refused.
    fn script(&self, name: &str) -> Option<String> {
        let authority = self.authority(name);
        let url = format!("https://{authority}/echo");
        let python = || client::python().map(|python| python.display().to_string());
        let venv = |program: &str| Some(format!("{}", client::python()?.parent()?.join(program).display()));
        let script = match name {
            "curl" => format!("curl -sSf {url}"),
            "wget" => format!(r#"wget -qO- --ca-certificate="$SSL_CERT_FILE" {url}"#),
            "urllib" => {
                format!(
                    r#"python3 -c 'import urllib.request as u; print(u.urlopen("{url}", timeout=20).status)'"#
                )
            }
            "requests" => format!(
                r#"{} -c 'import requests; requests.get("{url}", timeout=20).raise_for_status()'"#,
                python()?
            ),
            "httpx" => {
                format!(
                    r#"{} -c 'import httpx; httpx.get("{url}", timeout=20).raise_for_status()'"#,
                    python()?
                )
            }
            "aiohttp" => format!(
                r#"{} -c '
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession(trust_env=True) as s:
        async with s.get("{url}") as r: r.raise_for_status()
asyncio.run(main())'"#,
                python()?
            ),
            "deno" => format!(
                r#"DENO_DIR=$PWD/deno {} eval 'const r = await fetch("{url}"); Deno.exit(r.ok ? 0 : 1)'"#,
                venv("deno")?
            ),
            "git" => format!("git clone -q https://me:password@{authority}/git/demo.git clone-$$"),
            "npm" => {
                format!(
                    "npm ping --registry https://{authority}/ --fetch-retries 0 --cache $PWD/npm --cafile \"$SSL_CERT_FILE\""
                )
            }
            "pip" => format!(
                "{} -m pip -q --disable-pip-version-check --no-cache-dir download --retries 0 --no-deps -d pip-$$ \
                 --index-url https://{authority}/simple onecli-learnt",
                python()?
            ),
            "openssl" => format!(
                r#"login=${{HTTPS_PROXY#http://}}; address=${{login##*@}}; token=${{login%@*}}; token=${{token#*:}}
                   printf 'GET /echo HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n' |
                   openssl s_client -proxy "$address" -proxy_user coder -proxy_pass "pass:$token" -connect {authority} \
                     -CAfile "$SSL_CERT_FILE" -verify_return_error -ign_eof -quiet 2>&1 | grep -a 'HTTP/1.1 200'"#
            ),
            "node" => format!(
                r#"node -e 'fetch("{url}").then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))'"#
            ),
            _ => return None,
        };
        let bundle = bundle(&self.daemon);
        let bundle = bundle.display();
        Some(format!(
            "export CURL_CA_BUNDLE={bundle} SSL_CERT_FILE={bundle} REQUESTS_CA_BUNDLE={bundle} PIP_CERT={bundle} \
             GIT_SSL_CAINFO={bundle} NODE_EXTRA_CA_CERTS={bundle} DENO_CERT={bundle} GIT_TERMINAL_PROMPT=0\n\
             cd \"$(mktemp -d)\" && export HOME=$PWD\n{script}"
        ))
    }

    /// Pastes the output of `learn` into a shell whose `onecli` uses this daemon.
    fn paste(&self) -> String {
        let learned = self.daemon.onecli(&["agent", "learn", "coder"]).ok("learn");
        let home = self.daemon.home();
        let program = home.cli(&[]).program().to_owned();
        let function = format!(
            "onecli() {{ {} --socket {} \"$@\"; }}\n",
            Path::new(&program).display(),
            home.socket().display()
        );
        let pasted = Run::new("sh").args(["-e", "-c", &format!("{function}{learned}")]).outcome();
        pasted.ok(&learned);
        learned
    }
}

/// A path that agents see: their view has another `/tmp`.
fn bundle(daemon: &Daemon) -> PathBuf {
    daemon.home().dir().join("both.pem")
}

const WHEEL: &str = "onecli_learnt-1.0-py3-none-any.whl";

/// A Python package without content.
fn wheel(dir: &Path) -> Vec<u8> {
    let path: PathBuf = dir.join(WHEEL);
    let script = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    info = "onecli_learnt-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: onecli-learnt\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
"#;
    Run::new("python3").args(["-c", script]).arg(&path).outcome().ok("the wheel");
    std::fs::read(path).unwrap()
}

/// The installed clients. Node reads proxy variables since 22.21 and 24.5.
fn clients() -> Vec<&'static str> {
    let mut names = vec!["curl", "urllib"];
    for (program, package) in [("wget", "wget"), ("git", "git"), ("npm", "npm"), ("openssl", "openssl")] {
        if need::program("a client of 'learn'", program, package) {
            names.push(program);
        }
    }
    if need::python("clients of 'learn'") {
        names.extend(["requests", "httpx", "aiohttp", "deno", "pip"]);
    }
    let version = Run::new("node").arg("--version").outcome().out();
    let version: Vec<u32> =
        version.trim_start_matches('v').split('.').filter_map(|part| part.parse().ok()).collect();
    if version.get(..2).is_some_and(|version| version >= &[24, 5][..]) {
        names.push("node");
    }
    names
}

#[test]
fn slow_refused_clients_succeed_after_pasting() {
    let world = World::new(&["--factors", "token"], false);
    let environment = world.daemon.onecli(&["agent", "env", "coder", "--for", "shell"]).ok("agent env");
    let run = |name: &str| -> Outcome {
        let script = format!("eval \"$1\"\n{}", world.script(name).unwrap());
        Run::new("sh").args(["-c", &script, "sh", &environment]).timeout(Duration::from_mins(1)).outcome()
    };
    let clients = clients();
    for name in &clients {
        let refused = run(name);
        assert!(!refused.status.success(), "{name} was not refused: {refused:?}");
    }
    let learned = world.paste();
    assert_eq!(
        learned.lines().filter(|line| line.starts_with("onecli ")).count(),
        clients.len(),
        "{learned}"
    );
    for name in &clients {
        run(name).ok(&format!("{name} after\n{learned}"));
    }
    // No further refusals remain.
    let again = world.daemon.onecli(&["agent", "learn", "coder"]).ok("learn");
    assert!(again.lines().all(|line| line.starts_with('#')), "{again}");
}

#[test]
fn refused_clients_of_transparent_mode_succeed_after_pasting() {
    if !need::bpf("everything") {
        return;
    }
    let world = World::new(&["--factors", "cgroup", "--user", "nobody"], true);
    for name in ["curl", "urllib", "wget", "git"] {
        if !clients().contains(&name) {
            continue;
        }
        let run = || {
            let run =
                Run::new("sh").args(["-c", &world.script(name).unwrap()]).timeout(Duration::from_mins(1));
            world.daemon.managed(&world.agent, &run).outcome()
        };
        assert!(!run().status.success(), "{name} was not refused");
        let mut last = String::new();
        let succeeded = (0..ROUNDS).any(|_| {
            last = world.paste();
            run().status.success()
        });
        assert!(succeeded, "{name} is refused after {ROUNDS} rounds: {last}");
    }
}

/// Requests for which `learn` shows no command: those allowed by now, and doubtful ones.
#[test]
fn doubtful_and_settled_refusals_give_no_commands() {
    let scene = Scene::new();
    let daemon = &scene.daemon;
    let get = |url: &str| daemon.explicit(&scene.outside.token, curl(url)).outcome();
    let learn = || daemon.onecli(&["agent", "learn", "outside"]).ok("learn");
    let commands = |text: &str| {
        text.lines().filter(|line| line.starts_with("onecli ")).map(str::to_owned).collect::<Vec<_>>()
    };
    // Refused only because the agent was disabled.
    let _ = daemon.onecli(&["agent", "disable", "outside"]).ok("disable");
    let _ = get(&scene.url("/echo"));
    let disabled = learn();
    assert!(commands(&disabled).is_empty(), "{disabled}");
    let _ = daemon.onecli(&["agent", "enable", "outside"]).ok("enable");
    assert!(commands(&learn()).is_empty(), "{}", learn());
    // A metadata service.
    let _ = get("http://169.254.169.254/latest/meta-data/");
    let _ = daemon.audit_until("the refusal", |r| r["host"] == "169.254.169.254");
    let text = learn();
    assert!(commands(&text).is_empty(), "{text}");
    let line = text
        .lines()
        .find(|line| line.contains("--address 169.254.169.254"))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(line.starts_with("# onecli "), "{text}");
    // The JSON contains the reason, too.
    let json: Value = daemon.onecli_json(&["agent", "learn", "outside"]);
    assert!(json[0]["doubt"].as_str().is_some_and(|doubt| doubt.contains("metadata")), "{json}");
}

/// A request without the placeholder that its agent must present.
#[test]
fn missing_placeholder_is_reported_by_learn() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let get = |args: &[&str]| scene.run(Way::Transparent, curl(&scene.url("/echo")).args(args)).reply();
    let reply = get(&[]);
    assert_eq!(reply.header("x-onecli-error"), Some("placeholder_missing"), "{reply:?}");
    let reply = get(&["--http1.1", "--data", "x"]);
    assert_eq!(reply.verdict(), 401, "{reply:?}");
    let text = scene.daemon.onecli(&["agent", "learn", "inside"]).ok("learn");
    let line = |method: &str| {
        text.lines()
            .find(|line| line.contains(&format!("--method {method}")))
            .unwrap_or_else(|| panic!("{text}"))
    };
    assert!(line("GET").starts_with("onecli rule add allow --agent inside"), "{text}");
    assert!(line("POST").starts_with("# onecli rule add allow"), "{text}");
    let home = scene.daemon.home();
    let program = home.cli(&[]).program().to_owned();
    let function = format!(
        "onecli() {{ {} --socket {} \"$@\"; }}\n",
        Path::new(&program).display(),
        home.socket().display()
    );
    Run::new("sh").args(["-e", "-c", &format!("{function}{text}")]).outcome().ok(&text);
    let reply = get(&[]);
    assert_eq!((reply.verdict(), reply.text().contains(VALUE)), (200, false), "{API}: {reply:?}");
}
