//! Maps requests to handlers.

mod call;
mod router;
mod runner;

pub(crate) use call::{Answer, Call};
pub(crate) use router::route;
