//! Responses that arrive before the request body is read, from the daemon or from the upstream.

use std::io::{self, Read, Write};
use std::time::Duration;

use onecli_tests::client::curl;
use onecli_tests::scripted::{Conn, write_http1};

use crate::stage::Stage;

/// More than the daemon reads and discards.
const BODY: u64 = 50 << 20;
const AGENTS: [&str; 2] = ["--http1.1", "--http2"];

/// A sparse file of [`BODY`] bytes.
fn large_file(dir: &tempfile::TempDir) -> String {
    let path = dir.path().join("large");
    std::fs::File::create(&path).unwrap().set_len(BODY).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn refused_upload_gets_its_answer() {
    let stage = Stage::new("http/1.1", |_, conn| write_http1(conn, "never"));
    stage.deny("/denied");
    let dir = tempfile::tempdir().unwrap();
    let file = large_file(&dir);
    for agent in AGENTS {
        for _ in 0..5 {
            let run =
                curl(&stage.upstream.url("/denied")).args([agent, "--upload-file", &file, "-H", "Expect:"]);
            let reply = stage.daemon.explicit(&stage.agent.token, run).outcome().reply();
            assert_eq!((reply.verdict(), reply.exit), (403, Some(0)), "{agent}: {reply:?}");
            assert_eq!(reply.json()["error"]["code"], "rule_denied", "{agent}: {reply:?}");
        }
    }
    assert_eq!(stage.upstream.connection_count(), 0);
}

/// Reads a head and a part of the body, responds, and closes the connection with unread bytes, which resets it.
fn answer_and_reset(conn: &mut Conn) -> io::Result<()> {
    conn.read_exact(&mut vec![0; 20_000])?;
    conn.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large")?;
    conn.flush()?;
    // The daemon continues to write during this time.
    std::thread::sleep(Duration::from_millis(30));
    Ok(())
}

#[test]
fn early_answer_of_an_upstream_that_resets_is_delivered() {
    let stage = Stage::new("http/1.1", |_, conn| answer_and_reset(conn));
    let dir = tempfile::tempdir().unwrap();
    let file = large_file(&dir);
    for agent in AGENTS {
        for _ in 0..10 {
            let reply = stage.send(&[agent, "--upload-file", &file, "-H", "Expect:"]);
            let got = (reply.verdict(), reply.text(), reply.exit);
            assert_eq!(got, (413, "too large".to_owned(), Some(0)), "{agent}: {reply:?}");
        }
        let records = stage.last_request();
        let outcome = records.iter().find(|record| record["event"] == "outcome").unwrap();
        assert_eq!((&outcome["status"], outcome["code"].as_str()), (&413.into(), None), "{agent}: {outcome}");
        assert!(outcome["bytes_in"].as_u64().is_some_and(|bytes| bytes < BODY), "{agent}: {outcome}");
    }
}

#[test]
fn upstream_that_resets_without_an_answer_is_a_bad_gateway() {
    let stage = Stage::new("http/1.1", |_, conn| conn.read_exact(&mut vec![0; 20_000]));
    let dir = tempfile::tempdir().unwrap();
    let file = large_file(&dir);
    for agent in AGENTS {
        let reply = stage.send(&[agent, "--upload-file", &file, "-H", "Expect:"]);
        assert_eq!((reply.verdict(), reply.exit), (502, Some(0)), "{agent}: {reply:?}");
        assert_eq!(reply.header("x-onecli-error"), Some("upstream_protocol"), "{agent}: {reply:?}");
    }
}
