//! Claude Code as an agent: it calls the Messages API with its placeholder, runs a command, and prints the answer.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onecli_tests::client;
use onecli_tests::daemon::{Daemon, Granted};
use onecli_tests::need;
use onecli_tests::scripted::{Conn, ScriptedUpstream, read_http1, server_config};
use onecli_tests::upstream::{TestCa, Upstream};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::people;
use super::{PERSON, Stage, tool};
use crate::scene::{API, Scene, VALUE};

/// The host that Claude Code contacts by default.
const HOST: &str = "api.anthropic.com";
/// The other host that it contacts before an interactive session.
const CHECKED: &str = "platform.claude.com";
/// The command that the model makes Claude Code run.
const COMMAND: &str = "echo written by Claude Code > made; cat given";

/// Requests to the Messages API: the key of each, and the body.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// Claude Code with its API.
struct Claude {
    program: PathBuf,
    stage: Stage,
    granted: Granted,
    seen: Seen,
    _api: ScriptedUpstream,
}

impl Claude {
    fn new() -> Option<Claude> {
        let missing =
            || "Claude Code is not installed: `cargo xtask test` installs it if npm is available".to_owned();
        if !Stage::is_possible() {
            return None;
        }
        let program = need::fixture("everything", client::claude().ok_or_else(missing))?;
        // An address used only by this test, because the port is that of every HTTPS client.
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 77, high, low);
        let listener = TcpListener::bind((address, 443)).map_err(|e| format!("{address}:443: {e}"));
        let listener = need::fixture("everything", listener)?;
        let seen = Seen::default();
        let api = messages_api(listener, Arc::clone(&seen));
        let address = address.to_string();
        let daemon = Daemon::builder().scripted(&api).host(HOST, &[&address]).host(CHECKED, &[&address]);
        let daemon = daemon.config("[egress]\nallow_addresses = [\"127.0.0.0/8\", \"::1/128\"]\n");
        let stage = Stage::of(Scene::of(daemon, Upstream::start(&[API]), &["--bearer"]));
        stage.scene.daemon.add_secret("claude", VALUE, &["--template", "anthropic"]);
        let granted = stage.scene.daemon.grant(&stage.robot, "claude");
        let program = tool(&stage.scene, &program);
        Some(Claude { program, stage, granted, seen, _api: api })
    }
}

/// Its first screen appears only if both hosts answer the check, which has no credential.
#[test]
fn slow_interactive_claude_code_starts_with_its_recipe() {
    let Some(claude) = Claude::new() else { return };
    let session = |screen: &str| {
        let script = format!("export HOME=$(mktemp -d); exec {}", claude.program.display());
        let steps = serde_json::json!([["see", screen]]).to_string();
        claude.stage.on_a_terminal(&["--recipe", "claude-code"], &script, &steps, 60);
    };
    session("Unable");
    claude.stage.scene.daemon.onecli(&["agent", "set", "robot", "--recipe", "claude-code"]).ok("agent set");
    session("Choose");
}

#[test]
fn slow_claude_code_works_as_an_agent() {
    let Some(Claude { program: claude, stage, granted, seen, _api }) = Claude::new() else { return };
    let project = stage.scene.daemon.home().dir().join("project");
    people::dir(&project, 2);
    people::file(&project.join("given"), "six times seven\n", 2);
    let script = r#"export HOME=$XDG_RUNTIME_DIR; exec "$1" -p 'Which number is meant?' --allowedTools Bash"#;
    let command = ["sh", "-c", script, "sh", claude.to_str().unwrap()];
    let run = stage.run_as(PERSON, &["--dir", project.to_str().unwrap()], &command);
    let outcome = run.timeout(Duration::from_mins(3)).outcome();

    assert_eq!(outcome.ok("claude"), "forty-two\n", "{outcome:?}");
    assert_eq!(std::fs::read_to_string(project.join("made")).unwrap(), "written by Claude Code\n");
    let seen = seen.lock();
    assert!(seen.len() >= 2 && seen.iter().all(|(key, _)| key == VALUE), "{seen:?}");
    assert!(seen.iter().any(|(_, body)| body.contains("six times seven")), "the command's output");
    assert!(seen.iter().all(|(_, body)| !body.contains(&granted.placeholder)), "a placeholder");
    let _ = stage.scene.daemon.audit_until("the injection", |record| {
        record["verdict"] == "inject" && record["agent"] == "robot" && record["host"] == HOST
    });
}

/// The Messages API: the first response requests a command, the second contains the answer.
fn messages_api(listener: TcpListener, seen: Seen) -> ScriptedUpstream {
    let ca = TestCa::new("Messages API CA");
    let (chain, key) = ca.leaf(&[HOST.to_owned(), CHECKED.to_owned()]);
    let mut tls = server_config().with_single_cert(chain, key).expect("the leaf fits its key");
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let serve = move |_, conn: &mut Conn| {
        loop {
            let (head, body) = read_http1(conn)?;
            answer(conn, &head, &String::from_utf8_lossy(&body), &seen)?;
        }
    };
    ScriptedUpstream::on(listener, HOST, tls, ca.pem(), serve)
}

fn answer(conn: &mut Conn, head: &str, body: &str, seen: &Seen) -> io::Result<()> {
    if head.starts_with("GET /api/hello ") || head.starts_with("GET /v1/oauth/hello ") {
        write!(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}")?;
        return conn.flush();
    }
    if !head.starts_with("POST /v1/messages?") && !head.starts_with("POST /v1/messages ") {
        write!(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        return conn.flush();
    }
    let key = head.lines().find_map(|line| line.strip_prefix("x-api-key: ")).unwrap_or_default();
    seen.lock().push((key.to_owned(), body.to_owned()));
    let (block, delta, reason) = if body.contains("\"tool_result\"") {
        (
            json!({ "type": "text", "text": "" }),
            json!({ "type": "text_delta", "text": "forty-two" }),
            "end_turn",
        )
    } else {
        let input = json!({ "command": COMMAND, "description": "Reads a file" }).to_string();
        let block = json!({ "type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {} });
        (block, json!({ "type": "input_json_delta", "partial_json": input }), "tool_use")
    };
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 1, "output_tokens": 1 },
    });
    let stop = json!({ "stop_reason": reason, "stop_sequence": null });
    events(
        conn,
        &[
            json!({ "type": "message_start", "message": message }),
            json!({ "type": "content_block_start", "index": 0, "content_block": block }),
            json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
            json!({ "type": "content_block_stop", "index": 0 }),
            json!({ "type": "message_delta", "delta": stop, "usage": { "output_tokens": 1 } }),
            json!({ "type": "message_stop" }),
        ],
    )
}

/// A stream of events, each named by its type.
fn events(conn: &mut Conn, all: &[Value]) -> io::Result<()> {
    let text = all.iter().fold(String::new(), |text, event| {
        text + &format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
    });
    write!(
        conn,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )?;
    conn.flush()
}
