//! An attacker who reads TLS 1.3 early data (RFC 8446 section 2.3) on the network can replay it. No entry point accepts
//! it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use onecli_tests::client::{Outcome, Run};
use onecli_tests::daemon::Daemon;
use onecli_tests::need;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, API_V6, Scene, Way, ways};

/// An entry point that speaks TLS with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// An inspected connection of either way.
    Inspected(Way),
    /// The listener `listen.explicit_tls`.
    Proxy,
}

struct Stage {
    scene: Scene,
    proxy: u16,
    /// The token of an agent that may reach every host, also in plain text.
    open: String,
}

impl Stage {
    fn new() -> Stage {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = free.local_addr().unwrap().port();
        drop(free);
        let config = format!("[listen]\nexplicit_tls = [\"127.0.0.1:{proxy}\"]\n");
        let upstream = Upstream::start(&[API, API_V6]);
        let scene = Scene::of(Daemon::builder().config(&config), upstream, &["--bearer"]);
        let open = scene.daemon.add_agent("open", &["--factors", "token", "--egress", "allow"]).token;
        Stage { scene, proxy, open }
    }

    /// The request for `door`; the upstream sees `/echo?WHAT`.
    fn request(&self, door: Door, what: &str) -> String {
        let Stage { scene, open, .. } = self;
        let (at, port, field) = match door {
            Door::Inspected(way) => {
                let placeholder = scene.placeholder(way);
                (
                    String::new(),
                    scene.upstream.https_addr().port(),
                    format!("Authorization: Bearer {placeholder}"),
                )
            }
            Door::Proxy => {
                let port = scene.upstream.http_addr().port();
                (format!("http://{API}:{port}"), port, format!("Proxy-Authorization: Bearer {open}"))
            }
        };
        format!("GET {at}/echo?{what} HTTP/1.1\r\nHost: {API}:{port}\r\n{field}\r\nConnection: close\r\n\r\n")
    }

    /// Runs openssl through `door`: sends `/echo?late` after the handshake.
    fn openssl(&self, door: Door, options: &[&str]) -> Outcome {
        let Stage { scene, proxy, .. } = self;
        let authority = format!("{API}:{}", scene.upstream.https_addr().port());
        let run = Run::new("openssl")
            .args(["s_client", "-tls1_3", "-ign_eof", "-verify_return_error"])
            .args(options)
            .stdin(self.request(door, "late"));
        let explicit = scene.daemon.explicit_addr().to_string();
        let pass = format!("pass:{}", scene.outside.token);
        match door {
            Door::Inspected(Way::Transparent) => {
                let ca = scene.daemon.home().dir().join("ca-bundle.pem");
                let run = run.args(["-connect", &authority, "-servername", API, "-CAfile"]).arg(ca);
                scene.daemon.managed(&scene.inside, &run).outcome()
            }
            Door::Inspected(Way::Explicit) => run
                .args(["-connect", &authority, "-servername", API, "-proxy", &explicit])
                .args(["-proxy_user", "x", "-proxy_pass", &pass, "-CAfile"])
                .arg(scene.daemon.ca_file())
                .outcome(),
            Door::Proxy => {
                let address = format!("127.0.0.1:{proxy}");
                run.args(["-connect", &address, "-CAfile"]).arg(scene.daemon.ca_file()).outcome()
            }
        }
    }

    /// The requests that the upstream received since the last call.
    fn arrived(&self) -> Vec<String> {
        let arrived = self.scene.upstream.requests().into_iter().map(|request| request.path).collect();
        self.scene.upstream.clear();
        arrived
    }
}

/// Changes a session file of openssl so that openssl believes that the server accepts 16 KiB of early data. This is
/// element 15 of `SSL_SESSION` (`ssl/ssl_asn1.c`), which is omitted if it is 0.
fn made_to_allow_early_data(pem: &str) -> String {
    let (begin, rest) = pem.split_once("-----\n").unwrap();
    let (text, end) = rest.split_once("-----").unwrap();
    let der = BASE64.decode(text.replace('\n', "").as_bytes()).unwrap();
    let (mut rest, mut fields) = (content(&der).1, Vec::new());
    while let Some(&tag) = rest.first() {
        let (whole, _) = content(rest);
        fields.push((tag, &rest[..whole]));
        rest = &rest[whole..];
    }
    assert!(!fields.iter().any(|(tag, _)| *tag == 0xaf), "the server allows early data: {fields:x?}");
    let at = fields.iter().position(|(tag, _)| *tag > 0xaf).unwrap_or(fields.len());
    fields.insert(at, (0xaf, &[0xaf, 4, 2, 2, 0x40, 0]));
    let content: Vec<u8> = fields.into_iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let der = [&[0x30, 0x82][..], &length, &content].concat();
    format!("{begin}-----\n{}\n-----{end}", BASE64.encode(&der))
}

/// The first element of `der`: its length including the header, and its content.
fn content(der: &[u8]) -> (usize, &[u8]) {
    let (head, length) = match der[1] {
        short @ ..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        other => panic!("unsupported length {other:#x}"),
    };
    (head + length, &der[head..head + length])
}

fn file(dir: &Path, name: &str) -> (PathBuf, String) {
    let path = dir.join(name);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

/// A session is resumed with its ticket, which allows no early data. Early data that a client sends anyway is
/// discarded, and the connection continues with the data after the handshake.
#[test]
fn early_data_is_refused_at_every_entry_point() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    let stage = Stage::new();
    let dir = stage.scene.daemon.agent_dir(&stage.scene.inside);
    let (early_file, early) = file(&dir, "early");
    let doors = ways().into_iter().map(Door::Inspected).chain([Door::Proxy]);
    for door in doors {
        let (session_file, session) = file(&dir, "session");
        let first = stage.openssl(door, &["-sess_out", &session]);
        let out = first.ok(&format!("{door:?}"));
        assert!(out.contains("New, TLSv1.3") && out.contains("200 OK"), "{door:?}: {out}");
        assert!(out.contains("Max Early Data: 0\n") && !out.contains("Max Early Data: 1"), "{door:?}: {out}");
        assert_eq!(stage.arrived(), ["/echo?late"], "{door:?}");

        let resumed = stage.openssl(door, &["-sess_in", &session]).ok(&format!("{door:?}, resumed"));
        assert!(resumed.contains("Reused, TLSv1.3") && resumed.contains("200 OK"), "{door:?}: {resumed}");
        assert_eq!(stage.arrived(), ["/echo?late"], "{door:?}");

        let pem = std::fs::read_to_string(&session_file).unwrap();
        std::fs::write(&session_file, made_to_allow_early_data(&pem)).unwrap();
        std::fs::write(&early_file, stage.request(door, "early")).unwrap();
        let hostile = stage.openssl(door, &["-sess_in", &session, "-early_data", &early]);
        let out = hostile.ok(&format!("{door:?}, early"));
        assert!(out.contains("Early data was rejected"), "{door:?}: {hostile:?}");
        assert!(out.contains("200 OK"), "{door:?}: {out}");
        assert_eq!(stage.arrived(), ["/echo?late"], "{door:?}: the early request was accepted");
        std::fs::remove_file(&session_file).unwrap();
    }
}
