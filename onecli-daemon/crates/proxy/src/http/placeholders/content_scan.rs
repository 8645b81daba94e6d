//! Searches an agent's bodies, trailers and WebSocket messages for placeholders that do not belong there, in their
//! plain spelling and in others ([`super::disguised`]).
//!
//! The bytes pass unchanged, because a placeholder is worthless elsewhere. It does indicate an attempt to exfiltrate
//! a credential, so it raises an alert.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::HeaderMap;
use onecli_audit::{Event, Record, Text};
use onecli_model::placeholder_scan::PlaceholderScan;
use onecli_model::{AgentId, Authority, Code};

use super::disguised::DisguisedScan;
use crate::session::recorder::Recorder;
use crate::session::request_audit::RequestAudit;

/// The alerts already raised for a request, one bit for each code.
const FOREIGN: u8 = 1;
const MISPLACED: u8 = 2;
const EVERYTHING: u8 = FOREIGN | MISPLACED;

/// The alerts about one request's content. Each code is raised at most once. Alerts are then folded with those of
/// other requests and charged to the agent, like refusals.
pub(crate) struct ContentAlerts {
    recorder: Arc<Recorder>,
    agent: AgentId,
    authority: Authority,
    /// The request, as recorded with its decision.
    record: Record,
    raised: AtomicU8,
}

impl ContentAlerts {
    /// Returns the alerts that the request of `audit` may raise; it goes to `authority`. Call it after the decision.
    pub(crate) fn of(audit: &RequestAudit, authority: Authority) -> ContentAlerts {
        ContentAlerts {
            recorder: Arc::clone(audit.recorder()),
            agent: audit.payer(),
            authority,
            record: audit.copy(),
            raised: AtomicU8::new(0),
        }
    }

    /// Returns whether every alert has been raised.
    fn is_done(&self) -> bool {
        self.raised.load(Ordering::Relaxed) == EVERYTHING
    }

    /// Judges a text that has the form of a placeholder.
    pub(crate) fn judge(&self, placeholder: &str) {
        let snapshot = self.recorder.snapshot();
        let Some(code) = snapshot.judge_content(self.agent, &self.authority, placeholder) else { return };
        let bit = if code == Code::PlaceholderForeign { FOREIGN } else { MISPLACED };
        if self.raised.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.raise(code);
        }
    }

    /// Writes the alert, unless it repeats others or the agent has used up its quota. Such an alert is counted with
    /// the others.
    fn raise(&self, code: Code) {
        let mut record = self.record.clone();
        (record.event, record.code) = (Event::Alert, Some(Text::new(code.as_str())));
        if self.recorder.counts_alert(&record, self.agent) {
            self.recorder.audit.outcome(record);
        }
    }
}

/// Searches one stream of content as it passes.
#[derive(Clone)]
pub(crate) struct ContentScan {
    scan: PlaceholderScan,
    disguised: DisguisedScan,
    alerts: Arc<ContentAlerts>,
}

/// Content is never logged.
impl fmt::Debug for ContentScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentScan(..)")
    }
}

impl ContentScan {
    /// Returns a scan that raises `alerts`.
    pub(crate) fn new(alerts: Arc<ContentAlerts>) -> ContentScan {
        ContentScan { scan: PlaceholderScan::default(), disguised: DisguisedScan::default(), alerts }
    }

    /// Scans the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.alerts.is_done() {
            self.scan.push(bytes, |text| self.alerts.judge(text));
            self.disguised.push(bytes, |text| self.alerts.judge(text));
        }
    }

    /// Ends the current message; the next bytes belong to another one.
    pub(crate) fn end_message(&mut self) {
        self.scan.reset();
        if !self.alerts.is_done() {
            self.disguised.end(|text| self.alerts.judge(text));
        }
    }

    /// Scans trailer fields, each name and value on its own.
    pub(crate) fn fields(&mut self, fields: &HeaderMap) {
        for (name, value) in fields {
            for text in [name.as_str().as_bytes(), value.as_bytes()] {
                self.end_message();
                self.push(text);
            }
        }
    }
}

/// The last bytes wait for more, and a forwarded body does not always report its end.
impl Drop for ContentScan {
    fn drop(&mut self) {
        self.end_message();
    }
}
