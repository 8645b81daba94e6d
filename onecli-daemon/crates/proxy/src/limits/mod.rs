//! Limits on connections, requests and time.

pub(crate) mod capacity;
pub(crate) mod capped;
pub(crate) mod failures;
pub(crate) mod patience;
pub(crate) mod place;
pub(crate) mod shares;
pub(crate) mod stall;
