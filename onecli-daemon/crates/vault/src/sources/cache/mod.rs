//! Expiring values in memory: until they expire, and for the scrubbing of responses.

pub mod flight;
mod recent;

pub(crate) use recent::RecentlyServed;
