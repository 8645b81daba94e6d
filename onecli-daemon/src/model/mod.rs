//! Types that the rest of the daemon speaks in.

pub mod flow;
