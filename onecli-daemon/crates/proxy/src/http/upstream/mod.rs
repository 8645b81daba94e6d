//! Connections to upstreams that carry HTTP, and what sends requests on them.

pub(crate) mod daemon_client;
mod early_answer;
mod http1_sender;
pub(crate) mod pool;
pub(crate) mod pool_scope;
pub(crate) mod retry;
pub(crate) mod send_failure;
