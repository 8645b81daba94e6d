//! Permission for one request that root makes to test a secret.

use std::sync::Arc;

use onecli_model::{Agent, AgentId, Code, Egress, Factors, Refusal, SecretId};
use uuid::Uuid;

use super::decide::{RequestFacts, judged, refuse_fresh_credentials};
use super::grant::{Grant, ScrubGrant, SentAs};
use super::identity::Identity;
use super::snapshot::Snapshot;

/// The agent id of test requests. No agent of the store has this id, and no connection identifies as it.
const TESTER: AgentId = AgentId(Uuid::max());
const NAME: &str = "secret-test";

/// Permission for root to send one request with a secret.
pub struct TestPermit {
    /// The identity that sends it.
    pub identity: Identity,
    /// The secret.
    pub grant: Grant,
    /// Permission to scrub the value from the response.
    pub scrub_grant: ScrubGrant,
}

impl Snapshot {
    /// Permits `request` with a secret, if it is within the secret's scope. The caller has checked that root makes
    /// the request.
    ///
    /// # Errors
    /// A [`Refusal`] that names the part outside of the scope.
    pub fn permit_test(&self, secret: SecretId, request: &RequestFacts<'_>) -> Result<TestPermit, Refusal> {
        let outside = |what: &str| {
            Refusal::new(
                Code::EgressDenied,
                format!("the request is outside of the secret's scope: {what}"),
                "name one within it: --host, --method and --path; 'onecli secret show' prints the scope",
            )
        };
        let stored = self.stored_secret(request.authority.host(), secret);
        let secret = stored.ok_or_else(|| outside("another host"))?;
        judged(&secret, request).map_err(|mismatch| outside(&mismatch.to_string()))?;
        refuse_fresh_credentials(&[&secret], request)?;
        if !secret.enabled {
            return Err(Refusal::new(
                Code::SecretUnavailable,
                format!("secret '{}' is disabled", secret.name),
                format!("enable it first: onecli secret enable {}", secret.name),
            ));
        }
        if !request.tls && !secret.target.allow_plaintext {
            return Err(outside("plain HTTP"));
        }
        let agent = Arc::new(tester()?);
        let grant = Grant::new(Arc::clone(&agent), Arc::clone(&secret));
        Ok(TestPermit {
            identity: Identity::of_tester(agent),
            grant,
            scrub_grant: ScrubGrant::new(secret, SentAs::Placed),
        })
    }
}

fn tester() -> Result<Agent, Refusal> {
    let internal =
        |error: &dyn std::fmt::Display| Refusal::new(Code::Internal, error.to_string(), "report this");
    Ok(Agent {
        id: TESTER,
        name: NAME.parse().map_err(|error| internal(&error))?,
        factors: Factors::TOKEN,
        cgroup: NAME.parse().map_err(|error| internal(&error))?,
        user: None,
        egress: Egress::Deny,
        enabled: true,
        generation: 1,
        allow_git_config: false,
    })
}
