//! Responses that come before the request's body was read.

use onecli_tests::client::curl;
use onecli_tests::scripted::write_http1;

use crate::stage::Stage;

/// More than the daemon reads and drops.
const BODY: u64 = 50 << 20;
const AGENTS: [&str; 2] = ["--http1.1", "--http2"];

/// A file of [`BODY`] bytes that takes no room.
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
