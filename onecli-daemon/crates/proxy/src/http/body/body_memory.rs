//! Limits the body bytes that wait in the daemon until a peer reads them.
//!
//! All bytes come from one pool. Each agent connection has a limit, which its streams share in both directions. Each
//! agent has a share of the pool. Without room, reading pauses. Each direction of each exchange has a small
//! guaranteed amount, so no exchange depends on another, and there is no deadlock.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use onecli_model::AgentId;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Sleep;

/// Bytes that may wait on one agent connection, for all streams and both directions together.
const PER_CONNECTION: usize = 64 << 10;
/// Bytes that may wait on all connections of one agent.
const PER_AGENT: usize = 32 << 20;
/// The part of these bytes that is reserved for the agent and not taken from the pool, so that other agents cannot
/// use it up.
const OWN: usize = 1 << 20;
/// Bytes in the pool, for all agents together.
const POOL: usize = 128 << 20;
/// Bytes that one direction of an exchange may always have waiting. They are a part of the connection's limit.
const GUARANTEED: usize = 64;
/// Largest piece that is passed on at once, in bytes.
const PIECE: usize = 16 << 10;
/// If only a smaller piece than this fits, the exchange waits for more room.
const SMALL: usize = 2 << 10;
/// Bytes that one direction of an exchange may have waiting.
const PER_DIRECTION: usize = 32 << 10;
/// How long an exchange waits for other exchanges to make room, before it continues with its guaranteed bytes.
const RESERVATION_TIMEOUT: Duration = Duration::from_millis(5);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// The pool, with each agent's share of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct BodyMemory(Arc<Pool>);

#[derive(Debug, Default)]
struct Pool {
    taken: AtomicUsize,
    /// Agents that have an open exchange.
    agents: Mutex<HashMap<AgentId, Weak<AgentShare>>>,
}

/// Bytes that one agent has reserved.
#[derive(Debug)]
struct AgentShare {
    pool: Arc<Pool>,
    taken: Mutex<usize>,
}

impl AgentShare {
    fn take(&self, bytes: usize) -> bool {
        let mut taken = lock(&self.taken);
        let after = *taken + bytes;
        let pooled = after.saturating_sub(OWN) - taken.saturating_sub(OWN);
        let fits = |all: usize| (all + pooled <= POOL).then_some(all + pooled);
        if after > PER_AGENT
            || self.pool.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err()
        {
            return false;
        }
        *taken = after;
        true
    }

    fn give_back(&self, bytes: usize) {
        let mut taken = lock(&self.taken);
        let after = taken.saturating_sub(bytes);
        let pooled = taken.saturating_sub(OWN) - after.saturating_sub(OWN);
        self.pool.taken.fetch_sub(pooled, Ordering::Relaxed);
        *taken = after;
    }
}

/// The room that the streams of one connection share.
#[derive(Debug)]
pub(crate) struct ConnectionMemory(Mutex<Room>);

#[derive(Debug)]
struct Room {
    free: usize,
    /// Directions that wait for room, each listed once.
    waiting: VecDeque<Arc<Direction>>,
}

impl ConnectionMemory {
    /// Returns the memory of a connection with at most `streams` concurrent streams.
    pub(crate) fn new(streams: usize) -> Arc<ConnectionMemory> {
        let free = PER_CONNECTION.saturating_sub(streams * 2 * GUARANTEED);
        Arc::new(ConnectionMemory(Mutex::new(Room { free, waiting: VecDeque::new() })))
    }

    /// Reserves room for at most `wanted` bytes, and never more than half of the free room. So a stream without a
    /// reader leaves room for the others. Returns 0 if fewer than `least` bytes are available.
    fn take(&self, agent: &AgentShare, wanted: usize, least: usize) -> usize {
        let mut room = lock(&self.0);
        let bytes = wanted.min(room.free / 2);
        if bytes < least.min(wanted) || !agent.take(bytes) {
            return 0;
        }
        room.free -= bytes;
        bytes
    }

    fn give_back(&self, bytes: usize) {
        let next = {
            let mut room = lock(&self.0);
            room.free += bytes;
            room.waiting.pop_front()
        };
        if let Some(next) = next {
            next.is_queued.store(false, Ordering::Release);
            next.waker.wake();
        }
    }

    fn wait(&self, direction: &Arc<Direction>) {
        let mut room = lock(&self.0);
        if !direction.is_queued.swap(true, Ordering::AcqRel) {
            room.waiting.push_back(Arc::clone(direction));
        }
    }

