//! The contents of an audit record, and the field names it uses.

use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::Timestamp;
use onecli_model::{AgentName, CanonicalPath, Code, Factors, Host, RequestId, SecretName};
use serde::{Deserialize, Serialize};

use super::codes::{CODE_PRUNED, CODE_UNSIGNED};
use super::link::Link;
use super::text::Text;

/// The kind of event that a record describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The decision, written before anything is sent to the upstream.
    Decision,
    /// The outcome, written after the response.
    Outcome,
    /// A refusal that looks like an attack, or a fault of the log itself.
    Alert,
    /// The operator is asked to approve a request, or has answered; `code` says which.
    Approval,
}

/// How a connection reached the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionMode {
    /// The kernel redirected it.
    Transparent,
    /// The client used `HTTPS_PROXY`.
    Explicit,
    /// The daemon made it itself: to a token endpoint, on behalf of the agent's request.
    Daemon,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Forwarded with an injected credential.
    Inject,
    /// Forwarded without a credential.
    Forward,
    /// Passed through without decryption.
    Tunnel,
    /// Refused.
    Deny,
}

impl Event {
    /// The event as written in the log.
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
    /// The verdict as written in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Inject => "inject",
            Verdict::Forward => "forward",
            Verdict::Tunnel => "tunnel",
            Verdict::Deny => "deny",
        }
    }
}

/// A record as it appears in a line of the log, with the number and the time that the writer added.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The time of writing: RFC 3339, in UTC, to the microsecond.
    pub time: Timestamp,
    /// The position in the log. It begins at 1 and grows by one with each record.
    pub seq: u64,
    /// The link to the record before it.
    pub prev: Link,
    /// The record itself.
    #[serde(flatten)]
    pub record: Record,
}

impl Entry {
    /// The numbers of the unsigned records that this record reports: only links protect them.
    pub(super) fn unsigned(&self) -> Option<RangeInclusive<u64>> {
        let Record { request_id, event, code, count, .. } = &self.record;
        let about_log = request_id.is_none() && *event == Event::Alert;
        let ours = about_log && code.as_ref().is_some_and(|code| code.as_str() == CODE_UNSIGNED);
        let first = self.seq.checked_sub(count.filter(|count| ours && *count > 0)?)?;
        Some(first..=self.seq - 1)
    }
}

