//! Maps requests to handlers.

mod call;
mod router;
mod runner;

pub(crate) use call::{AdminRequest, HandlerResponse};
pub(crate) use router::route;
