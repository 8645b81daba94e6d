//! Counts of events.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Event counts since the start, for `onecli status`.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            /// Every counter with its name.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Accepted connections.
    connections,
    /// Requests that were forwarded with a credential.
    requests_injected,
    /// Requests that were forwarded without one.
    requests_forwarded,
    /// Requests and connections that were refused.
    requests_denied,
    /// Connections that were passed through unread.
    tunnels,
    /// Values that were scrubbed from responses.
    scrub_hits,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
