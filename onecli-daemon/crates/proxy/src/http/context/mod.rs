//! What the steps of a request share: the protocol's handles, and the facts of the connection.

pub(crate) mod connection;
pub(crate) mod handles;
