//! Rows for tests, of this crate and of others.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "fixtures")]

use onecli_model::{
    Agent, AgentId, Egress, Factors, MethodSet, Placement, Profile, Sealed, Secret, SecretId, Target,
};
use uuid::Uuid;

/// An agent with both factors and no egress.
pub fn agent(number: u128, name: &str) -> Agent {
    Agent {
        id: AgentId(Uuid::from_u128(number)),
        name: name.parse().unwrap(),
        factors: Factors::BOTH,
        cgroup: format!("onecli-agents-{name}.slice").parse().unwrap(),
        user: None,
        egress: Egress::Deny,
        enabled: true,
        generation: 1,
        allow_git_config: false,
    }
}

/// A secret for `GET` and `POST` at two paths below `*.example.com:8443`.
pub fn secret(number: u128, name: &str) -> Secret {
    Secret {
        id: SecretId(Uuid::from_u128(number)),
        name: name.parse().unwrap(),
        target: Target {
            host: "*.example.com".parse().unwrap(),
            port: 8443,
            methods: MethodSet::try_from(vec!["GET".to_owned(), "POST".to_owned()]).unwrap(),
            paths: vec!["/v1/**".parse().unwrap(), "/v2/*/items".parse().unwrap()],
            allow_plaintext: false,
        },
        placement: Placement::header("x-api-key: {secret}").unwrap(),
        profile: Profile::default(),
        env: Some("EXAMPLE_KEY".to_owned()),
        enabled: true,
        version: 1,
        class: None,
        sealed: Sealed(vec![1, 2, 3]),
    }
}
