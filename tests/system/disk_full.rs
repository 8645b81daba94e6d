//! A full disk under the data directory: the daemon forwards no request until there is space, then everything works
//! again.

use std::time::Duration;

use onecli_tests::client::curl;
use onecli_tests::daemon::Daemon;
use onecli_tests::disk::SmallDisk;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};

use crate::scene::{API, VALUE};

#[test]
fn requests_are_refused_on_a_full_disk_and_served_when_space_is_freed() {
    if !need::root("everything") {
        return;
    }
    let upstream = Upstream::start(&[API]);
    let home = Daemon::builder().upstream(&upstream).no_ebpf().prepare();
    let disk = SmallDisk::over(&home.data_dir(), 3 * 1024);
    let daemon = Daemon::start(home);
    // Drop order: the disk is unmounted before the daemon's directory is removed.
    let disk = disk;

    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let host = format!("{API}:{}", upstream.https_addr().port());
    daemon.add_secret("api", VALUE, &["--host", &host, "--bearer"]);
    let _ = daemon.grant(&agent, "api");
    let verdict = || {
        let run = curl(&upstream.https_url(API, "/echo"));
        let reply = daemon.explicit(&agent.token, run).outcome().reply();
        (reply.verdict(), reply.header("x-onecli-error").map(str::to_owned))
    };
    assert_eq!(verdict().0, 200);

    disk.fill();
    // The log has reserved space for some records.
    let refused = (0..300).any(|_| verdict().0 == 503);
    assert!(refused, "requests are forwarded on a full disk");
    let before = upstream.request_count();
    for _ in 0..8 {
        assert_eq!(verdict(), (503, Some("audit_unavailable".to_owned())));
    }
    assert_eq!(upstream.request_count(), before, "a request was forwarded without a record");
    assert!(!daemon.onecli(&["agent", "add", "other", "--factors", "token"]).status.success());
    let status = daemon.onecli_json(&["status"]);
    let fault = status["audit"]["fault"].as_str().unwrap_or_default();
    assert!(fault.contains("No space left"), "{status:#}");
    assert!(status["store_fault"].as_str().unwrap_or_default().contains("full"), "{status:#}");

    disk.free();
    let served = wait_for(Duration::from_secs(10), || (verdict().0 == 200).then_some(()));
    assert!(served.is_some(), "requests are refused although there is space");
    for number in 0..8 {
        let _ = daemon.add_agent(&format!("later{number}"), &["--factors", "token"]);
    }
    let shipped = wait_for(Duration::from_secs(40), || {
        let status = daemon.onecli_json(&["status"]);
        let audit = &status["audit"];
        let healthy =
            status["store_fault"].is_null() && audit["fault"].is_null() && audit["shipping_fault"].is_null();
        (healthy && audit["durable"] == audit["shipped"]).then_some(())
    });
    assert!(shipped.is_some(), "{:#}", daemon.onecli_json(&["status"]));
    let _ = daemon.onecli(&["agent", "disable", "agent"]).ok("agent disable");
    assert_eq!(verdict().0, 403, "the change takes effect");
}
