//! WebSocket (RFC 6455): the upgrade, and the messages in both directions.

mod frame_head;
pub(crate) mod messages;
mod read_filter;
mod scan;
pub(crate) mod upgrade;