    fn leave(&self, direction: &Arc<Direction>) {
        if direction.is_queued.swap(false, Ordering::AcqRel) {
            lock(&self.0).waiting.retain(|other| !Arc::ptr_eq(other, direction));
        }
    }
}

/// One direction of an exchange.
#[derive(Debug)]
struct Direction {
    connection: Arc<ConnectionMemory>,
    agent: Arc<AgentShare>,
    /// Bytes that were passed on and that the receiver has not written yet.
    waiting: AtomicUsize,
    waker: AtomicWaker,
    is_queued: AtomicBool,
}

impl BodyMemory {
    /// Paces one direction of an exchange of `agent` on `connection`.
    pub(crate) fn pace(&self, connection: &Arc<ConnectionMemory>, agent: AgentId) -> Pace {
        let direction = Direction {
            connection: Arc::clone(connection),
            agent: self.share(agent),
            waiting: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
            is_queued: AtomicBool::new(false),
        };
        Pace { direction: Arc::new(direction), held: Bytes::new(), timer: None }
    }

    fn share(&self, agent: AgentId) -> Arc<AgentShare> {
        let mut agents = lock(&self.0.agents);
        if let Some(share) = agents.get(&agent).and_then(Weak::upgrade) {
            return share;
        }
        agents.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(AgentShare { pool: Arc::clone(&self.0), taken: Mutex::new(0) });
        agents.insert(agent, Arc::downgrade(&share));
        share
    }
}

/// Passes the bytes of one direction on in pieces, as room becomes available.
#[derive(Debug)]
pub(crate) struct Pace {
    direction: Arc<Direction>,
    /// Bytes that were read and not passed on: at most one frame of the source.
    held: Bytes,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Stores a frame of the source. Call it only after [`Pace::poll_piece`] returned `None`.
    pub(crate) fn hold(&mut self, data: Bytes) {
        self.held = data;
    }

    /// Bytes that wait for room.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the next piece as soon as there is room, or `None` if no bytes are waiting and the source must be
    /// polled. Dropping the piece frees its room; that happens when the receiver has written it.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.held.is_empty() {
            return Poll::Ready(None);
        }
        let room = ready!(self.poll_room(cx, self.held.len().min(PIECE)));
        self.timer = None;
        self.direction.connection.leave(&self.direction);
        let bytes = self.held.split_to(room.bytes);
        Poll::Ready(Some(Bytes::from_owner(Waiting { bytes, _room: room })))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<RoomTaken> {
        if let Some(room) = self.take(wanted, SMALL) {
            return Poll::Ready(room);
        }
        // The direction registers before it tries again, so that it misses no room that is freed in between.
        self.direction.waker.register(cx.waker());
        self.direction.connection.wait(&self.direction);
        if let Some(room) = self.take(wanted, SMALL) {
            return Poll::Ready(room);
        }
        if self.direction.waiting.load(Ordering::Acquire) > 0 {
            // The receiver writes its earlier pieces, and that wakes this task.
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(RESERVATION_TIMEOUT)));
        ready!(timer.as_mut().poll(cx));
        let room = self.take(wanted, GUARANTEED);
        Poll::Ready(room.unwrap_or_else(|| self.room(wanted.min(GUARANTEED), 0)))
    }

    /// Reserves room for at most `wanted` bytes; returns `None` if fewer than `least` are available.
    fn take(&self, wanted: usize, least: usize) -> Option<RoomTaken> {
        let Direction { connection, agent, waiting, .. } = self.direction.as_ref();
        let waiting = waiting.load(Ordering::Acquire);
        if waiting == 0 && wanted <= GUARANTEED {
            return Some(self.room(wanted, 0));
        }
        let wanted = wanted.min(PER_DIRECTION.saturating_sub(waiting));
        let taken = if wanted == 0 { 0 } else { connection.take(agent, wanted, least) };
        (taken > 0).then(|| self.room(taken, taken))
    }

    fn room(&self, bytes: usize, counted: usize) -> RoomTaken {
        self.direction.waiting.fetch_add(bytes, Ordering::AcqRel);
        RoomTaken { direction: Arc::clone(&self.direction), bytes, counted }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.direction.connection.leave(&self.direction);
    }
}

/// Room that a piece occupies.
#[derive(Debug)]
struct RoomTaken {
    direction: Arc<Direction>,
    bytes: usize,
    /// The part of the room that is not guaranteed, and so was reserved from the connection and the agent.
    counted: usize,
}

