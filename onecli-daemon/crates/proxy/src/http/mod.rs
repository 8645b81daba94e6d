//! HTTP: from a request's head to the end of its response.
//!
//! `server` reads requests with `h1` and `h2`. `exchange` handles one request. The other modules are its steps, to
//! `response`, which delivers what the upstream sent.

pub(crate) mod body;
pub(crate) mod context;
pub(crate) mod decode;
pub(crate) mod exchange;
pub(crate) mod fields;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod placeholders;
pub(crate) mod placement;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod scrub;
pub(crate) mod scrub_values;
pub(crate) mod server;
pub(crate) mod session_cookies;
pub(crate) mod upstream;
pub(crate) mod websocket;
