//! What a protocol is to the code that accepts connections.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use onecli_model::Refusal;
use onecli_net::Transport;

use crate::session::Session;

/// How long a client may stay silent before its first byte, unless a protocol waits for a shorter time.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);

/// The bytes of a client, with the bytes that detection has read in front.
pub(crate) type Stream = Box<dyn Transport>;

/// The first bytes of a connection, as far as they have arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstBytes<'b> {
    pub(crate) bytes: &'b [u8],
    /// Set if the client sends nothing more at present: it waits, or it has closed its side.
    pub(crate) is_all: bool,
}

/// Whether a connection belongs to a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detection {
    Mine,
    NotMine,
    NeedMore {
        /// Number of bytes after which the protocol decides.
        at_most: usize,
        /// How long the protocol waits for the first of them. The shortest time of all protocols applies.
        within: Duration,
    },
}

/// A protocol of the data plane. The protocols are asked in order, and the first that claims a connection serves it.
pub(crate) trait Protocol: Debug + Send + Sync {
    /// Returns whether the connection belongs to the protocol. It may claim one by its destination before any byte,
    /// because in some protocols the server speaks first.
    fn detect(&self, session: &Session, first: FirstBytes<'_>) -> Detection;

    /// Serves a connection to its end. Records each request, or the connection if the protocol has no requests.
    fn serve(self: Arc<Self>, session: Session, io: Stream) -> BoxFuture<'static, ()>;

    /// Reports the refusal of a connection in the protocol's own form, and records it.
    fn refuse(self: Arc<Self>, session: Session, refusal: Refusal, io: Stream) -> BoxFuture<'static, ()>;
}
