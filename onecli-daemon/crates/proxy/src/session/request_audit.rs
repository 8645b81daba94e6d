//! The audit records of one request. Every exit leaves a record: `Drop` writes it if no other code did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use onecli_audit::{AuditError, Durable, QuotaExceeded, Record, Text};
use onecli_model::{AgentId, Code, Refusal, RequestId};
use onecli_net::{TunnelBytes, TunnelEnd};
use onecli_policy::{Grant, Identity};

use super::Session;
use super::counters::Counters;
use super::lifecycle::{Lifecycle, OpenGuard};
use super::recorder::Recorder;
use crate::limits::agent_quota::QuotaShare;

/// Maximum growth of a record until the outcome, in bytes: status, bytes, duration, address, TLS, ALPN, backend,
/// code, sessions.
const OUTCOME: u64 = 320;

/// The audit trail of one request or tunnel, from its arrival to its outcome.
#[derive(Debug)]
pub(crate) struct RequestAudit {
    recorder: Arc<Recorder>,
    lifecycle: Arc<Lifecycle>,
    record: Record,
    started: Instant,
    state: State,
    /// The agent that is charged with its records; nil while the client is not identified. Unidentified clients share
    /// one quota.
    payer: AgentId,
    /// Its part of the agent's quota of open exchanges.
    share: Option<QuotaShare>,
    given_up: Option<GivenUp>,
    _open: OpenGuard,
}

/// Set when the daemon stops waiting for the upstream of its own request, so that the record does not report a lost
/// client.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is recorded yet.
    Open,
    /// The decision was passed to the log, which writes it even if this task is dropped. The outcome is pending.
    Deciding,
    /// The decision is recorded; the outcome is pending.
    Decided,
    /// Decision and outcome are recorded.
    Closed,
}

impl RequestAudit {
    /// Begins with the facts of the connection.
    ///
    /// # Errors
    /// [`Code::Internal`] if no request id can be generated.
    pub(crate) fn begin(session: &Session) -> Result<RequestAudit, Refusal> {
        let recorder = Arc::clone(&session.recorder);
        let id = recorder.request_id().map_err(|error| {
            Refusal::new(
                Code::Internal,
                error.to_string(),
                "the host's random number generator failed: check its kernel log",
            )
        })?;
        let mut record = Record::new(id);
        session.describe(&mut record);
        Ok(RequestAudit {
            started: recorder.clock.instant(),
            recorder,
            lifecycle: Arc::clone(&session.lifecycle),
            record,
            state: State::Open,
            payer: AgentId::NOBODY,
            share: None,
            given_up: None,
            _open: session.lifecycle.open(),
        })
    }

    /// The request's id.
    pub(crate) fn request_id(&self) -> Option<RequestId> {
        self.record.request_id
    }

    /// The agent that is charged with the request.
    pub(crate) fn payer(&self) -> AgentId {
        self.payer
    }

    /// The flag to set before the request is dropped because its upstream takes too long.
    pub(crate) fn given_up(&mut self) -> GivenUp {
        self.given_up.get_or_insert_default().clone()
    }

    /// The reason for the end of a request that was dropped.
    pub(crate) fn broken_off(&self) -> Code {
        match &self.given_up {
            Some(given_up) if given_up.is_set() => Code::UpstreamTimeout,
            _ => self.lifecycle.disconnected_code(),
        }
    }

    /// The record so far, for further fields.
    pub(crate) fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// A copy of the record so far, for alerts about the request.
    pub(crate) fn copy(&self) -> Record {
        self.record.clone()
    }

    /// What writes the records.
    pub(crate) fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Records the client's identity.
    pub(crate) fn identify(&mut self, identity: &Identity) {
        self.record.agent = Some(identity.agent().name.clone());
        self.record.factors = Some(identity.proven());
        self.payer = identity.agent().id;
    }

    /// Reserves a part of the agent's quota of upstream connections, until the trail is dropped.
    ///
    /// # Errors
    /// [`Code::LimitReached`].
    pub(crate) fn enter(&mut self, session: &Session, identity: &Identity) -> Result<(), Refusal> {
        self.share = session.limits.exchanges.take(identity.agent().id);
        if self.share.is_some() {
            return Ok(());
        }
        Err(Refusal::new(
            Code::LimitReached,
            "the agent has reached its limit on open requests",
            "wait for responses to earlier requests, and send fewer requests at a time",
        ))
    }

    /// Records a decision to forward, with `grants` if any. When this returns, the record is on disk.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`]: nothing may be sent.
    pub(crate) async fn decide(&mut self, grants: &[Grant]) -> Result<Durable, Refusal> {
        if grants.is_empty() {
            self.record.forward();
        } else {
            self.record.inject(grants.iter().map(|g| (&g.secret().name, g.secret().version)));
        }
        self.write_decision().await
    }

    /// Records a decision to tunnel.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`]: nothing may be sent.
    pub(crate) async fn decide_tunnel(&mut self) -> Result<Durable, Refusal> {
        self.record.tunnel();
        self.write_decision().await
    }

    async fn write_decision(&mut self) -> Result<Durable, Refusal> {
        self.take_quota(2).map_err(exceeded)?;
        // Set before the first await. If this is dropped during the write, an outcome is pending, and not a second
        // decision.
        self.state = State::Deciding;
        let written = self.recorder.audit.decision(self.record.clone()).await;
        self.state = if written.is_ok() { State::Decided } else { State::Open };
        written.map_err(|error| unrecorded(&error))
    }

    /// Counts records of this request's kind against its agent's quota.
    fn take_quota(&self, records: u32) -> Result<(), QuotaExceeded> {
        let size = (self.record.line_bytes() + OUTCOME) * u64::from(records);
        self.recorder.take_quota(self.recorder.clock.instant(), self.payer, (records, size))
    }

