//! Expiring values in memory: until they expire, and for the scrubbing of responses.

pub mod fetch_cache;
mod recent;

pub(crate) use recent::RecentlyServed;
