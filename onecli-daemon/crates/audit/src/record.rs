//! The contents of an audit record, and the field names it uses.

use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::Timestamp;
use onecli_model::{CanonicalPath, Code, Host, RequestId, SecretName};
use serde::{Deserialize, Serialize};

use super::codes::{CODE_PRUNED, CODE_UNSIGNED};
use super::fields::{HttpFields, Record};
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

impl Record {
    /// Creates a record of a request's decision.
    pub fn new(request: RequestId) -> Record {
        Record { request_id: Some(request), ..Record::blank(Event::Decision) }
    }

    /// Creates a record that the log writes about itself.
    pub(super) fn about_log(code: &str, count: u64) -> Record {
        Record { code: Some(Text::new(code)), count: Some(count), ..Record::blank(Event::Alert) }
    }

    /// Creates a record of an administrative action that affects every credential: on the keys, the authority or
    /// the store.
    pub fn administrative(request: RequestId, code: &'static str, detail: &str) -> Record {
        Record {
            code: Some(Text::new(code)),
            rule: Some(Text::new(detail)),
            request_id: Some(request),
            ..Record::blank(Event::Alert)
        }
    }

    /// Creates the record which states that the records from `first` to `last`, directly before it, are unsigned.
    pub(super) fn unsigned(first: u64, last: u64) -> Record {
        Record {
            rule: Some(Text::new(&format!("records {first} to {last}"))),
            ..Record::about_log(CODE_UNSIGNED, last + 1 - first)
        }
    }

    /// For tests: a record in which every field has the value of its example.
    ///
    /// # Panics
    /// If an example is no value of its field.
    #[cfg(any(test, feature = "testing"))]
    #[allow(clippy::unwrap_used, reason = "a fixture")]
    pub fn with_every_field() -> Record {
        let examples =
            super::fields::FIELDS.iter().map(|field| format!("\"{}\":{}", field.name, field.example));
        serde_json::from_str(&format!("{{{}}}", examples.collect::<Vec<_>>().join(","))).unwrap()
    }

    /// If this record reports removed segments: the number of the last record in them.
    pub fn pruned_through(&self) -> Option<u64> {
        let about_log = self.request_id.is_none() && self.event == Event::Outcome;
        self.count
            .filter(|_| about_log && self.code.as_ref().is_some_and(|code| code.as_str() == CODE_PRUNED))
    }

    /// The fields of HTTP, to fill in.
    pub fn http_mut(&mut self) -> &mut HttpFields {
        self.http.get_or_insert_default()
    }

    /// The method of an HTTP request.
    pub fn method(&self) -> Option<&Text> {
        self.http.as_ref()?.method.as_ref()
    }

    /// The canonical path of an HTTP request.
    pub fn path(&self) -> Option<&Text> {
        self.http.as_ref()?.path.as_ref()
    }

    /// Sets the destination of the request.
    pub fn target(&mut self, host: &Host, port: u16) -> &mut Record {
        self.host = Some(Text::new(&host.to_string()));
        self.port = Some(port);
        self
    }

    /// Sets method and path.
    pub fn request(&mut self, method: &str, path: &CanonicalPath) -> &mut Record {
        let http = self.http_mut();
        (http.method, http.path) = (Some(Text::new(method)), Some(Text::new(path.as_str())));
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
