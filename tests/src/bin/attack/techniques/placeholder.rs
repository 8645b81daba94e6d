//! Placeholders sent to another host. The agent gains nothing, but the operator must receive an alert.
//!
//! Control: a placeholder in a header field of such a request raises an alert.

use std::io::{self, Write};
use std::time::Duration;

use data_encoding::BASE64;
use data_encoding::HEXLOWER;
use onecli_tests::wait_for;

use super::oracle::switched;
use crate::stage::row::{Row, Trial};
use crate::stage::world::{B, Conn, Seen, VALUE, World, reply};
use crate::wire::websocket;

const GETS: &str = "a leaked placeholder without an alert";
const CONTROL: &str = "in a header field it raises an alert";

pub(crate) const ROWS: &[Row] = &[
    Row::new("placeholder/body", GETS, CONTROL, body).quick(),
    Row::new("placeholder/chunked-body", GETS, CONTROL, chunked_body),
    Row::new("placeholder/websocket", GETS, CONTROL, over_websocket),
    Row::new("placeholder/disguised", GETS, CONTROL, disguised),
];

fn handler(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    if !seen.target().starts_with("/socket") {
        return reply(conn, "ok");
    }
    conn.write_all(websocket::switch().as_bytes())?;
    conn.flush()?;
    loop {
        websocket::receive(conn)?;
        websocket::send(conn, b"received", false)?;
    }
}

struct Scene {
    world: World,
    placeholder: String,
    alerts: usize,
}

impl Scene {
    fn new(trial: &mut Trial) -> Self {
        let (world, granted) = World::with_key(&["--bearer"], handler);
        // Makes the daemon inspect requests to the other host.
        let _ = world.give("other", B, "anotherValue0123456789", &["--header", "X-Key: {secret}"]);
        let mut scene = Self { world, placeholder: granted.placeholder, alerts: 0 };
        let fields = format!("X-Note: {}\r\nConnection: close\r\n", scene.placeholder);
        scene.world.get(B, "/", &fields);
        trial.control(CONTROL, scene.has_alert());
        scene
    }

    /// Returns whether there is a new alert.
    fn has_alert(&mut self) -> bool {
        let more = wait_for(Duration::from_secs(3), || {
            let records = self.world.daemon.audit();
            let about = |code: &str| code.contains("placeholder");
            let count = records
                .iter()
                .filter(|r| r["event"] == "alert" && r["code"].as_str().is_some_and(about))
                .count();
            (count > self.alerts).then_some(count)
        });
        self.alerts = more.unwrap_or(self.alerts);
        more.is_some()
    }

    /// Sends a request to the other host.
    fn send(&mut self, trial: &mut Trial, what: &str, fields: &str, body: &[u8]) {
        let fields = format!("{fields}Connection: close\r\n");
        let request = [self.world.request("POST", B, "/notes", &fields), body.to_vec()].concat();
        let answer = self.world.send(B, &request);
        let silent = !self.has_alert();
        trial.attempt(format!("{what}: status {}, no alert", answer.status), silent);
    }
}

fn body(trial: &mut Trial) {
    let mut scene = Scene::new(trial);
    let key = scene.placeholder.clone();
    for (what, kind, body) in [
        ("text", "text/plain", key.clone()),
        ("JSON", "application/json", format!("{{\"text\": \"see {key}\"}}")),
        ("form", "application/x-www-form-urlencoded", format!("a=1&text={key}&b=2")),
        ("after 256 KiB", "application/octet-stream", format!("{}{key}", "x".repeat(256 * 1024))),
    ] {
        let fields = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        scene.send(trial, what, &fields, body.as_bytes());
    }
    trial.control("the value is not sent", !scene.world.script.saw(VALUE));
}

fn chunked_body(trial: &mut Trial) {
    let mut scene = Scene::new(trial);
    let (first, second) = scene.placeholder.split_at(scene.placeholder.len() / 2);
    let whole = format!("{:x}\r\n{}\r\n0\r\n\r\n", scene.placeholder.len(), scene.placeholder);
    let halves = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    for (what, body) in [("one chunk", whole), ("two chunks", halves)] {
        scene.send(trial, what, "Transfer-Encoding: chunked\r\n", body.as_bytes());
    }
}

/// Other spellings and other locations.
fn disguised(trial: &mut Trial) {
    let mut scene = Scene::new(trial);
    let key = scene.placeholder.clone();
    let base64 = BASE64.encode(format!("user:{key}").as_bytes());
    let thrice: String = key.bytes().fold(String::new(), |all, byte| format!("{all}%2525{byte:02x}"));
    let utf16: String = key.chars().flat_map(|c| [c, '\0']).collect();
    for (what, fields, body) in [
        ("the name of a header field", format!("{key}: x\r\n"), String::new()),
        ("base64 in a header field", format!("X-Note: {base64}\r\n"), String::new()),
        ("base64 in JSON", String::new(), format!("{{\"text\": \"{base64}\"}}")),
        ("three layers of percent-encoding", String::new(), thrice),
        ("hex", String::new(), HEXLOWER.encode(key.as_bytes())),
        ("UTF-16", String::new(), utf16),
    ] {
        let fields = format!("{fields}Content-Length: {}\r\n", body.len());
        scene.send(trial, what, &fields, body.as_bytes());
    }
}

fn over_websocket(trial: &mut Trial) {
    let mut scene = Scene::new(trial);
    let mut tunnel = switched(&scene.world, B, "/socket").expect("a WebSocket");
    for text in [scene.placeholder.clone(), format!("{{\"key\": \"{}\"}}", scene.placeholder)] {
        websocket::send(&mut tunnel, text.as_bytes(), true).expect("sent");
        // The daemon may respond or close the connection; only the alert counts.
        let _ = websocket::receive(&mut tunnel);
        trial.attempt("a text message: no alert", !scene.has_alert());
        tunnel = switched(&scene.world, B, "/socket").expect("a WebSocket");
    }
}