    /// Counts a refusal. Returns false if it is recorded together with others.
    fn wants_record(&self, code: Code) -> bool {
        let may_write = || code == Code::AuditQuota || self.take_quota(1).is_ok();
        let Recorder { refusals, clock, .. } = self.recorder.as_ref();
        refusals.note(clock.instant(), (&self.record, self.payer), &self.recorder.snapshot(), may_write)
    }

    /// Records a refusal, before or after the decision. When this returns, the refusal is in the log. There are two
    /// exceptions: it repeats others and is counted with them, or the log itself failed.
    pub(crate) async fn refuse(&mut self, code: Code) {
        match self.state {
            State::Open => {
                self.state = State::Closed;
                self.record.deny(code);
                Counters::add(&self.recorder.counters.requests_denied, 1);
                if !self.wants_record(code) {
                    return;
                }
                if code == Code::AuditUnavailable {
                    // The log has just failed, so this does not wait for the disk again.
                    self.recorder.audit.outcome(self.record.clone());
                } else if let Err(error) = self.recorder.audit.decision(self.record.clone()).await {
                    tracing::error!(%error, %code, "a refusal could not be recorded");
                }
            }
            State::Deciding | State::Decided => self.fail(code),
            State::Closed => {}
        }
    }

    /// Records a refusal, with the rule or default that caused it.
    pub(crate) async fn refuse_by(&mut self, refusal: &Refusal) {
        self.refuse_for(refusal.code, refusal.rule.as_deref()).await;
    }

    /// Records a refusal, with the text of the rule or default that caused it.
    pub(super) async fn refuse_for(&mut self, code: Code, rule: Option<&str>) {
        if let Some(rule) = rule {
            self.record.rule = Some(Text::new(rule));
        }
        self.refuse(code).await;
    }

    /// Counts the records of an approval request and of its answer.
    ///
    /// # Errors
    /// [`Code::AuditQuota`]: no approval may be requested.
    pub(crate) fn may_ask(&self) -> Result<(), Refusal> {
        self.take_quota(2).map_err(exceeded)
    }

    /// Records that approval was requested or decided. When this returns, the record is on disk.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`]: no approval is requested, and an approved request is not sent.
    pub(crate) async fn approval(&mut self, step: &str) -> Result<(), Refusal> {
        let written = self.recorder.audit.decision(self.record.approval(step)).await;
        written.map(drop).map_err(|error| unrecorded(&error))
    }

    /// Records an alert about a request that was allowed. Similar alerts are folded.
    pub(crate) fn alert(&mut self, code: Code, detail: &str) {
        let mut alert = self.record.clone();
        alert.alert(code).rule = Some(Text::new(detail));
        if self.recorder.counts_alert(&alert, self.payer) {
            self.recorder.audit.outcome(alert);
        }
    }

    /// Records that nothing was sent on the last upstream connection, so that another decision follows.
    pub(crate) fn retry(&mut self) {
        if self.state == State::Decided {
            self.state = State::Open;
        }
    }

    /// Records the outcome of a tunnel, with the reason if it was stopped.
    pub(crate) fn tunnelled(&mut self, bytes: &TunnelBytes, result: std::io::Result<TunnelEnd>) {
        self.record.bytes_in = Some(bytes.from_agent());
        self.record.bytes_out = Some(bytes.to_agent());
        match result {
            Ok(TunnelEnd::Closed) => {}
            Ok(TunnelEnd::Stopped) => {
                self.record.code = Some(Text::new(self.lifecycle.revoked_code().as_str()));
            }
            Err(error) => tracing::debug!(%error, "a tunnel ended with an error"),
        }
        self.close();
    }

    /// Records a failed outcome.
    pub(crate) fn fail(&mut self, code: Code) {
        if matches!(self.state, State::Deciding | State::Decided) {
            self.record.failed(code);
            self.close();
        }
    }

    /// Records the outcome from the fields of the record.
    pub(crate) fn close(&mut self) {
        if !matches!(self.state, State::Deciding | State::Decided) {
            return;
        }
        self.state = State::Closed;
        let elapsed = self.recorder.clock.instant().duration_since(self.started);
        self.record.duration_us = Some(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        self.recorder.audit.outcome(self.record.outcome());
    }
}

fn exceeded(why: QuotaExceeded) -> Refusal {
    let (message, hint) = match why {
        QuotaExceeded::Rate => (
            "the agent exceeds its limit on audit records per second",
            "send fewer requests at a time; an administrator can raise audit.agent_rate",
        ),
        QuotaExceeded::Bytes => (
            "the agent has used up its share of the audit log for today",
            "wait, and send fewer requests; an administrator can raise audit.agent_bytes",
        ),
        QuotaExceeded::Reserve => (
            "the audit log's disk is nearly full, and this agent has used more than its share of it",
            "ask an administrator to free space on the disk of the data directory, or to retain less \
             (audit.keep_bytes)",
        ),
    };
    Refusal::new(Code::AuditQuota, message, hint)
}

fn unrecorded(error: &AuditError) -> Refusal {
    tracing::error!(%error, "the audit log cannot be written: requests are refused");
    Refusal::new(
        Code::AuditUnavailable,
        "the audit log cannot be written, so nothing is forwarded",
        "ask an administrator to check 'onecli status' and the disk of the data directory",
    )
}

#[cfg(test)]
mod tests;

impl Drop for RequestAudit {
    fn drop(&mut self) {
        let code = self.broken_off();
        match self.state {
            State::Open => {
                self.record.deny(code);
                if self.wants_record(code) {
                    self.recorder.audit.outcome(self.record.clone());
                }
            }
            State::Deciding | State::Decided => self.fail(code),
            State::Closed => {}
        }
    }
}
