//! What a record holds, and under which names.

use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::Timestamp;
use onecli_model::{AgentName, CanonicalPath, Code, Factors, Host, RequestId, SecretName};
use serde::{Deserialize, Serialize};

use super::encode::{self, Link};
use super::recover::CODE_UNSIGNED;
use super::retention::CODE_PRUNED;
use super::text::Text;

/// What a record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// What was decided, before anything leaves.
    Decision,
    /// What came of it, after the answer.
    Outcome,
    /// A refusal that looks like an attack, or a fault of the log itself.
    Alert,
    /// A person is asked about a request, or has answered; `code` tells which.
    Approval,
}

/// How a connection reached the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Redirected by the kernel.
    Transparent,
    /// By `HTTPS_PROXY`.
    Explicit,
    /// It is the daemon's own: to a token endpoint, for a request of the agent.
    Daemon,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Forwarded with a credential put in.
    Inject,
    /// Forwarded without one.
    Forward,
    /// Passed through without decryption.
    Tunnel,
    /// Refused.
    Deny,
}

impl Event {
    /// The event as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Decision => "decision",
            Event::Outcome => "outcome",
            Event::Alert => "alert",
            Event::Approval => "approval",
        }
    }
}

impl FromStr for Event {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Event, Self::Err> {
        let all = [Event::Decision, Event::Outcome, Event::Alert, Event::Approval];
        let found = all.into_iter().find(|event| event.as_str() == text);
        found.ok_or("it is one of decision, outcome, alert, approval")
    }
}

impl FromStr for Verdict {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Verdict, Self::Err> {
        let all = [Verdict::Inject, Verdict::Forward, Verdict::Tunnel, Verdict::Deny];
        all.into_iter()
            .find(|verdict| verdict.as_str() == text)
            .ok_or("it is one of inject, forward, tunnel, deny")
    }
}

impl Verdict {
    /// The verdict as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Inject => "inject",
            Verdict::Forward => "forward",
            Verdict::Tunnel => "tunnel",
            Verdict::Deny => "deny",
        }
    }
}

/// A record as a line of the log has it: numbered and dated by the writer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// When it was written; RFC 3339 in UTC, to the microsecond.
    pub time: Timestamp,
    /// Position in the log, from 1: one more than the record before.
    pub seq: u64,
    /// What binds it to the record before.
    pub prev: Link,
    /// What is told.
    #[serde(flatten)]
    pub record: Record,
}

impl Entry {
    /// Where this tells of records for which nothing vouches but their links: their numbers.
    pub(super) fn unsigned(&self) -> Option<RangeInclusive<u64>> {
        let Record { request_id, event, code, count, .. } = &self.record;
        let of_the_log = request_id.is_none() && *event == Event::Alert;
        let ours = of_the_log && code.as_ref().is_some_and(|code| code.as_str() == CODE_UNSIGNED);
        let first = self.seq.checked_sub(count.filter(|count| ours && *count > 0)?)?;
        Some(first..=self.seq - 1)
    }
}

