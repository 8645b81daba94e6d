//! HTTP/2 with the `h2` crate. hyper's HTTP/2 sends no 100 (Continue) and reports none. It also resets the stream of
//! a request with an unread body as soon as the response is written.

mod ahead;
mod client;
pub(crate) mod error_monitor;
mod grpc;
mod keep_alive;
mod pipe;
mod server;

pub(crate) use client::{H2Sender, Unanswered};
pub(crate) use server::{MAX_STREAMS, serve};
