//! One request's audit records. Every way out leaves one: what nobody records, `Drop` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use onecli_audit::{AuditError, Durable, QuotaExceeded, Record, Text};
use onecli_model::{AgentId, Authority, Code, Refusal, RequestId};
use onecli_net::TunnelBytes;
use onecli_policy::{Grant, Identity};

use super::connection::Connection;
use super::content_scan::ContentAlerts;
use super::gateway::{Counters, Gateway};
use super::pool::Upstream;
use super::shares::Share;

/// What a record grows by until the outcome, in bytes, at most: status, bytes, duration, address, TLS, ALPN, backend, code,
/// sessions.
const OUTCOME: u64 = 320;

/// The audit trail of one request or tunnel, from its arrival to its outcome.
#[derive(Debug)]
pub(super) struct Trail {
    gateway: Arc<Gateway>,
    record: Record,
    started: Instant,
    state: State,
    /// Who is charged with its records; nil while that is nobody known, who share one quota.
    payer: AgentId,
    /// Its part of what the agent may have open.
    share: Option<Share>,
    given_up: Option<GivenUp>,
    /// While it lives, the daemon is not drained.
    _open: Arc<()>,
}

/// Set by the daemon where it stops waiting for the upstream of a request of its own: no client is gone then.
#[derive(Debug, Clone, Default)]
pub(super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(super) fn set(&self) {
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
    /// The decision is on its way to the log, which writes it whatever becomes of us; the outcome is owed.
    Deciding,
    /// The decision is; the outcome is owed.
    Decided,
    /// Everything is.
    Closed,
}

impl Trail {
    /// Begins with what the connection tells.
    ///
    /// # Errors
    /// [`Code::Internal`] where no request id can be made.
    pub(super) fn begin(gateway: &Arc<Gateway>, connection: &Connection) -> Result<Trail, Refusal> {
        let id = RequestId::generate(gateway.clock.now(), gateway.random.as_ref()).map_err(|error| {
            Refusal::new(
                Code::Internal,
                error.to_string(),
                "the host is out of random bytes: see its kernel log",
            )
        })?;
        let mut record = Record::new(id);
        connection.describe(&gateway.snapshot(), &mut record);
        Ok(Trail {
            gateway: Arc::clone(gateway),
            record,
            started: gateway.clock.instant(),
            state: State::Open,
            payer: AgentId::NOBODY,
            share: None,
            given_up: None,
            _open: Arc::clone(&gateway.open),
        })
    }

    /// Begins the record of a refusal, and names the agent if the connection identifies it.
    ///
    /// # Errors
    /// As [`Trail::begin`].
    pub(super) fn of_refused(gateway: &Arc<Gateway>, connection: &Connection) -> Result<Trail, Refusal> {
        let mut trail = Trail::begin(gateway, connection)?;
        if let Ok(identity) = connection.identify(gateway) {
            trail.identify(&identity);
        }
        Ok(trail)
    }

    /// The request's id.
    pub(super) fn request_id(&self) -> Option<RequestId> {
        self.record.request_id
    }

    /// Who is charged with the request.
    pub(super) fn payer(&self) -> AgentId {
        self.payer
    }

    /// What to set before the request is dropped because its upstream takes too long.
    pub(super) fn given_up(&mut self) -> GivenUp {
        self.given_up.get_or_insert_default().clone()
    }

    /// Why a request ended that was dropped.
    pub(super) fn broken_off(&self) -> Code {
        match &self.given_up {
            Some(given_up) if given_up.is_set() => Code::UpstreamTimeout,
            _ => self.gateway.broken_off(),
        }
    }

    /// The record so far, to fill in.
    pub(super) fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// Notes who asks.
    pub(super) fn identify(&mut self, identity: &Identity) {
        self.record.agent = Some(identity.agent().name.clone());
        self.record.factors = Some(identity.proven());
        self.payer = identity.agent().id;
    }

    /// Takes one of the agent's places for what may hold an upstream connection, until the trail is dropped.
    ///
    /// # Errors
    /// [`Code::LimitReached`].
    pub(super) fn enter(&mut self, identity: &Identity) -> Result<(), Refusal> {
        self.share = self.gateway.exchanges.take(identity.agent().id);
        if self.share.is_some() {
            return Ok(());
        }
        Err(Refusal::new(
            Code::LimitReached,
            "the agent has as many requests under way as it may",
            "wait for some to be answered, and send fewer at a time",
        ))
    }

    /// Records a decision to forward, with `grants` if any. When it returns, the record is on the disk.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`]: nothing may leave.
    pub(super) async fn decide(&mut self, grants: &[Grant]) -> Result<Durable, Refusal> {
        if grants.is_empty() {
            self.record.forward();
        } else {
            self.record.inject(grants.iter().map(|g| (&g.secret().name, g.secret().version)));
        }
        self.write_decision().await
    }

    /// What may be raised about the content of the request, which goes to `authority`. To be called once it is decided.
    pub(super) fn content_alerts(&self, authority: &Authority) -> Arc<ContentAlerts> {
        let (gateway, record) = (Arc::clone(&self.gateway), self.record.clone());
        Arc::new(ContentAlerts::new(gateway, self.payer, authority.clone(), record))
    }

    /// Records a decision to tunnel.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`]: nothing may leave.
    pub(super) async fn decide_tunnel(&mut self) -> Result<Durable, Refusal> {
        self.record.tunnel();
        self.write_decision().await
    }

    async fn write_decision(&mut self) -> Result<Durable, Refusal> {
        self.take_quota(2).map_err(exceeded)?;
        // Before the first await: dropped in the middle of it, this owes an outcome and not a second decision.
        self.state = State::Deciding;
        let written = self.gateway.audit.decision(self.record.clone()).await;
        self.state = if written.is_ok() { State::Decided } else { State::Open };
        written.map_err(|error| unrecorded(&error))
    }

    /// Counts records of this request's kind for its agent.
    fn take_quota(&self, records: u32) -> Result<(), QuotaExceeded> {
        let Gateway { quota, clock, audit, .. } = self.gateway.as_ref();
        let size = (self.record.line_bytes() + OUTCOME) * u64::from(records);
        quota.take(clock.instant(), self.payer, (records, size), audit.space_is_scarce())
    }

    /// Counts a refusal. False: it is one of many, and recorded with them.
    fn wants_record(&self, code: Code) -> bool {
        let may_write = || code == Code::AuditQuota || self.take_quota(1).is_ok();
        let Gateway { refusals, clock, .. } = self.gateway.as_ref();
        refusals.note(clock.instant(), (&self.record, self.payer), &self.gateway.snapshot(), may_write)
    }

    /// Records a refusal, before or after the decision; it stands in the log when this returns, unless it repeats others
    /// and is counted with them, or the log is what failed.
    pub(super) async fn refuse(&mut self, code: Code) {
        match self.state {
            State::Open => {
                self.state = State::Closed;
                self.record.deny(code);
                Counters::add(&self.gateway.counters.requests_denied, 1);
                if !self.wants_record(code) {
                    return;
                }
                if code == Code::AuditUnavailable {
                    // Nobody waits for the disk twice.
                    self.gateway.audit.outcome(self.record.clone());
                } else if let Err(error) = self.gateway.audit.decision(self.record.clone()).await {
                    tracing::error!(%error, %code, "a refusal could not be recorded");
                }
            }
            State::Deciding | State::Decided => self.fail(code),
            State::Closed => {}
        }
    }

    /// Records a refusal, and the rule or default that it comes from.
    pub(super) async fn refuse_by(&mut self, refusal: &Refusal) {
        if let Some(rule) = &refusal.rule {
            self.record.rule = Some(Text::new(rule));
        }
        self.refuse(refusal.code).await;
    }

    /// Counts the records of a question to a person and of its answer.
    ///
    /// # Errors
    /// [`Code::AuditQuota`]: nobody is to be asked.
    pub(super) fn may_ask(&self) -> Result<(), Refusal> {
        self.take_quota(2).map_err(exceeded)
    }

    /// Records that a person is asked about the request, or has answered. When it returns, the record is on the disk.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`]: nobody is asked, and what was allowed is not done.
    pub(super) async fn approval(&mut self, step: &str) -> Result<(), Refusal> {
        let written = self.gateway.audit.decision(self.record.approval(step)).await;
        written.map(drop).map_err(|error| unrecorded(&error))
    }

    /// Records an alert about what was let through, folded with others like it.
    pub(super) fn alert(&mut self, code: Code, detail: &str) {
        let mut alert = self.record.clone();
        alert.alert(code).rule = Some(Text::new(detail));
        let may_write = || self.take_quota(1).is_ok();
        let Gateway { refusals, clock, audit, .. } = self.gateway.as_ref();
        if refusals.note(clock.instant(), (&alert, self.payer), &self.gateway.snapshot(), may_write) {
            audit.outcome(alert);
        }
    }

    /// Notes the connection that the request leaves by.
    pub(super) fn upstream(&mut self, upstream: &Upstream) {
        self.record.address = Some(Text::new(&upstream.address().to_string()));
        self.record.tls = upstream.tls().map(Text::new);
        self.record.alpn = Some(Text::new(if upstream.is_h2() { "h2" } else { "http/1.1" }));
    }

    /// Notes that nothing was sent on the last upstream connection: another decision follows.
    pub(super) fn retry(&mut self) {
        if self.state == State::Decided {
            self.state = State::Open;
        }
    }

    /// Records the outcome of a tunnel.
    pub(super) fn tunnelled(&mut self, bytes: &TunnelBytes, result: std::io::Result<()>) {
        self.record.bytes_in = Some(bytes.from_agent());
        self.record.bytes_out = Some(bytes.to_agent());
        if let Err(error) = result {
            tracing::debug!(%error, "a tunnel broke off");
        }
        self.close();
    }

    /// Records an outcome that went wrong.
    pub(super) fn fail(&mut self, code: Code) {
        if matches!(self.state, State::Deciding | State::Decided) {
            self.record.failed(code);
            self.close();
        }
    }

    /// Records the outcome as the record has it.
    pub(super) fn close(&mut self) {
        if !matches!(self.state, State::Deciding | State::Decided) {
            return;
        }
        self.state = State::Closed;
        let elapsed = self.gateway.clock.instant().duration_since(self.started);
        self.record.duration_us = Some(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        self.gateway.audit.outcome(self.record.outcome());
    }
}

fn exceeded(why: QuotaExceeded) -> Refusal {
    let (message, hint) = match why {
        QuotaExceeded::Rate => (
            "the agent causes more audit records per second than it may",
            "send fewer requests at a time; an administrator can raise audit.agent_rate",
        ),
        QuotaExceeded::Bytes => (
            "the agent has used up its part of the audit log for today",
            "wait, and send fewer requests; an administrator can raise audit.agent_bytes",
        ),
        QuotaExceeded::Reserve => (
            "the audit log's disk is nearly full, and this agent has used more than its part of it",
            "an administrator should make room on the disk of the data directory, or keep less (audit.keep_bytes)",
        ),
    };
    Refusal::new(Code::AuditQuota, message, hint)
}

fn unrecorded(error: &AuditError) -> Refusal {
    tracing::error!(%error, "the audit log cannot be written: requests are refused");
    Refusal::new(
        Code::AuditUnavailable,
        "the audit log cannot be written, so nothing is forwarded",
        "an administrator should look at 'onecli status' and the disk of the data directory",
    )
}

#[cfg(test)]
mod tests;

impl Drop for Trail {
    fn drop(&mut self) {
        let code = self.broken_off();
        match self.state {
            State::Open => {
                self.record.deny(code);
                if self.wants_record(code) {
                    self.gateway.audit.outcome(self.record.clone());
                }
            }
            State::Deciding | State::Decided => self.fail(code),
            State::Closed => {}
        }
    }
}
