//! A daemon with a scripted upstream, and an agent that may use its secret.

use std::io;

use onecli_tests::client::{Reply, Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::scripted::{Conn, ScriptedUpstream};
use serde_json::Value;

use crate::scene::{API, VALUE};

pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) agent: Agent,
    pub(crate) placeholder: String,
    pub(crate) upstream: ScriptedUpstream,
}

impl Stage {
    pub(crate) fn new(
        alpn: &str,
        serve: impl Fn(usize, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let upstream = ScriptedUpstream::start(API, &[alpn], serve);
        Self::of(Daemon::builder().no_ebpf().scripted(&upstream).start(), upstream)
    }

    pub(crate) fn of(daemon: Daemon, upstream: ScriptedUpstream) -> Self {
        let agent = daemon.add_agent("outside", &["--factors", "token"]);
        daemon.add_secret("api", VALUE, &["--host", &upstream.authority(), "--bearer"]);
        let placeholder = daemon.grant(&agent, "api").placeholder;
        Self { daemon, agent, placeholder, upstream }
    }

    /// A rule that denies a path of the upstream.
    pub(crate) fn deny(&self, path: &str) {
        let host = self.upstream.name();
        self.daemon.onecli(&["rule", "add", "deny", "--host", host, "--path", path]).ok("rule add");
    }

    pub(crate) fn curl(&self, args: &[&str]) -> Run {
        let authorization = format!("Authorization: Bearer {}", self.placeholder);
        let run = curl(&self.upstream.url("/x")).args(["--header", &authorization]).args(args);
        self.daemon.explicit(&self.agent.token, run)
    }

    pub(crate) fn send(&self, args: &[&str]) -> Reply {
        self.curl(args).outcome().reply()
    }

    /// The records of the last request with an outcome.
    pub(crate) fn last_request(&self) -> Vec<Value> {
        let _ = self.daemon.audit_until("an outcome", |r| r["event"] == "outcome");
        let records = self.daemon.audit();
        let last = records.iter().rev().find(|r| r["event"] == "outcome").unwrap();
        records.iter().filter(|r| r["request_id"] == last["request_id"]).cloned().collect()
    }
}