/// One audit record. What is not known stays `None` and is left out of the line. Start with [`Record::new`], fill
/// in what becomes known, and keep it for the outcome ([`Record::outcome`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The request; `None` only where the log tells of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// Decision, outcome, alert or approval.
    pub event: Event,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// What it proved of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factors: Option<Factors>,
    /// How it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The method (RFC 9110 section 9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Text>,
    /// The host in canonical form, or what was given where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Text>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The canonical path, without query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text>,
    /// The address that was dialled or that the agent asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Text>,
    /// The rule or default that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text>,
    /// The secret that is injected. Where a request has several slots, all of them as `NAME@VERSION`, joined by
    /// commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Text>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<u32>,
    /// Where its value was fetched from, where the store does not hold it: `vault@3` (the version), `vault stale` (kept
    /// from before the server failed), `file`. Told with the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Text>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why it was refused, or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Text>,
    /// The status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Body bytes from the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Body bytes to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// From the request's head to the end of its answer, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// TLS version towards the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Text>,
    /// The protocol that ALPN agreed on with the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Text>,
    /// How often the value was scrubbed from the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub_hits: Option<u64>,
    /// Sessions (cookies, session headers) of this request, as counts: `opened` and `removed` in the request, `sealed` and
    /// `dropped` in the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Text>,
    /// The agent's managed cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Text>,
    /// The kernel's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Cookie of the network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    /// User id of the connecting process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Process id of the connecting process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its name as the kernel has it. A process chooses it freely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<Text>,
    /// User id of the person whose `onecli run` started the command that asks. By the cgroup of that command, or by the session
    /// token that the daemon minted for it; an agent's own token has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_by: Option<u32>,
    /// The question to a person that the request waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Text>,
    /// SHA-256 over the head of the request that the answer is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_digest: Option<Text>,
    /// The user id of whoever answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_uid: Option<u32>,
    /// How many things this record stands for, where it is not one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Record {
    /// A record of a request's decision.
    pub fn new(request: RequestId) -> Record {
        Record::blank(Event::Decision, Some(request))
    }

    /// A record of the log about itself.
    pub(super) fn of_the_log(code: &str, count: u64) -> Record {
        Record { code: Some(Text::new(code)), count: Some(count), ..Record::blank(Event::Alert, None) }
    }

    /// A record of what an administrator did that concerns every credential: to the keys, the authority, the store.
    pub fn of_an_administrator(request: RequestId, code: &'static str, detail: &str) -> Record {
        Record {
            code: Some(Text::new(code)),
            rule: Some(Text::new(detail)),
            ..Record::blank(Event::Alert, Some(request))
        }
    }

    /// A record of the log about records of its own that are not signed for: those before it, from number `first` to `last`.
    pub(super) fn unsigned(first: u64, last: u64) -> Record {
        Record {
            rule: Some(Text::new(&format!("records {first} to {last}"))),
            ..Record::of_the_log(CODE_UNSIGNED, last + 1 - first)
        }
    }

    /// For tests: nothing is left out.
    ///
    /// # Panics
    /// Never.
    #[cfg(any(test, feature = "testing"))]
    #[allow(clippy::unwrap_used, reason = "a fixture")]
    pub fn with_every_field() -> Record {
        let text = |text: &str| Some(Text::new(text));
        let Record { request_id, event, .. } = Record::new(RequestId(uuid::Uuid::from_u128(1)));
        Record {
            request_id,
            event,
            agent: "one".parse().ok(),
            factors: Some(Factors::BOTH),
            mode: Some(Mode::Transparent),
            method: text("POST"),
            host: text("api.example.com"),
            port: Some(443),
            path: text("/v1/chat"),
            address: text("192.0.2.7:443"),
            rule: text("grant openai"),
            secret: text("openai"),
            secret_version: Some(3),
            backend: text("vault@3"),
            verdict: Some(Verdict::Inject),
            code: text("interrupted"),
            status: Some(200),
            bytes_in: Some(10),
            bytes_out: Some(20),
            duration_us: Some(1234),
            tls: text("1.3"),
            alpn: text("h2"),
            scrub_hits: Some(0),
            sessions: text("opened 1, sealed 1"),
            cgroup: text("onecli-agents-one.slice"),
            cgroup_id: Some(77),
            netns: Some(u64::MAX),
            uid: Some(1000),
            pid: Some(4242),
            comm: text("curl"),
            launched_by: Some(1001),
            approval: text("3f9c02d1ab"),
            approval_digest: text("00ff"),
            approval_uid: Some(1000),
            count: Some(1),
        }
    }

    /// How many bytes its line takes, at most.
    pub fn line_bytes(&self) -> u64 {
        encode::line_bytes(self)
    }

    /// Where this tells of removed segments: the number of the last record that went with them.
    pub fn pruned_through(&self) -> Option<u64> {
        let of_the_log = self.request_id.is_none() && self.event == Event::Outcome;
        self.count
            .filter(|_| of_the_log && self.code.as_ref().is_some_and(|code| code.as_str() == CODE_PRUNED))
    }

    fn blank(event: Event, request_id: Option<RequestId>) -> Record {
        Record {
            request_id,
            event,
            agent: None,
            factors: None,
            mode: None,
            method: None,
            host: None,
            port: None,
            path: None,
            address: None,
            rule: None,
            secret: None,
            secret_version: None,
            backend: None,
            verdict: None,
            code: None,
            status: None,
            bytes_in: None,
            bytes_out: None,
            duration_us: None,
            tls: None,
            alpn: None,
            scrub_hits: None,
            sessions: None,
            cgroup: None,
            cgroup_id: None,
            netns: None,
            uid: None,
            pid: None,
            comm: None,
            launched_by: None,
            approval: None,
            approval_digest: None,
            approval_uid: None,
            count: None,
        }
    }

    /// Notes where the request goes.
    pub fn target(&mut self, host: &Host, port: u16) -> &mut Record {
        self.host = Some(Text::new(&host.to_string()));
        self.port = Some(port);
        self
    }

    /// Notes method and path.
    pub fn request(&mut self, method: &str, path: &CanonicalPath) -> &mut Record {
        self.method = Some(Text::new(method));
        self.path = Some(Text::new(path.as_str()));
        self
    }

    /// Decides: injected, these secrets in these versions; usually one.
    pub fn inject<'s>(&mut self, secrets: impl IntoIterator<Item = (&'s SecretName, u32)>) -> &mut Record {
        let secrets: Vec<(&SecretName, u32)> = secrets.into_iter().collect();
        self.verdict = Some(Verdict::Inject);
        (self.secret, self.secret_version) = match secrets.as_slice() {
            [(name, version)] => (Some(Text::new(name.as_str())), Some(*version)),
            several => {
                let names: Vec<String> =
                    several.iter().map(|(name, version)| format!("{name}@{version}")).collect();
                (Some(Text::new(&names.join(","))), None)
            }
        };
        self
    }

    /// Decides: forwarded without a credential.
    pub fn forward(&mut self) -> &mut Record {
        self.verdict = Some(Verdict::Forward);
        self
    }

    /// Decides: passed through.
    pub fn tunnel(&mut self) -> &mut Record {
        self.verdict = Some(Verdict::Tunnel);
        self
    }

    /// Decides: refused, with the code's status; an alert where the code is one.
    pub fn deny(&mut self, code: Code) -> &mut Record {
        self.verdict = Some(Verdict::Deny);
        if code.is_alert() {
            self.event = Event::Alert;
        }
        self.failed(code)
    }

    /// Tells of a sign of an attack in what was let through. Verdict and status stay as they are.
    pub fn alert(&mut self, code: Code) -> &mut Record {
        self.event = Event::Alert;
        self.code = Some(Text::new(code.as_str()));
        self
    }

    /// Notes what went wrong, with the code's status. The verdict stays as it was decided.
    pub fn failed(&mut self, code: Code) -> &mut Record {
        self.code = Some(Text::new(code.as_str()));
        self.status = Some(code.status());
        self
    }

    /// A record of a step on the way to a person's answer, with all that is known of the request.
    #[must_use]
    pub fn approval(&self, step: &str) -> Record {
        Record { event: Event::Approval, code: Some(Text::new(step)), ..self.clone() }
    }

    /// The outcome's record of a request that the daemon did not live to finish. What its client saw is not known.
    #[must_use]
    pub(super) fn interrupted(&self) -> Record {
        Record { code: Some(Text::new(Code::Interrupted.as_str())), ..self.outcome() }
    }

    /// The outcome's record of the same request: all that is known so far.
    #[must_use]
    pub fn outcome(&self) -> Record {
        Record { event: Event::Outcome, ..self.clone() }
    }
}
