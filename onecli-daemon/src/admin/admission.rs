//! How many connections of peers who may speak are served at a time: one user cannot keep the others waiting, and root
//! waits for nobody but root.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of one user. Its further ones wait.
const PER_USER: usize = 32;

/// A queue for each user.
#[derive(Debug, Default)]
pub(super) struct Admission {
    by_uid: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// One connection; gives its place back when dropped.
pub(super) struct Admittance {
    _place: OwnedSemaphorePermit,
}

impl Admission {
    /// Waits for a place of `uid`'s. `None` only where the process is about to end.
    pub(super) async fn wait(&self, uid: u32) -> Option<Admittance> {
        let queue = {
            let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody else is at one whose only owner is this map.
            by_uid.retain(|_, queue| Arc::strong_count(queue) > 1);
            Arc::clone(by_uid.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(PER_USER))))
        };
        queue.acquire_owned().await.ok().map(|place| Admittance { _place: place })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn one_user_does_not_keep_another_waiting() {
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
        assert!(admission.by_uid.lock().unwrap().len() <= 1, "who left is forgotten");
    }
}
