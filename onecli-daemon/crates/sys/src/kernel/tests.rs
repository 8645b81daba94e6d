//! Tests against the running kernel: real cgroups, programs and connections.
//!
//! As root with BPF these tests fail if anything is broken. Otherwise they report that they were not run. Each has its
//! own network namespace, cgroups and pins, which are removed when it ends, however it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot continue panics"
)]
#![allow(clippy::disallowed_methods, reason = "these tests wait for real processes in real time")]

mod attachment;
mod child;
mod cost;
mod doctor;
mod egress;
mod fixture;
mod identity;
mod listeners;
mod neighbour;
mod own;
mod passed;
mod refusal;
mod resolver;
mod storm;
mod units;
mod waiting;
