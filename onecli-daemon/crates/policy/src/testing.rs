//! Policies for the tests of other crates.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "fixtures")]

use jiff::Timestamp;
use onecli_model::{Agent, AgentId, Egress, Factors, Placeholder, SecretId, TokenHash};
use uuid::Uuid;

use crate::{AgentInput, Snapshot, SnapshotInput, TokenInput};

/// A policy of one agent with one session.
pub fn with_session(token: TokenHash, expires: Timestamp) -> Snapshot {
    let id = AgentId(Uuid::from_u128(3));
    let agent = Agent {
        id,
        name: "token".parse().unwrap(),
        factors: Factors::TOKEN,
        cgroup: "agent-token.slice".parse().unwrap(),
        user: None,
        egress: Egress::Deny,
        enabled: true,
        generation: 1,
        allow_git_config: false,
    };
    let agents = vec![AgentInput { agent, token: TokenHash([3; 32]) }];
    let sessions = vec![TokenInput { agent: id, token, expires, launched_by: None }];
    let stand_in = |_: AgentId, _: SecretId, _: u32| Placeholder::from_bits([0; 20]);
    Snapshot::compile(SnapshotInput { agents, sessions, ..SnapshotInput::default() }, &stand_in)
}
