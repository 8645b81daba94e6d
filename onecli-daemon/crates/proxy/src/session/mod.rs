//! One connection of a client: its identity, limits, audit records and revocation, for every protocol.

pub(crate) mod counters;
pub(crate) mod destination;
pub(crate) mod identity;
pub(crate) mod lifecycle;
pub(crate) mod limits;
mod policy_view;
mod policy_watch;
pub(crate) mod recorder;
pub(crate) mod refusals;
pub(crate) mod refuse;
pub(crate) mod request_audit;

use std::sync::Arc;

use jiff::Timestamp;
use onecli_audit::Record;
use onecli_model::Authority;
use onecli_policy::Snapshot;

use self::destination::Destination;
use self::identity::Client;
use self::lifecycle::Lifecycle;
use self::limits::Limits;
pub(crate) use self::policy_view::PolicyView;
use self::recorder::Recorder;
use crate::upstream::Upstreams;

/// How the client's bytes reach the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// As the client sends them.
    Plain,
    /// The client speaks TLS. The daemon has read its server name, and terminates nothing.
    Unread,
    /// The daemon has terminated TLS. Set if ALPN agreed on HTTP/2.
    Terminated { is_h2: bool },
}

/// The handles that sessions are made of. Each is shared by all connections.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) policy: PolicyView,
    pub(crate) limits: Arc<Limits>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

/// What a protocol needs to serve one connection.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) destination: Destination,
    /// The host that everything on the connection must name, if it is known.
    pub(crate) authority: Option<Authority>,
    pub(crate) security: Security,
    /// The current policy.
    pub(crate) policy: PolicyView,
    /// The limits on what clients may have open.
    pub(crate) limits: Arc<Limits>,
    /// Writes the audit records.
    pub(crate) recorder: Arc<Recorder>,
    /// Connects to upstreams.
    pub(crate) upstreams: Arc<Upstreams>,
    /// Whether the daemon is stopping.
    pub(crate) lifecycle: Arc<Lifecycle>,
}

impl Session {
    /// A session of `client`, which connected to `destination`.
    pub(crate) fn new(services: &Services, client: Client, destination: Destination) -> Session {
        let Services { policy, limits, recorder, upstreams, lifecycle } = services.clone();
        let authority = match &destination {
            Destination::Authority(authority) => Some(authority.clone()),
            Destination::Address(_) | Destination::Name(_) | Destination::Proxy => None,
        };
        let security = Security::Plain;
        Session { client, destination, authority, security, policy, limits, recorder, upstreams, lifecycle }
    }

    /// Writes what is known before the first request into an audit record.
    fn describe(&self, record: &mut Record) {
        self.client.describe(&self.policy.snapshot(), record);
        if let Some(authority) = &self.authority {
            record.target(authority.host(), authority.port());
        }
    }

    /// Resolves when the daemon aborts what is open, or when a new policy or the end of the client's session makes
    /// `refused` true. If that is already so, it resolves immediately.
    pub(crate) async fn until_refused(&self, refused: impl Fn(&Snapshot, Timestamp) -> bool) {
        tokio::select! {
            () = self.policy.until_refused(&self.client.evidence, refused) => {}
            () = self.lifecycle.aborted() => {}
        }
    }
}