/// One audit record. Unknown fields stay `None` and are omitted from the line. Start with [`Record::new`], fill in
/// the fields as they become known, and retain the record for the outcome ([`Record::outcome`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The request. It is `None` only if the log reports about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// Decision, outcome, alert or approval.
    pub event: Event,
    /// The agent that sent the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// The identity factors that the agent proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factors: Option<Factors>,
    /// How the connection reached the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ConnectionMode>,
    /// The method (RFC 9110 section 9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Text>,
    /// The host in canonical form, or the original text if it has no canonical form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Text>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The canonical path, without query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text>,
    /// The address that was dialled or that the agent requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Text>,
    /// The rule or default that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text>,
    /// The secret that is injected. If a request has several slots, all of them as `NAME@VERSION`, joined by
    /// commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Text>,
    /// The version of the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<u32>,
    /// The source of the value, if the store does not contain it: `vault@3` (the version), `vault stale` (a value
    /// cached before the server failed), `file`. It is part of the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Text>,
    /// The decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The reason for the refusal, or for the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Text>,
    /// The status of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Body bytes from the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Body bytes to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// The time from the request's head to the end of its response, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// TLS version towards the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Text>,
    /// The protocol that ALPN agreed on with the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Text>,
    /// How often the value was scrubbed from the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub_hits: Option<u64>,
    /// Session counts (cookies, session headers) of this request: `opened` and `removed` in the request, `sealed`
    /// and `dropped` in the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Text>,
    /// The agent's managed cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Text>,
    /// The kernel's id of that cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// The cookie of the network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    /// The user id of the connecting process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The process id of the connecting process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The process's name according to the kernel. A process can choose it freely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<Text>,
    /// The user id of the user whose `onecli run` started the requesting command. It comes from the cgroup of that
    /// command, or from the session token that the daemon minted for it. For an agent's own token it is `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_by: Option<u32>,
    /// The approval that the request waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Text>,
    /// SHA-256 over the head of the request that the approval applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_digest: Option<Text>,
    /// The user id of the approver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_uid: Option<u32>,
    /// The number of things that this record describes, if it is not one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Record {
    /// Creates a record of a request's decision.
    pub fn new(request: RequestId) -> Record {
        Record::blank(Event::Decision, Some(request))
    }

    /// Creates a record that the log writes about itself.
    pub(super) fn about_log(code: &str, count: u64) -> Record {
        Record { code: Some(Text::new(code)), count: Some(count), ..Record::blank(Event::Alert, None) }
    }

    /// Creates a record of an administrative action that affects every credential: on the keys, the authority or
    /// the store.
    pub fn administrative(request: RequestId, code: &'static str, detail: &str) -> Record {
        Record {
            code: Some(Text::new(code)),
            rule: Some(Text::new(detail)),
            ..Record::blank(Event::Alert, Some(request))
        }
    }

    /// Creates the record which states that the records from `first` to `last`, directly before it, are unsigned.
    pub(super) fn unsigned(first: u64, last: u64) -> Record {
        Record {
            rule: Some(Text::new(&format!("records {first} to {last}"))),
            ..Record::about_log(CODE_UNSIGNED, last + 1 - first)
        }
    }

    /// For tests: a record in which every field is set.
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
            mode: Some(ConnectionMode::Transparent),
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

    /// If this record reports removed segments: the number of the last record in them.
    pub fn pruned_through(&self) -> Option<u64> {
        let about_log = self.request_id.is_none() && self.event == Event::Outcome;
        self.count
            .filter(|_| about_log && self.code.as_ref().is_some_and(|code| code.as_str() == CODE_PRUNED))
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

    /// Sets the destination of the request.
    pub fn target(&mut self, host: &Host, port: u16) -> &mut Record {
        self.host = Some(Text::new(&host.to_string()));
        self.port = Some(port);
        self
    }

    /// Sets method and path.
    pub fn request(&mut self, method: &str, path: &CanonicalPath) -> &mut Record {
        self.method = Some(Text::new(method));
        self.path = Some(Text::new(path.as_str()));
        self
    }

    /// Sets the verdict to inject, with these secrets in these versions; usually there is one.
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

    /// Sets the verdict to forward: no credential is added.
    pub fn forward(&mut self) -> &mut Record {
        self.verdict = Some(Verdict::Forward);
        self
    }

    /// Sets the verdict to tunnel.
    pub fn tunnel(&mut self) -> &mut Record {
        self.verdict = Some(Verdict::Tunnel);
        self
    }

    /// Sets the verdict to deny, with the code's status. If the code is an alert, the record becomes one.
    pub fn deny(&mut self, code: Code) -> &mut Record {
        self.verdict = Some(Verdict::Deny);
        if code.is_alert() {
            self.event = Event::Alert;
        }
        self.failed(code)
    }

    /// Marks the record as an alert: an allowed request shows a sign of an attack. Verdict and status do not
    /// change.
    pub fn alert(&mut self, code: Code) -> &mut Record {
        self.event = Event::Alert;
        self.code = Some(Text::new(code.as_str()));
        self
    }

    /// Sets the error code and its status. The verdict does not change.
    pub fn failed(&mut self, code: Code) -> &mut Record {
        self.code = Some(Text::new(code.as_str()));
        self.status = Some(code.status());
        self
    }

    /// Creates a record of one step of an approval, with everything known about the request.
    #[must_use]
    pub fn approval(&self, step: &str) -> Record {
        Record { event: Event::Approval, code: Some(Text::new(step)), ..self.clone() }
    }

    /// Creates the outcome record of a request that a previous daemon did not finish. It is unknown what the client
    /// saw.
    #[must_use]
    pub(super) fn interrupted(&self) -> Record {
        Record { code: Some(Text::new(Code::Interrupted.as_str())), ..self.outcome() }
    }

    /// Creates the outcome record of the same request, with everything known so far.
    #[must_use]
    pub fn outcome(&self) -> Record {
        Record { event: Event::Outcome, ..self.clone() }
    }
}