impl Drop for RoomTaken {
    fn drop(&mut self) {
        let Direction { connection, agent, waiting, waker, .. } = self.direction.as_ref();
        waiting.fetch_sub(self.bytes, Ordering::AcqRel);
        if self.counted > 0 {
            agent.give_back(self.counted);
            connection.give_back(self.counted);
        }
        waker.wake();
    }
}

/// A piece with the room that it occupies.
struct Waiting {
    bytes: Bytes,
    _room: RoomTaken,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn agent(number: u128) -> AgentId {
        AgentId(uuid::Uuid::from_u128(number))
    }

    fn next(pace: &mut Pace) -> Poll<Option<Bytes>> {
        if pace.held() == 0 {
            pace.hold(Bytes::from(vec![7; PIECE]));
        }
        pace.poll_piece(&mut Context::from_waker(Waker::noop()))
    }

    /// Polls pieces until none is available at once.
    fn fill(pace: &mut Pace) -> Vec<Bytes> {
        std::iter::from_fn(|| match next(pace) {
            Poll::Ready(piece) => piece,
            Poll::Pending => None,
        })
        .collect()
    }

    fn size(pieces: &[Bytes]) -> usize {
        pieces.iter().map(Bytes::len).sum()
    }

    #[tokio::test]
    async fn connection_is_bounded_and_each_stream_continues() {
        let memory = BodyMemory::default();
        for streams in [1, 128] {
            let connection = ConnectionMemory::new(streams);
            let mut paces: Vec<_> = (0..2 * streams).map(|_| memory.pace(&connection, agent(1))).collect();
            let mut all = Vec::new();
            for pace in &mut paces {
                all.extend(fill(pace));
            }
            tokio::time::sleep(RESERVATION_TIMEOUT * 2).await;
            for pace in paces.iter_mut().filter(|p| p.direction.waiting.load(Ordering::Relaxed) == 0) {
                // Timers become ready only when the task yields.
                tokio::task::yield_now().await;
                let guaranteed = fill(pace);
                assert!(!guaranteed.is_empty(), "this direction continues although the others hold all room");
                all.extend(guaranteed);
            }
            assert!(size(&all) <= PER_CONNECTION, "{streams}: {}", size(&all));
            assert!(size(&all) > PER_CONNECTION / 2, "{streams}: {}", size(&all));
            drop(all);
            drop(paces);
            let room = lock(&connection.0);
            assert_eq!(room.free, PER_CONNECTION - streams * 2 * GUARANTEED);
            assert!(room.waiting.is_empty(), "no direction waits any more");
        }
        assert_eq!(memory.0.taken.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn agent_share_does_not_reduce_another_agents_share() {
        let memory = BodyMemory::default();
        let mut held = Vec::new();
        for number in 1..=6 {
            let connections = PER_AGENT / PER_DIRECTION + 16;
            for _ in 0..connections {
                let mut pace = memory.pace(&ConnectionMemory::new(1), agent(number));
                let pieces = fill(&mut pace);
                held.push((pace, pieces));
            }
        }
        let all: usize = held.iter().map(|(_, pieces)| size(pieces)).sum();
        assert!(all <= POOL + 6 * OWN + held.len() * GUARANTEED, "{all}");
        assert!(all >= POOL, "{all}");
        let mut late = memory.pace(&ConnectionMemory::new(1), agent(7));
        assert_eq!(size(&fill(&mut late)), PER_DIRECTION, "each agent has its reserved bytes");
        drop(held);
        drop(late);
        assert_eq!(memory.0.taken.load(Ordering::Relaxed), 0);
        let _ = memory.share(agent(8));
        assert_eq!(lock(&memory.0.agents).len(), 1, "agents without exchanges are forgotten");
    }

    #[tokio::test]
    async fn waiting_direction_is_woken_when_room_is_freed() {
        let memory = BodyMemory::default();
        let connection = ConnectionMemory::new(128);
        let mut first = memory.pace(&connection, agent(1));
        let mut others: Vec<_> = (0..4).map(|_| memory.pace(&connection, agent(1))).collect();
        let held = fill(&mut first);
        let pinned: Vec<_> = others.iter_mut().map(fill).collect();
        let mut late = memory.pace(&connection, agent(1));
        late.hold(Bytes::from(vec![7; PIECE]));
        let waiting = tokio::spawn(async move { std::future::poll_fn(|cx| late.poll_piece(cx)).await });
        tokio::task::yield_now().await;
        drop((held, pinned));
        let piece = waiting.await.unwrap().unwrap();
        assert!(piece.len() > GUARANTEED, "{}", piece.len());
    }
}
