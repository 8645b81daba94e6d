//! Limits by key, such as an agent or an address (invariant 9). The caller passes the time, so tests need no sleep.
//!
//! - [`Concurrency`]: how much may be open at the same time.
//! - [`Bucket`] and [`Buckets`]: how often something may happen.

#![forbid(unsafe_code)]

mod bucket;
mod buckets;
mod concurrency;

pub use bucket::{Bucket, Rate};
pub use buckets::{Buckets, WhenFull};
pub use concurrency::{Concurrency, Permit};
