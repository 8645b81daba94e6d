//! Connections to checked addresses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::address::CheckedAddr;

/// The time that one address has before the next is tried in parallel (RFC 8305 section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// No address accepted a connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The last address failed.
    #[error("cannot connect to {address}: {source}")]
    Refused {
        /// The address that failed last.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// No address answered in time.
    #[error("no address accepted a connection within {0:?}")]
    TimedOut(Duration),
}

/// Opens TCP connections to upstreams.
#[derive(Debug, Clone, Copy)]
pub struct Dialer {
    /// The time limit of one dial, over all its addresses.
    pub connect_timeout: Duration,
}

impl Dialer {
    /// Connects to the first address that accepts. Tries IPv6 and IPv4 in turn, each a little after the previous one
    /// (RFC 8305). Sets `TCP_NODELAY`.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, addresses: &[CheckedAddr]) -> Result<(TcpStream, SocketAddr), DialError> {
        match tokio::time::timeout(self.connect_timeout, race(&interleave(addresses))).await {
            Ok(result) => result,
            Err(_) => Err(DialError::TimedOut(self.connect_timeout)),
        }
    }
}

/// Alternates the families, beginning with that of the first address.
fn interleave(addresses: &[CheckedAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(|a| a.get().is_ipv6());
    let (mut a, mut b): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().map(|a| a.get()).partition(|a| a.is_ipv6() == first_is_v6);
    let mut order = Vec::with_capacity(addresses.len());
    a.reverse();
    b.reverse();
    while !(a.is_empty() && b.is_empty()) {
        order.extend(a.pop());
        order.extend(b.pop());
    }
    order
}

/// The time before a silent peer is probed, and the probes (tcp(7)): three, 15 s apart.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(1))
    .with_interval(Duration::from_secs(15))
    .with_retries(3);

/// Sets the options of every connection: no delay, and an end if the peer disappears. A failure costs only latency or
/// time.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE);
}

/// The time for which an upstream may leave bytes unacknowledged (`TCP_USER_TIMEOUT`, tcp(7)). It also applies to a
/// closed window.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Sets the options of a connection to an upstream. These include [`UNACKNOWLEDGED`], which ends the connection if
/// the network loses everything.
fn tune_upstream(stream: &TcpStream) {
    tune(stream);
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

async fn race(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut waiting = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(address) = waiting.next() {
            running.push(async move { (address, TcpStream::connect(address).await) });
        } else if running.is_empty() {
            let (address, source) = last_error.unwrap_or_else(|| {
                (SocketAddr::from(([0, 0, 0, 0], 0)), io::Error::other("no address to connect to"))
            });
            return Err(DialError::Refused { address, source });
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some((address, result)) = running.next() => match result {
                Ok(stream) => {
                    tune_upstream(&stream);
                    return Ok((stream, address));
                }
                Err(source) => last_error = Some((address, source)),
            },
            () = tokio::time::sleep(STAGGER), if more => {}
        }
    }
}
