//! The operating system: the kernel programs, privileges, paths, locks, clocks and randomness.
//!
//! This crate and `onecli-launch` alone may hold `unsafe` code in user space.

pub mod kernel;
pub mod lock;
pub mod peer;
pub mod privilege;
pub mod trusted;

mod clock;
mod private_dir;
mod random;

pub use clock::SystemClock;
pub use private_dir::{PrivateDir, PrivateDirError};
pub use random::OsRandom;
