//! Witnesses of the audit log's checkpoints: a syslog, a server, a file. Their checkpoints reveal a log that was rolled
//! back.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onecli_tests::client::curl;
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};

use crate::scene::{API, VALUE};

/// rsyslogd(8) with a private socket, which writes to a file.
struct Syslog {
    child: Child,
}

impl Syslog {
    fn start(dir: &Path) -> Syslog {
        let at = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "global(workDirectory=\"{}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{}\")\n*.* action(type=\"omfile\" file=\"{}\")\n",
            dir.display(),
            at("log.sock"),
            at("syslog")
        );
        std::fs::write(dir.join("rsyslog.conf"), config).unwrap();
        let child = Command::new("rsyslogd")
            .args(["-n", "-f", &at("rsyslog.conf"), "-i", &at("rsyslog.pid")])
            .stdin(Stdio::null())
            .spawn()
            .expect("rsyslogd starts");
        let syslog = Syslog { child };
        let up = wait_for(Duration::from_secs(10), || dir.join("log.sock").exists().then_some(()));
        assert!(up.is_some(), "rsyslogd opens its socket");
        syslog
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn witnesses_detect_a_log_that_was_rolled_back() {
    if !need::root("everything") || !need::program("checkpoints in a syslog", "rsyslogd", "rsyslog") {
        return;
    }
    let upstream = Upstream::start(&[API]);
    let dir = tempfile::tempdir().unwrap();
    let _syslog = Syslog::start(dir.path());
    let kept = dir.path().join("checkpoints");
    let witnesses = format!(
        "[audit]\nwitnesses = [\"syslog:{}\", \"{}\", \"{}\", \"file:{}\"]",
        dir.path().join("log.sock").display(),
        upstream.https_url(API, "/upload?witness=tls"),
        upstream.http_url(API, "/upload?witness=plain"),
        kept.display(),
    );
    let mut daemon = Daemon::builder().upstream(&upstream).no_ebpf().config(&witnesses).start();
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let host = format!("{API}:{}", upstream.https_addr().port());
    daemon.add_secret("api", VALUE, &["--host", &host, "--bearer"]);
    let _ = daemon.grant(&agent, "api");
    let audit = daemon.home().data_dir().join("audit");
    // A copy from before the request, to be restored.
    daemon.terminate();
    let old = dir.path().join("old");
    let copied = Command::new("cp").arg("-a").args([&audit, &old]).status().unwrap();
    assert!(copied.success());

    daemon.restart();
    let run = curl(&upstream.https_url(API, "/echo"));
    assert_eq!(daemon.explicit(&agent.token, run).outcome().reply().verdict(), 200);
    // Every witness gets the last checkpoint, however soon it follows the previous one.
    daemon.terminate();
    let last = std::fs::read_to_string(audit.join("checkpoint")).unwrap();
    let posted: Vec<_> = upstream.requests().into_iter().filter(|r| r.path.starts_with("/upload")).collect();
    for (name, way) in [("tls", true), ("plain", false)] {
        let of_way = posted.iter().rfind(|request| request.path.ends_with(name));
        let request = of_way.unwrap_or_else(|| panic!("{name}: {posted:#?}"));
        assert_eq!((request.method.as_str(), request.sni.is_some()), ("POST", way), "{request:#?}");
        assert_eq!(String::from_utf8_lossy(&request.body), last, "{name}");
        assert_eq!(request.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    assert!(std::fs::read_to_string(&kept).unwrap().trim_end().ends_with(last.trim_end()));
    let syslog = dir.path().join("syslog");
    let logged = wait_for(Duration::from_secs(10), || {
        let text = std::fs::read_to_string(&syslog).unwrap_or_default();
        text.contains(&last.trim_end().replace('\n', "\\n")).then_some(text)
    });
    let logged = logged.expect("the last checkpoint in the syslog");
    assert!(logged.contains("onecli-daemon: audit checkpoint: onecli/audit/"), "{logged}");

    std::fs::remove_dir_all(&audit).unwrap();
    std::fs::rename(&old, &audit).unwrap();
    let verify = |witness: Option<&Path>| {
        let mut args = vec!["audit", "verify", "--dir", audit.to_str().unwrap()];
        args.extend(witness.iter().flat_map(|file| ["--witness", file.to_str().unwrap()]));
        daemon.onecli(&args)
    };
    let _ = verify(None).ok("a log rolled back with its checkpoint verifies");
    for witness in [&kept, &syslog] {
        let refused = verify(Some(witness));
        assert_eq!(refused.code(), Some(1), "{refused:?}");
        assert!(refused.err().contains("the end was cut off"), "{refused:?}");
    }
    // The daemon detects it by its database, and reports it.
    daemon.restart();
    let record = daemon.audit_until("the alert", |record| record["code"] == "audit_truncated");
    assert_eq!(record["event"], "alert");
}
