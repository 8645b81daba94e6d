//! Tunnels: bytes that the daemon forwards without reading them, because a rule allows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use onecli_audit::Text;
use onecli_model::{AddressScope, Authority, Code, Refusal};
use onecli_net::{TunnelBytes, client_speaks_first, tunnel};
use onecli_policy::{DecisionReason, Identity, Route, Snapshot};

use crate::accept::protocol::{Detection, FirstBytes, Protocol, SILENCE, Stream};
use crate::session::counters::Counters;
use crate::session::destination::Destination;
use crate::session::request_audit::RequestAudit;
use crate::session::{Security, Session};
use crate::upstream::connector::Opened;

/// How long a client may stay silent before its first byte, at ports where the server may speak first. It does not apply at ports of HTTP and TLS. There, a slow
/// client would be passed on before its TLS server name is read, which would bypass the rules for that name.
const SILENCE_UNREAD: Duration = Duration::from_millis(400);

/// Forwards bytes that no other protocol reads, where policy allows it.
#[derive(Debug)]
pub(crate) struct Tunnel;

impl Protocol for Tunnel {
    fn detect(&self, session: &Session, first: FirstBytes<'_>) -> Detection {
        match session.security {
            Security::Unread => return Detection::Mine,
            Security::Terminated { .. } => return Detection::NotMine,
            Security::Plain => {}
        }
        let is_waiting = first.bytes.is_empty();
        if is_waiting && session.destination.port().is_none_or(client_speaks_first) {
            return if first.is_all { Detection::NotMine } else { more(SILENCE) };
        }
        let Ok(identity) = session.identify() else { return Detection::NotMine };
        match unread(session, &identity).is_empty() {
            true => Detection::NotMine,
            false if is_waiting && !first.is_all => more(SILENCE_UNREAD),
            false => Detection::Mine,
        }
    }

    fn serve(self: Arc<Self>, session: Session, io: Stream) -> BoxFuture<'static, ()> {
        async move {
            let Ok(mut audit) = RequestAudit::begin(&session) else { return };
            if let Err(refusal) = forward(&session, &mut audit, io).await {
                audit.refuse_by(&refusal).await;
            }
        }
        .boxed()
    }

    fn refuse(self: Arc<Self>, session: Session, refusal: Refusal, _io: Stream) -> BoxFuture<'static, ()> {
        async move { _ = session.refuse(&refusal, |_| {}).await }.boxed()
    }
}

/// A decision that needs one byte more.
fn more(within: Duration) -> Detection {
    Detection::NeedMore { at_most: 1, within }
}

/// An allowed route for bytes that the daemon does not read.
struct Passage {
    authority: Authority,
    address_scope: AddressScope,
    reason: DecisionReason,
    /// The address that the agent connected to. It must be one of the authority's, and it is dialled.
    address: Option<SocketAddr>,
    /// Set if only a rule for unread bytes allows it.
    is_unread: bool,
}

impl Passage {
    /// The addresses at which policy still allows the passage; `None` if it does not.
    fn still(&self, snapshot: &Snapshot, identity: &Identity) -> Option<AddressScope> {
        if self.is_unread {
            return snapshot.allows_unread(identity, &self.authority).map(|(address_scope, _)| address_scope);
        }
        match snapshot.route(identity, &self.authority) {
            Route::Tunnel { address_scope, .. } => Some(address_scope),
            Route::Inspect | Route::Deny(_) => None,
        }
    }
}

/// The routes on which policy allows the session's bytes.
///
/// # Errors
/// The refusal of policy, for TLS whose server name was read.
fn passages(session: &Session, identity: &Identity) -> Result<Vec<Passage>, Refusal> {
    let (Security::Unread, Some(authority)) = (session.security, &session.authority) else {
        return Ok(unread(session, identity));
    };
    match session.policy.snapshot().route(identity, authority) {
        Route::Tunnel { address_scope, reason } => {
            let authority = authority.clone();
            Ok(vec![Passage { authority, address_scope, reason, address: None, is_unread: false }])
        }
        Route::Deny(refusal) => Err(refusal),
        Route::Inspect => Ok(Vec::new()),
    }
}

/// The routes on which this connection's unreadable bytes may be forwarded.
fn unread(session: &Session, identity: &Identity) -> Vec<Passage> {
    let snapshot = session.policy.snapshot();
    let passage = |authority: Authority, address_scope, reason, address| Passage {
        authority,
        address_scope,
        reason,
        address,
        is_unread: true,
    };
    match &session.destination {
        Destination::Name(authority) | Destination::Authority(authority) => snapshot
            .allows_unread(identity, authority)
            .into_iter()
            .map(|(address_scope, reason)| passage(authority.clone(), address_scope, reason, None))
            .collect(),
        Destination::Address(address) => snapshot
            .unread(identity, *address)
            .into_iter()
            .map(|(authority, address_scope, reason)| {
                passage(authority, address_scope, reason, Some(*address))
            })
            .collect(),
        Destination::Proxy => Vec::new(),
    }
}

/// Opens the first route that can be connected.
///
/// # Errors
/// The refusal of the last route.
async fn open_passage(session: &Session, passages: Vec<Passage>) -> Result<(Passage, Opened), Refusal> {
    let mut refused = None;
    let connector = &session.upstreams.connector;
    for passage in passages {
        // Invariant 5: the daemon resolves the name, whatever address the agent chose.
        let opened = match passage.address {
            None => connector.open(&passage.authority, &passage.address_scope).await.map(Some),
            Some(wanted) => connector.open_at(&passage.authority, &passage.address_scope, wanted).await,
        };
        match opened {
            Ok(Some(opened)) => return Ok((passage, opened)),
            Ok(None) => {}
            Err(refusal) => refused = Some(refusal),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Refusal::new(
            Code::ProtocolDenied,
            "the bytes are neither TLS nor HTTP, and no rule allows the address",
            "ask an administrator to allow it: onecli rule add allow --host HOST --port PORT, or --address \
             NETWORK",
        )
    }))
}

/// Forwards bytes in both directions, until one side ends or the permission does.
///
/// # Errors
/// The refusal that `audit` must record: nothing was forwarded.
async fn forward(session: &Session, audit: &mut RequestAudit, io: Stream) -> Result<(), Refusal> {
    let identity = session.identify()?;
    audit.identify(&identity);
    audit.enter(session, &identity)?;
    let (passage, Opened { stream: upstream, address, .. }) =
        open_passage(session, passages(session, &identity)?).await?;
    let authority = &passage.authority;
    audit.record().target(authority.host(), authority.port()).address = Some(Text::new(&address.to_string()));
    audit.record().rule = Some(Text::new(&passage.reason.to_string()));
    audit.decide_tunnel().await?;
    Counters::add(&session.recorder.counters.tunnels, 1);
    let agent = identity.agent().id;
    let revoked = session.until_refused(|snapshot, now| {
        let identified = snapshot.identify(&session.client.evidence, now).ok();
        let address_scope = identified
            .filter(|identity| identity.agent().id == agent)
            .and_then(|identity| passage.still(snapshot, &identity));
        address_scope.is_none_or(|scope| !session.upstreams.connector.admits(authority, address, &scope))
    });
    let bytes = TunnelBytes::default();
    let result = tunnel(io, upstream, &bytes, session.upstreams.timeouts.idle, revoked).await;
    audit.tunnelled(&bytes, result);
    Ok(())
}
