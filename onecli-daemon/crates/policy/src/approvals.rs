//! Requests that wait for operator approval. They wait in memory: they are gone when the client disconnects or the
//! daemon stops.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use onecli_model::random::RandomError;
use onecli_model::{AgentId, AgentName, Authority, Random, RequestId, RuleId, SecretName};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{broadcast, oneshot};

/// The most requests of one agent that may wait at a time.
const PER_AGENT: usize = 16;
/// The most approvals that one agent may request in a minute, including answered and withdrawn ones: each is a
/// record in the audit log.
pub const PER_MINUTE: u32 = 60;
/// The interval of [`PER_MINUTE`].
const MINUTE: Duration = Duration::from_mins(1);
/// The most requests of all agents together. A request's head has 64 KiB at most, so the waiting requests take less
/// than 32 MiB.
const ALL: usize = 512;

/// The most changes that wait for a watching client. A client that falls further behind starts again.
const CHANGES: usize = 1024;

/// The id of one approval: 40 random bits, written as ten hex digits. An answer from yesterday, or from before a
/// restart of the daemon, matches no other approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApprovalId([u8; 5]);

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl FromStr for ApprovalId {
    type Err = String;

    fn from_str(text: &str) -> Result<ApprovalId, String> {
        let decoded = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        decoded.and_then(|bytes| bytes.try_into().ok()).map(ApprovalId).ok_or_else(|| {
            "an approval's id is ten hex digits, as 'onecli approval list' shows it".to_owned()
        })
    }
}

/// The request that needs approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// The agent that sent the request.
    pub agent: AgentId,
    /// The agent's name.
    pub agent_name: AgentName,
    /// The rule that requires approval.
    pub rule: RuleId,
    /// The request.
    pub request: RequestId,
    /// Its method.
    pub method: String,
    /// Its destination.
    pub authority: Authority,
    /// Its canonical path.
    pub path: String,
    /// Its query, as sent.
    pub query: Option<String>,
    /// The credentials that will be injected.
    pub secrets: Vec<SecretName>,
    /// SHA-256 over its complete head and body, in hex. The answer is for this very request.
    pub digest: String,
    /// Its header fields, as the agent sent them: with placeholders, not values.
    pub headers: Arc<HeaderMap>,
    /// Its body, also as sent; `None` if it streams and is not part of the digest.
    pub body: Option<Bytes>,
    /// The time at which approval was requested.
    pub since: Timestamp,
    /// The time at which it is refused if there is no answer.
    pub until: Timestamp,
}

/// An approver's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalAnswer {
    /// Whether the request is approved.
    pub allowed: bool,
    /// The approver's user id, according to the kernel.
    pub uid: u32,
}

/// The reason why an approval is no longer pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalEnd {
    /// It was answered.
    Answered(ApprovalAnswer),
    /// It was not answered in time.
    TimedOut,
    /// A new policy refuses the request.
    Revoked,
    /// The client disconnected.
    Withdrawn,
}

/// A change to the pending approvals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalChange {
    /// A new approval.
    Requested(ApprovalId, Box<ApprovalRequest>),
    /// An approval that is no longer pending.
    Ended(ApprovalId, ApprovalEnd),
}

/// The reason why approval cannot be requested.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// The bound on waiting requests is reached.
    #[error("too many requests are waiting for operator approval")]
    Full,
    /// The agent has requested approval [`PER_MINUTE`] times within the last minute.
    #[error("the agent has requested operator approval {PER_MINUTE} times within a minute")]
    RateLimited,
    /// No id could be generated.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// No approval with this id is pending: it was answered, it timed out, or the client disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no request is waiting under this id")]
pub struct NotPending;

/// The pending approvals.
#[derive(Debug)]
pub struct Approvals {
    state: Mutex<State>,
    changes: broadcast::Sender<ApprovalChange>,
}

impl Default for Approvals {
    fn default() -> Approvals {
        Approvals { state: Mutex::default(), changes: broadcast::Sender::new(CHANGES) }
    }
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<ApprovalId, Open>,
    /// For each agent: the start of its current minute, and the number of approvals it requested since.
    asked: HashMap<AgentId, (Instant, u32)>,
}

