//! Revocation of open exchanges: streams, tunnels and upgraded connections end when policy no longer allows them.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use onecli_model::{AgentId, Code, Refusal, SecretId};
use onecli_policy::Grant;

use super::head::Head;
use crate::http::context::connection::HttpConnection;

/// Resolves when the permission for one exchange is revoked: see [`Snapshot::still_allows`].
pub(crate) struct Revoked(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Revoked {
    /// Returns the future for the request `head`, which used `grants` and is sent to `address`.
    pub(crate) fn new(
        connection: &Arc<HttpConnection>,
        agent: AgentId,
        head: &Head,
        grants: &[Grant],
        address: SocketAddr,
    ) -> Revoked {
        let connection = Arc::clone(connection);
        let head = head.clone_facts();
        let used: Vec<SecretId> = grants.iter().map(|grant| grant.secret().id).collect();
        Revoked(Box::pin(async move {
            let session = &connection.session;
            let evidence = &session.client.evidence;
            session
                .until_refused(|snapshot, now| {
                    snapshot.still_allows(evidence, now, agent, &head.facts(), &used).is_none_or(
                        |address_scope| {
                            !session.upstreams.connector.admits(&head.authority, address, &address_scope)
                        },
                    )
                })
                .await;
        }))
    }

    /// Returns the future for a test by root. It resolves when the daemon stops.
    pub(crate) fn of_test(connection: &Arc<HttpConnection>) -> Revoked {
        let connection = Arc::clone(connection);
        Revoked(Box::pin(async move { connection.session.until_refused(|_, _| false).await }))
    }

    /// The refusal that the client gets, if its response has not begun. `code` is from [`Lifecycle::revoked_code`].
    pub(crate) fn refusal(code: Code) -> Refusal {
        if code == Code::Interrupted {
            return Refusal::new(code, "the daemon is stopping", "try again in a moment");
        }
        Refusal::new(
            code,
            "the permission for the request was revoked while it was running",
            "an administrator revoked a grant, changed a rule, disabled the agent or let the session end",
        )
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revoked(..)")
    }
}

impl Future for Revoked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}
