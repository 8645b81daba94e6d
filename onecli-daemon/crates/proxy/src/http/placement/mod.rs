//! Puts credentials into requests, one module for each placement.

mod aws_hosts;
pub(crate) mod basic;
pub(crate) mod form;
mod header;
pub(crate) mod inject;
pub(crate) mod kind;
pub(crate) mod query;
pub(crate) mod replace;
mod segment;
pub(crate) mod signing;
pub(crate) mod sigv4;
