//! A limit on waiting for each piece of a stream, which as a whole has no time limit.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The remaining waiting time. Only time that is spent waiting counts.
#[derive(Debug)]
pub(crate) struct IdleTimeout {
    limit: Duration,
    left: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl IdleTimeout {
    /// Allows `limit` from the first wait.
    pub(crate) fn new(limit: Duration) -> IdleTimeout {
        IdleTimeout { limit, left: limit, timer: None, waiting: false }
    }

    /// Restarts a timeout whose limit may have changed; without a limit there is no timeout.
    pub(crate) fn renew_with(idle_timeout: &mut Option<IdleTimeout>, limit: Option<Duration>) {
        match idle_timeout {
            Some(idle_timeout) if Some(idle_timeout.limit) == limit => idle_timeout.renew(),
            _ => *idle_timeout = limit.map(IdleTimeout::new),
        }
    }

    /// Waits; ready when the limit is exceeded.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.left;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + left);
        }
        timer.as_mut().poll(cx)
    }

    /// Stops the timer while nothing is awaited.
    pub(crate) fn pause(&mut self) {
        if let Some(timer) = self.timer.as_ref().filter(|_| self.waiting) {
            self.left = timer.deadline().saturating_duration_since(Instant::now());
            self.waiting = false;
        }
    }

    /// Restores the whole limit for the next wait, because the awaited data has arrived.
    pub(crate) fn renew(&mut self) {
        self.waiting = false;
        self.left = self.limit;
    }
}
