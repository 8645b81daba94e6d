//! Connections that the kernel redirected to us.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::connection::{Connection, Destination};
use super::explicit::serve_explicit;
use super::gateway::{Counters, Gateway};
use super::intercept::{intercept, refuse_quietly};
use crate::model::Code;
use crate::net::Origin;
use crate::policy::Mode;

/// Serves one connection that the transparent listener accepted, with the kernel's record of it.
pub async fn serve_transparent(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    origin: Option<Origin>,
) {
    if let Some(origin) = &origin
        && gateway.is_explicit(origin.flow.original_destination)
    {
        // It named the proxy: proxy HTTP, with the kernel's word for its cgroup.
        return serve_explicit(Arc::clone(&gateway), stream, peer, Some(origin.clone())).await;
    }
    Counters::add(&gateway.counters.connections, 1);
    // Without a record there is no identity: the connection is read only to be refused in its own language.
    let destination = match &origin {
        Some(origin) => origin.flow.original_destination,
        None => match stream.local_addr() {
            Ok(address) => address,
            Err(_) => return,
        },
    };
    let connection = Connection::new(Mode::Transparent, origin, peer);
    // Who is not identified gets no further than its refusal.
    let mut permit = None;
    if let Ok(identity) = connection.identify(&gateway) {
        permit = gateway.connections.acquire(identity.agent().id);
        if permit.is_none() {
            return refuse_quietly(&gateway, &connection, Code::LimitReached).await;
        }
    }
    // A failure here only costs latency.
    let _ = stream.set_nodelay(true);
    intercept(&gateway, connection, Destination::Address(destination), stream).await;
    drop(permit);
}
