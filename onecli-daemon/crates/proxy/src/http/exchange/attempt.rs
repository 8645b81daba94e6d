//! One attempt to send a request on one upstream connection.

use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use onecli_model::{Code, Refusal, SecretValue};
use onecli_vault::Credential;

use super::outbound::Outbound;
use crate::http::body::Progress;
use crate::http::body::expect::Gate;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::replay::{AttemptBody, Recovery};
use crate::http::request::revoked::Revoked;
use crate::http::scrub::Scrubber;
use crate::http::upstream::pool::Upstream;
use crate::http::upstream::send_failure::SendFailure;

/// One attempt, after its decision was recorded and before its response.
pub(super) struct Attempt {
    pub(super) upstream: Upstream,
    pub(super) revoked: Revoked,
    /// The credentials that it carries.
    pub(super) used: Vec<Credential>,
    /// The signatures that were made for it.
    pub(super) signatures: Vec<SecretValue>,
    pub(super) scrubber: Scrubber,
    /// Gives the body back if nothing was sent.
    pub(super) recovery: Recovery,
}

impl Attempt {
    /// Sends the request and waits for the head of its response.
    ///
    /// # Errors
    /// A [`Refusal`] that ends the request: the permission was revoked, or the upstream is silent. The inner error is a
    /// failure of this attempt.
    pub(super) async fn send(
        &mut self,
        outbound: &Outbound,
        request: Request<AttemptBody>,
    ) -> Result<Result<Response<PeerBody>, SendFailure>, Refusal> {
        let gate = outbound.gate.as_ref();
        let sending = Box::pin(self.upstream.send(request, gate));
        let sending = Gate::until(gate, sending);
        let session = &outbound.connection.session;
        tokio::select! {
            biased;
            () = &mut self.revoked => Err(Revoked::refusal(session.lifecycle.revoked_code())),
            sent = answered(session.upstreams.timeouts.head, &outbound.progress, gate, sending) => sent,
        }
    }
}

/// Waits for the result of `sending` as long as it makes progress. Progress means that a piece of the body was sent
/// or the response began within the last `limit`. A lack of progress is noticed after up to twice the limit. Time in
/// which the body waits at `gate` does not count; the gate limits it.
///
/// # Errors
/// [`Code::UpstreamTimeout`].
async fn answered<T>(
    limit: Duration,
    progress: &Progress,
    gate: Option<&Gate>,
    sending: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let mut sending = pin!(sending);
    let mut taken = progress.bytes();
    loop {
        let was_held = gate.is_some_and(Gate::is_waiting);
        if let Ok(sent) = tokio::time::timeout(limit, &mut sending).await {
            return Ok(sent);
        }
        let before = std::mem::replace(&mut taken, progress.bytes());
        if taken == before && !was_held {
            return Err(Refusal::new(
                Code::UpstreamTimeout,
                format!("the upstream's response did not begin within {limit:?}"),
                "the upstream may have processed the request; if it needs more time, an administrator can \
                 raise [upstream] head_timeout",
            ));
        }
    }
}
