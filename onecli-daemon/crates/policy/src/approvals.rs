//! Requests that wait for a person's word. They wait in memory: when their sender goes away, or the daemon stops, they
//! are gone.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use onecli_model::random::RandomError;
use onecli_model::{AgentId, AgentName, Authority, Random, RequestId, RuleId, SecretName};
use tokio::sync::{broadcast, oneshot};

/// Requests of one agent that may wait at a time.
const PER_AGENT: usize = 16;
/// Questions of one agent within a minute, answered and given up ones too: each is a record of the audit log.
pub const PER_MINUTE: u32 = 60;
/// What that is counted over.
const MINUTE: Duration = Duration::from_mins(1);
/// Requests of all agents together. A request's head has 64 KiB at most, so what is asked is below 32 MiB.
const ALL: usize = 512;

/// Changes that wait for a client that watches. One that is further behind starts again.
const CHANGES: usize = 1024;

/// The number of one question: 40 random bits, written as ten hex digits. An answer to a question of yesterday, or from
/// before the daemon started again, finds no other question.
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

/// What a person is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whose request.
    pub agent: AgentId,
    /// Its name.
    pub agent_name: AgentName,
    /// The rule that wants it asked.
    pub rule: RuleId,
    /// The request.
    pub request: RequestId,
    /// Its method.
    pub method: String,
    /// Where it goes.
    pub authority: Authority,
    /// Its canonical path.
    pub path: String,
    /// Its query, as it was sent.
    pub query: Option<String>,
    /// The credentials that it will get.
    pub secrets: Vec<SecretName>,
    /// SHA-256 over all of its head and its body, in hex. The answer is for this very request.
    pub digest: String,
    /// Its header fields, as the agent sent them: placeholders, not values.
    pub headers: Arc<HeaderMap>,
    /// Its body, likewise; `None` where that streams, and is not in the digest.
    pub body: Option<Bytes>,
    /// When it was asked.
    pub since: Timestamp,
    /// When it is refused if nobody answers.
    pub until: Timestamp,
}

/// A person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Yes or no.
    pub allowed: bool,
    /// The user who said so, by the kernel's word.
    pub uid: u32,
}

/// Why a question is open no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was answered.
    Answered(Answer),
    /// It was not answered in time.
    TimedOut,
    /// The policy refuses the request by now.
    Revoked,
    /// The sender of the request went away.
    Withdrawn,
}

/// A change of what is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A new question.
    Asked(ApprovalId, Box<Asked>),
    /// A question that is open no more.
    Ended(ApprovalId, End),
}

/// Why nobody is asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// As many wait as may.
    #[error("as many requests wait for a person's approval as may")]
    Full,
    /// The agent has asked [`PER_MINUTE`] times within the last minute.
    #[error("the agent has asked for a person's approval {PER_MINUTE} times within a minute")]
    Often,
    /// There is no number for it.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// There is no such question: it was answered, its time is over, or its sender went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no request waits under this id")]
pub struct NotWaiting;

/// The questions that are open.
#[derive(Debug)]
pub struct Approvals {
    state: Mutex<State>,
    changes: broadcast::Sender<Changed>,
}

impl Default for Approvals {
    fn default() -> Approvals {
        Approvals { state: Mutex::default(), changes: broadcast::Sender::new(CHANGES) }
    }
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<ApprovalId, Open>,
    /// How often each agent asked in the minute that began then.
    asked: HashMap<AgentId, (Instant, u32)>,
}

#[derive(Debug)]
struct Open {
    asked: Asked,
    answer: oneshot::Sender<Answer>,
}

/// One open question. Resolves to its answer; dropped, it is asked no more.
#[derive(Debug)]
pub struct Waiting {
    approvals: Arc<Approvals>,
    id: ApprovalId,
    answer: oneshot::Receiver<Answer>,
    /// What is reported if it is dropped unanswered.
    end: End,
}

impl Approvals {
    /// Asks.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn ask(
        self: &Arc<Self>,
        now: Instant,
        asked: Asked,
        random: &dyn Random,
    ) -> Result<Waiting, AskError> {
        let mut bits = [0; 5];
        random.fill(&mut bits)?;
        let id = ApprovalId(bits);
        let (answer, receiver) = oneshot::channel();
        let mut state = self.lock();
        let State { open, asked: often } = &mut *state;
        let own = open.values().filter(|other| other.asked.agent == asked.agent).count();
        if own >= PER_AGENT || open.len() >= ALL || open.contains_key(&id) {
            return Err(AskError::Full);
        }
        often.retain(|_, (since, _)| now.saturating_duration_since(*since) < MINUTE);
        let (_, count) = often.entry(asked.agent).or_insert((now, 0));
        if *count >= PER_MINUTE {
            return Err(AskError::Often);
        }
        *count += 1;
        if self.changes.receiver_count() > 0 {
            self.tell(Changed::Asked(id, Box::new(asked.clone())));
        }
        open.insert(id, Open { asked, answer });
        Ok(Waiting { approvals: Arc::clone(self), id, answer: receiver, end: End::Withdrawn })
    }

    /// Answers; tells what was asked.
    ///
    /// # Errors
    /// [`NotWaiting`].
    pub fn answer(&self, id: ApprovalId, answer: Answer) -> Result<Asked, NotWaiting> {
        let mut state = self.lock();
        let Open { asked, answer: waiting } = state.open.remove(&id).ok_or(NotWaiting)?;
        let sent = waiting.send(answer);
        self.tell(Changed::Ended(id, if sent.is_ok() { End::Answered(answer) } else { End::Withdrawn }));
        sent.map(|()| asked).map_err(|_| NotWaiting)
    }

    /// The open questions, the oldest first.
    pub fn list(&self) -> Vec<(ApprovalId, Asked)> {
        self.lock().list()
    }

    /// The open questions, and then each change of them.
    pub fn watch(&self) -> (Vec<(ApprovalId, Asked)>, broadcast::Receiver<Changed>) {
        // Changes are sent under the lock: none is missed or comes twice.
        let state = self.lock();
        (state.list(), self.changes.subscribe())
    }

    /// No client may be watching.
    fn tell(&self, changed: Changed) {
        let _ = self.changes.send(changed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn list(&self) -> Vec<(ApprovalId, Asked)> {
        let mut list: Vec<_> = self.open.iter().map(|(id, open)| (*id, open.asked.clone())).collect();
        list.sort_by_key(|(id, asked)| (asked.since, *id));
        list
    }
}

impl Waiting {
    /// Gives it up for this reason.
    pub fn end(mut self, end: End) {
        self.end = end;
    }

    /// Its number.
    pub fn id(&self) -> ApprovalId {
        self.id
    }
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match Pin::new(&mut self.answer).poll(cx) {
            Poll::Ready(Ok(answer)) => Poll::Ready(answer),
            // The sender lives in the table until it answers.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.approvals.lock();
        if state.open.remove(&self.id).is_some() {
            self.approvals.tell(Changed::Ended(self.id, self.end));
        }
    }
}
