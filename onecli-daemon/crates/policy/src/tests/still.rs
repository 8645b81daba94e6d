//! Running responses continue when the agent gets more grants.

use super::*;

/// An agent with grants for these of two secrets of one slot. The second fits the request better.
fn world(grants: &[u8], egress: Egress, factors: Factors) -> Snapshot {
    let id = |n: u8| (AgentId(Uuid::from_u128(3)), SecretId(Uuid::from_u128(u128::from(n))));
    let secrets = vec![
        secret(1, "api", "api.test", "/**", Placement::bearer()),
        secret(2, "narrow", "api.test", "/v1/x", Placement::bearer()),
    ];
    let grants = grants.iter().map(|n| id(*n)).collect();
    let agents = vec![agent(3, "token", factors, egress)];
    Snapshot::compile(SnapshotInput { agents, secrets, grants, ..SnapshotInput::default() }, &stand_in)
}

fn is_still_allowed(world: &Snapshot, evidence: &ClientEvidence, used: &[u8]) -> bool {
    let used: Vec<SecretId> = used.iter().map(|n| SecretId(Uuid::from_u128(u128::from(*n)))).collect();
    let request = PlainRequest::new("GET", "api.test/v1/x");
    world.still_allows(evidence, NOW, AgentId(Uuid::from_u128(3)), &request.facts(), &used).is_some()
}

#[test]
fn more_specific_grant_revokes_nothing() {
    let own = evidence(CaptureMode::Explicit, None, Some(3));
    let check = |grants: &[u8], used: &[u8], expected: bool| {
        let world = world(grants, Egress::Deny, Factors::TOKEN);
        assert_eq!(is_still_allowed(&world, &own, used), expected, "{grants:?} {used:?}");
    };
    check(&[1], &[1], true);
    check(&[1, 2], &[1], true);
    check(&[2], &[1], false);
    check(&[], &[1], false);
}

/// The request did not carry the placeholder that the agent would need now.
#[test]
fn grant_with_placeholder_revokes_nothing() {
    let by_cgroup = evidence(CaptureMode::Transparent, Some("token"), None);
    for grants in [&[][..], &[1], &[1, 2]] {
        let world = |egress| world(grants, egress, Factors::BOTH);
        assert!(is_still_allowed(&world(Egress::Allow), &by_cgroup, &[]), "{grants:?}");
        assert!(!is_still_allowed(&world(Egress::Deny), &by_cgroup, &[]), "{grants:?}");
        assert!(
            !is_still_allowed(&world(Egress::Allow), &by_cgroup, &[1]),
            "{grants:?}: no factor is proven"
        );
    }
}
