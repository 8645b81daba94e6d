//! Detects the protocol of each connection, and hands the connection to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use onecli_model::Code;
use onecli_net::PrefixedStream;
use onecli_policy::Route;
use onecli_tls::{AgentTls, ClientHello, parse_client_hello};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::protocol::{Detection, FirstBytes, Protocol, SILENCE, Stream};
use crate::session::Session;
use crate::session::destination::Destination;
use crate::session::refuse::Reason;

/// The time that a client has for its first message after the first byte.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// The maximum number of bytes read ahead. A ClientHello with post-quantum keys and many extensions is well below it.
const MAX_AHEAD: usize = 32 * 1024;
/// The first byte of a TLS handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The protocols, and TLS below them.
#[derive(Debug)]
pub(crate) struct Router {
    /// In the order in which they are asked.
    protocols: Vec<Arc<dyn Protocol>>,
    pub(crate) agent_tls: AgentTls,
}

/// What the first bytes of a connection are.
enum Detected {
    Protocol(Arc<dyn Protocol>),
    /// A complete ClientHello, or one that cannot be read.
    ClientHello,
}

/// The reason why no protocol claims a connection.
enum Undetected {
    /// The client closed the connection, or the socket failed.
    Gone,
    /// The client is silent or slow, or sends bytes of another protocol.
    Unknown,
}

impl Router {
    /// `protocols` are asked in this order.
    pub(crate) fn new(protocols: Vec<Arc<dyn Protocol>>, agent_tls: AgentTls) -> Router {
        Router { protocols, agent_tls }
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(&self, session: Session, mut io: Stream) {
        let mut ahead = BytesMut::new();
        let detected = self.detect(&session, &mut io, &mut ahead).await;
        let ahead = ahead.freeze();
        match detected {
            Ok(Detected::Protocol(protocol)) => protocol.serve(session, rewound(ahead, io)).await,
            Ok(Detected::ClientHello) => self.serve_tls(session, &ahead.clone(), rewound(ahead, io)).await,
            Err(undetected) => refuse_undetected(&session, &undetected).await,
        }
    }

    /// Serves a TLS connection after the decision whether the daemon terminates TLS.
    pub(super) async fn serve_claimed(&self, session: Session, io: Stream) {
        match self.claimed(&session) {
            Some(protocol) => protocol.serve(session, io).await,
            None => refuse_undetected(&session, &Undetected::Unknown).await,
        }
    }

    /// The protocol that claims a connection before any byte.
    pub(super) fn claimed(&self, session: &Session) -> Option<Arc<dyn Protocol>> {
        let first = FirstBytes { bytes: &[], is_all: false };
        self.protocols.iter().find(|protocol| protocol.detect(session, first) == Detection::Mine).cloned()
    }

    /// Reads until a protocol claims the connection, or until a ClientHello is complete.
    async fn detect(
        &self,
        session: &Session,
        io: &mut Stream,
        ahead: &mut BytesMut,
    ) -> Result<Detected, Undetected> {
        let mut until = None;
        let mut is_all = false;
        loop {
            let within = match self.ask(session, FirstBytes { bytes: ahead, is_all }) {
                Ok(detected) => return Ok(detected),
                Err(Some(within)) if !is_all => within,
                Err(_) => return Err(Undetected::Unknown),
            };
            // The time for the first message starts with its first byte.
            let until = match (ahead.is_empty(), until) {
                (true, _) => Instant::now() + within,
                (false, Some(until)) => until,
                (false, None) => *until.insert(Instant::now() + FIRST_MESSAGE),
            };
            match timeout_at(until, io.read_buf(ahead)).await {
                Ok(Ok(0)) if ahead.is_empty() => return Err(Undetected::Gone),
                Ok(Ok(0)) => is_all = true,
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(Undetected::Gone),
                Err(_) if ahead.is_empty() => is_all = true,
                Err(_) => return Err(Undetected::Unknown),
            }
        }
    }

    /// Asks each protocol. Returns an error with the time to wait for more bytes, if a protocol needs them.
    fn ask(&self, session: &Session, first: FirstBytes<'_>) -> Result<Detected, Option<Duration>> {
        let mut within = None;
        if first.bytes.first() == Some(&TLS_HANDSHAKE) && !first.is_all {
            return match parse_client_hello(first.bytes) {
                ClientHello::Incomplete if first.bytes.len() >= MAX_AHEAD => Err(None),
                ClientHello::Incomplete => Err(Some(SILENCE)),
                ClientHello::Complete { .. } | ClientHello::Malformed(_) => Ok(Detected::ClientHello),
            };
        }
        for protocol in &self.protocols {
            match protocol.detect(session, first) {
                Detection::Mine if within.is_none() => return Ok(Detected::Protocol(Arc::clone(protocol))),
                Detection::NeedMore { at_most, within: wait } if first.bytes.len() < at_most => {
                    within = Some(within.map_or(wait, |other: Duration| other.min(wait)));
                }
                Detection::Mine | Detection::NotMine | Detection::NeedMore { .. } => {}
            }
        }
        Err(within)
    }
}

/// A stream that begins with `ahead`.
fn rewound(ahead: Bytes, io: Stream) -> Stream {
    if ahead.is_empty() { io } else { Box::new(PrefixedStream::new(ahead, io)) }
}

/// Records and closes a connection that no protocol claims.
async fn refuse_undetected(session: &Session, undetected: &Undetected) {
    let implied = match &session.destination {
        Destination::Name(authority) => Some(authority),
        Destination::Address(_) | Destination::Authority(_) | Destination::Proxy => None,
    };
    let refusal = match (session.identify(), implied) {
        (Err(refusal), _) => Some(refusal),
        (Ok(identity), Some(implied)) => match session.policy.snapshot().route(&identity, implied) {
            Route::Deny(refusal) => Some(refusal),
            Route::Inspect | Route::Tunnel { .. } => None,
        },
        (Ok(_), None) => None,
    };
    let code = match undetected {
        Undetected::Gone => Code::ClientGone,
        Undetected::Unknown => Code::ProtocolDenied,
    };
    let reason = refusal.as_ref().map_or(Reason::from(code), Reason::from);
    session
        .refuse(reason, |record| {
            if let Some(implied) = implied {
                record.target(implied.host(), implied.port());
            }
        })
        .await;
}
