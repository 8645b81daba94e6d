//! The handles of the HTTP protocol.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use onecli_model::{Clock, Random};
use onecli_policy::{Approvals, Limits};
use onecli_vault::{Credentials, Vault};

use crate::accept::router::Router;
use crate::http::body::body_memory::BodyMemory;
use crate::http::body::buffer;
use crate::http::decode;
use crate::http::scrub_values::{ScrubValues, UnexpectedMatches};
use crate::http::upstream::pool::Pool;
use crate::limits::agent_quota::AgentQuota;

/// What HTTP requests need beside their session.
pub(crate) struct Http {
    /// Serves what comes through CONNECT.
    pub(crate) router: OnceLock<Weak<Router>>,
    pub(crate) pool: Pool,
    pub(crate) secrets: Secrets,
    pub(crate) conditions: Conditions,
    pub(crate) bodies: BodyLimits,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
}

/// What opens secrets, and what finds them in responses.
pub(crate) struct Secrets {
    pub(crate) vault: Arc<Vault>,
    pub(crate) credentials: Arc<Credentials>,
    /// The values that responses are searched for.
    pub(crate) scrub_values: Arc<ScrubValues>,
    /// Values that came back in responses although their request did not send them.
    pub(crate) unexpected: UnexpectedMatches,
}

/// Conditions that a request must meet before it is sent.
pub(crate) struct Conditions {
    /// The counters of limiting rules.
    pub(crate) limits: Limits,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) approval_timeout: Duration,
}

/// Limits on the memory of bodies.
#[derive(Debug)]
pub(crate) struct BodyLimits {
    /// Body bytes that wait until a peer reads them.
    pub(crate) memory: BodyMemory,
    /// Responses that are decoded with a large window.
    pub(crate) decoders: AgentQuota,
    /// Request bodies in memory.
    pub(crate) held: AgentQuota,
    /// Request bodies that wait, with their request, for approval.
    pub(crate) for_approval: AgentQuota,
}

impl Default for BodyLimits {
    fn default() -> BodyLimits {
        BodyLimits {
            memory: BodyMemory::default(),
            decoders: AgentQuota::new(decode::DECODERS_PER_AGENT, decode::DECODERS),
            held: AgentQuota::new(buffer::HELD_PER_AGENT, buffer::HELD),
            for_approval: AgentQuota::new(buffer::FOR_APPROVAL_PER_AGENT, buffer::FOR_APPROVAL),
        }
    }
}

impl Http {
    /// Sets what serves the connections inside CONNECT. The router owns this protocol, so the link back is weak.
    pub(crate) fn set_router(&self, router: &Arc<Router>) {
        self.router.get_or_init(|| Arc::downgrade(router));
    }

    /// What serves the connections inside CONNECT; `None` while the daemon stops.
    pub(crate) fn router(&self) -> Option<Arc<Router>> {
        self.router.get()?.upgrade()
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http(..)")
    }
}
