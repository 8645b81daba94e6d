//! The test kit: code shared by the system tests, the demo and the benchmark.
//!
//! Everything here runs real parts:
//!
//! - a real upstream over TLS ([`upstream`])
//! - a real daemon, controlled through the CLI ([`daemon`])
//! - real clients in a clean environment ([`client`])
//!
//! Fixtures ([`cgroup`], [`netns`]) undo themselves when dropped, also while a panic unwinds. [`canary`] searches for
//! values where they must not be, including bytes that a [`socket`] receives. [`need`] reports the parts that a machine
//! could not run.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a failed set-up of a fixture ends its test, with the reason as the message"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests, demo and benchmark print for the user")]
#![allow(clippy::disallowed_methods, reason = "tests wait and measure in real time")]

pub mod argv;
pub mod bins;
pub mod canary;
pub mod cgroup;
pub mod client;
pub mod daemon;
pub mod disk;
pub mod docker;
pub mod faulty;
pub mod group;
pub mod h2wire;
mod image;
pub mod need;
pub mod netns;
pub mod openbao;
pub mod panicking;
pub mod podman;
pub mod postgres;
mod scenarios;
pub mod scripted;
pub mod socket;
pub mod tap;
pub mod upstream;

pub use scenarios::{chaos, scripts};

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A number unique among the fixtures of this process. Together with the process id it names fixtures on the machine.
#[must_use]
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A port that was free a moment ago. If another process binds it before the daemon does, the daemon logs the conflict.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind 127.0.0.1");
    listener.local_addr().unwrap().port()
}

/// Calls `probe` every 20 ms until it returns a value, for at most `limit`.
pub fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
