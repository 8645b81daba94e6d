//! A bound on waiting, for what has no bound as a whole: streams may live long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How long may still be waited. Only time that is spent waiting counts.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    left: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Patience {
    /// `limit` from the first wait.
    pub(super) fn new(limit: Duration) -> Patience {
        Patience { limit, left: limit, timer: None, waiting: false }
    }

    /// Renews a wait whose limit may have changed; without a limit there is none.
    pub(super) fn renew_with(patience: &mut Option<Patience>, limit: Option<Duration>) {
        match patience {
            Some(patience) if Some(patience.limit) == limit => patience.renew(),
            _ => *patience = limit.map(Patience::new),
        }
    }

    /// Waits; ready when it was too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.left;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + left);
        }
        timer.as_mut().poll(cx)
    }

    /// There is nothing to wait for now.
    pub(super) fn pause(&mut self) {
        if let Some(timer) = self.timer.as_ref().filter(|_| self.waiting) {
            self.left = timer.deadline().saturating_duration_since(Instant::now());
            self.waiting = false;
        }
    }

    /// What was waited for is there: the next wait has the whole time.
    pub(super) fn renew(&mut self) {
        self.waiting = false;
        self.left = self.limit;
    }
}
