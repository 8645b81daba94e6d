//! Limits on concurrent admin connections from permitted peers. The limit applies per uid, so one user cannot delay
//! another user, and only root can delay root.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Concurrent connections per uid. Further connections wait.
const PER_USER: usize = 32;

/// Concurrent connections per uid for a user without administrator rights.
pub(crate) const PER_RUNNER: usize = 2;

/// One queue of connection slots per uid.
#[derive(Debug)]
pub(crate) struct Admission {
    slots: usize,
    by_uid: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// A slot for one connection. Dropping it frees the slot.
pub(crate) struct AdmissionPermit {
    _slot: OwnedSemaphorePermit,
}

impl Default for Admission {
    fn default() -> Admission {
        Admission::of(PER_USER)
    }
}

impl Admission {
    /// Creates queues with `slots` slots per uid.
    pub(crate) fn of(slots: usize) -> Admission {
        Admission { slots, by_uid: Mutex::default() }
    }

    /// Waits for a slot of `uid`. Returns `None` only when the process is about to end.
    pub(crate) async fn wait(&self, uid: u32) -> Option<AdmissionPermit> {
        let queue = {
            let mut by_uid = self.by_uid.lock();
            // Drop queues that only this map still references: no connection uses or awaits them.
            by_uid.retain(|_, queue| Arc::strong_count(queue) > 1);
            Arc::clone(by_uid.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(self.slots))))
        };
        queue.acquire_owned().await.ok().map(|permit| AdmissionPermit { _slot: permit })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn connections_of_one_user_do_not_delay_another() {
        let admission = Admission::default();
        let mut held: Vec<_> =
            (0..PER_USER).map(|_| admission.wait(1000).now_or_never().unwrap().unwrap()).collect();
        assert!(admission.wait(1000).now_or_never().is_none());
        assert!(admission.wait(0).now_or_never().is_some());
        assert!(admission.wait(1001).now_or_never().is_some());
        held.pop();
        assert!(admission.wait(1000).now_or_never().is_some());
        held.clear();
        assert!(admission.wait(1000).now_or_never().is_some());
        assert!(admission.by_uid.lock().len() <= 1, "unused queues are removed");
    }
}
