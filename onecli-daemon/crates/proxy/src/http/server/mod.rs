//! HTTP towards clients: which connections are HTTP, and the requests on them.

mod half_closed;
mod protocol;
mod proxy_requests;
pub(crate) mod serve;
