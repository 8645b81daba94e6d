//! The socket, and HTTP over it.

mod serve;
mod socket;

pub use serve::serve;
pub use socket::{SocketError, bind};
