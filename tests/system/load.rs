//! Tests the load generator of the benchmark, on which its figures depend.

use onecli_tests::client::{Outcome, Run};
use onecli_tests::upstream::Upstream;

const NAME: &str = "api.bench.test";

fn load(upstream: &Upstream, args: &[&str]) -> Outcome {
    Run::new(env!("CARGO_BIN_EXE_bench"))
        .args(["load", "--name", NAME, "--address", &upstream.https_addr().to_string()])
        .args(["--key-from", "KEY", "--millis", "100"])
        .args(args)
        .env("KEY", "a-key")
        .env("SSL_CERT_FILE", upstream.ca_file())
        .outcome()
}

#[test]
fn counts_match_the_requests_at_the_upstream() {
    let upstream = Upstream::start(&[NAME]);
    let cases: &[(&[&str], usize)] = &[
        (&["--path", "/bytes/64"], 1),
        (&["--path", "/bytes/64", "--connections", "4"], 4),
        (&["--path", "/upload", "--upload", "100000"], 1),
    ];
    for (args, connections) in cases {
        upstream.clear();
        let before = upstream.connection_count();
        let out = load(&upstream, args).ok("bench load");
        let rate: f64 = out.split(' ').next().unwrap().parse().unwrap();
        let seen = upstream.requests();
        // Each connection makes one request before the clock starts.
        assert!(seen.len() > *connections && rate > 0.0, "{args:?}: {out}");
        assert_eq!(upstream.connection_count() - before, *connections, "{args:?}");
        let upload = if args.contains(&"--upload") { 100_000 } else { 0 };
        for request in seen {
            assert_eq!(request.header("authorization"), Some("Bearer a-key"));
            assert_eq!(request.body_len, upload);
        }
    }
}

#[test]
fn each_request_opens_a_new_connection_if_configured() {
    let upstream = Upstream::start(&[NAME]);
    let _ = load(&upstream, &["--path", "/bytes/64", "--new-connections"]).ok("bench load");
    assert_eq!(upstream.connection_count(), upstream.request_count());
}

#[test]
fn unsuccessful_response_ends_the_load() {
    let upstream = Upstream::start(&[NAME]);
    let outcome = load(&upstream, &["--path", "/status/403"]);
    assert!(outcome.code() == Some(1) && outcome.err().contains("403"), "{outcome:?}");
}
