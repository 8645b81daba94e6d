//! The values that a response is searched for.
//!
//! A host has the same values for every agent: all that are stored for it. The first request after a change compiles
//! their spellings, and all responses share them. Values that are fetched or issued are added when the daemon obtains
//! them.

mod followed;
mod joined;
mod scrubber;
mod search_set;
mod sets;
mod unexpected;
mod unopened;

pub(crate) use self::followed::Followed;
pub(crate) use self::scrubber::{only_signed, scrubber};
pub(crate) use self::search_set::SearchSet;
pub(crate) use self::sets::ScrubValues;
pub(crate) use self::unexpected::UnexpectedMatches;
pub(crate) use self::unopened::unopened;

#[cfg(test)]
mod tests;