#[derive(Debug)]
struct Open {
    asked: ApprovalRequest,
    answer: oneshot::Sender<ApprovalAnswer>,
}

/// One pending approval. It resolves to the answer; dropping it withdraws the approval.
#[derive(Debug)]
pub struct PendingApproval {
    approvals: Arc<Approvals>,
    id: ApprovalId,
    answer: oneshot::Receiver<ApprovalAnswer>,
    /// The end that is reported if it is dropped unanswered.
    end: ApprovalEnd,
}

impl Approvals {
    /// Requests approval.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub fn ask(
        self: &Arc<Self>,
        now: Instant,
        asked: ApprovalRequest,
        random: &dyn Random,
    ) -> Result<PendingApproval, ApprovalError> {
        let mut bits = [0; 5];
        random.fill(&mut bits)?;
        let id = ApprovalId(bits);
        let (answer, receiver) = oneshot::channel();
        let mut state = self.lock();
        let State { open, asked: often } = &mut *state;
        let own = open.values().filter(|other| other.asked.agent == asked.agent).count();
        if own >= PER_AGENT || open.len() >= ALL || open.contains_key(&id) {
            return Err(ApprovalError::Full);
        }
        often.retain(|_, (since, _)| now.saturating_duration_since(*since) < MINUTE);
        let (_, count) = often.entry(asked.agent).or_insert((now, 0));
        if *count >= PER_MINUTE {
            return Err(ApprovalError::RateLimited);
        }
        *count += 1;
        if self.changes.receiver_count() > 0 {
            self.tell(ApprovalChange::Requested(id, Box::new(asked.clone())));
        }
        open.insert(id, Open { asked, answer });
        Ok(PendingApproval { approvals: Arc::clone(self), id, answer: receiver, end: ApprovalEnd::Withdrawn })
    }

    /// Answers an approval; returns the request.
    ///
    /// # Errors
    /// [`NotPending`].
    pub fn answer(&self, id: ApprovalId, answer: ApprovalAnswer) -> Result<ApprovalRequest, NotPending> {
        let mut state = self.lock();
        let Open { asked, answer: waiting } = state.open.remove(&id).ok_or(NotPending)?;
        let sent = waiting.send(answer);
        self.tell(ApprovalChange::Ended(
            id,
            if sent.is_ok() { ApprovalEnd::Answered(answer) } else { ApprovalEnd::Withdrawn },
        ));
        sent.map(|()| asked).map_err(|_| NotPending)
    }

    /// The pending approvals, oldest first.
    pub fn list(&self) -> Vec<(ApprovalId, ApprovalRequest)> {
        self.lock().list()
    }

    /// The pending approvals, and each later change to them.
    pub fn watch(&self) -> (Vec<(ApprovalId, ApprovalRequest)>, broadcast::Receiver<ApprovalChange>) {
        // Changes are sent under the lock, so none is missed or sent twice.
        let state = self.lock();
        (state.list(), self.changes.subscribe())
    }

    /// Sends a change; there may be no client that watches.
    fn tell(&self, changed: ApprovalChange) {
        let _ = self.changes.send(changed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn list(&self) -> Vec<(ApprovalId, ApprovalRequest)> {
        let mut list: Vec<_> = self.open.iter().map(|(id, open)| (*id, open.asked.clone())).collect();
        list.sort_by_key(|(id, asked)| (asked.since, *id));
        list
    }
}

impl PendingApproval {
    /// Ends it for this reason.
    pub fn end(mut self, end: ApprovalEnd) {
        self.end = end;
    }

    /// Its id.
    pub fn id(&self) -> ApprovalId {
        self.id
    }
}

impl Future for PendingApproval {
    type Output = ApprovalAnswer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ApprovalAnswer> {
        match Pin::new(&mut self.answer).poll(cx) {
            Poll::Ready(Ok(answer)) => Poll::Ready(answer),
            // The sender stays in the table until it answers.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for PendingApproval {
    fn drop(&mut self) {
        let mut state = self.approvals.lock();
        if state.open.remove(&self.id).is_some() {
            self.approvals.tell(ApprovalChange::Ended(self.id, self.end));
        }
    }
}
