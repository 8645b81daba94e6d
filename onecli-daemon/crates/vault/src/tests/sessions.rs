//! Sealed sessions: their agents, and the grants that open them.

use onecli_model::Host as HostName;

use super::super::envelope;
use super::*;
use onecli_policy::Grant;
use std::sync::Arc;
use uuid::Uuid;

fn grant(agent_number: u128, generation: u32, secret_number: u128) -> Grant {
    let agent = onecli_model::Agent { generation, ..agent(agent_number, "one") };
    Grant::for_test(Arc::new(agent), Arc::new(secret(secret_number, "key")))
}

fn session(grants: &[Grant], value: &str) -> Session {
    let scope = SessionScope::Host("api.test".to_owned());
    Session::issued(grants, scope, b"sid", value.as_bytes()).unwrap()
}

fn host(text: &str) -> HostName {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_session_opens_with_every_grant_that_it_is_bound_to() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let both = [grant(1, 3, 10), grant(1, 3, 11)];
    let stand_in = vault.seal_session(&session(&both, "value 1")).unwrap();
    let opened = vault.open_session(stand_in.as_bytes()).unwrap();
    assert_eq!((opened.name(), opened.kind()), (&b"sid"[..], SessionKind::Cookie));
    assert_eq!(opened.expose(&both), Some(&b"value 1"[..]));
    let more = [grant(1, 3, 12), grant(1, 3, 11), grant(1, 3, 10)];
    assert_eq!(opened.expose(&more), Some(&b"value 1"[..]));
    for fewer in [
        vec![],
        vec![grant(1, 3, 10)],
        vec![grant(1, 3, 10), grant(1, 3, 12)],
        vec![grant(2, 3, 10), grant(2, 3, 11)],
        vec![grant(1, 4, 10), grant(1, 4, 11)],
    ] {
        assert_eq!(opened.expose(&fewer), None, "{fewer:?}");
    }
    assert!(Session::issued(&[], SessionScope::Secret, b"x", b"y").is_none());
}

#[tokio::test]
async fn changed_stand_in_does_not_open() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let grants = [grant(1, 1, 10)];
    let stand_in = vault.seal_session(&session(&grants, "value 1")).unwrap();
    let sealed =
        data_encoding::BASE64URL_NOPAD.decode(&stand_in.as_bytes()[Session::PREFIX.len()..]).unwrap();
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let text = format!("{}{}", Session::PREFIX, data_encoding::BASE64URL_NOPAD.encode(&changed));
        assert!(vault.open_session(text.as_bytes()).is_none(), "byte {at}");
    }
    for end in 0..stand_in.len() {
        assert!(vault.open_session(&stand_in.as_bytes()[..end]).is_none(), "{end} bytes");
    }
    let other = Host::new().await;
    assert!(other.unlock().await.unwrap().open_session(stand_in.as_bytes()).is_none(), "another vault");
}

/// Non-interference: the agent learns the length of the value.
#[tokio::test]
async fn the_length_of_a_stand_in_depends_on_lengths_alone() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let length = |agent, secret, value: &str| {
        vault.seal_session(&session(&[grant(agent, 1, secret)], value)).unwrap().len()
    };
    assert_eq!(length(1, 10, "aaaaaaaaaaaaaaaa"), length(u128::MAX, 999, "\u{0}\u{7f}ZZZ%3D%3D\"\"\"\"\""));
    let two = [0, 1].map(|_| vault.seal_session(&session(&[grant(1, 1, 10)], "same")).unwrap());
    assert_ne!(two[0], two[1], "each one is different");
}

#[tokio::test]
async fn sessions_outlive_a_restart_and_a_new_root_key() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let grants = [grant(1, 1, 10)];
    let stand_in = vault.seal_session(&session(&grants, "value 1")).unwrap();
    let begun = vault.begin_rekey(&host.store, &[], false, jiff::Timestamp::UNIX_EPOCH).await;
    assert!(begun.is_ok());
    let opens = |vault: &Vault| {
        let opened = vault.open_session(stand_in.as_bytes()).unwrap();
        assert_eq!(opened.expose(&grants), Some(&b"value 1"[..]));
    };
    opens(&vault);
    drop(vault);
    opens(&host.unlock().await.unwrap());
}

#[test]
fn cookie_scope_matches_that_of_clients() {
    let check = |scope: SessionScope, to: &str, expected: bool| {
        assert_eq!(scope.covers(&host(to)), expected, "{scope:?} {to}");
    };
    let own = || SessionScope::Host("api.example.com".to_owned());
    let domain = || SessionScope::Domain("example.com".to_owned());
    check(own(), "api.example.com", true);
    check(own(), "example.com", false);
    check(own(), "x.api.example.com", false);
    check(domain(), "example.com", true);
    check(domain(), "a.b.example.com", true);
    check(domain(), "badexample.com", false);
    check(domain(), "example.com.evil.test", false);
    check(SessionScope::Secret, "anywhere.test", true);
}

/// Frozen: `vectors/format_2.py` computed it. Agents hold stand-ins across upgrades.
#[test]
fn session_format_is_frozen() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../vectors/format_2.json")).unwrap();
    let frozen = vectors["session"].as_str().unwrap();
    let (key, random) = super::vectors::session_key_and_random();
    let sealed = envelope::seal_session(Uuid::from_u128(0x4242), &key, b"frozen session", &random).unwrap();
    assert_eq!(data_encoding::HEXLOWER.encode(&sealed), frozen);
    let opened = envelope::open_session(Uuid::from_u128(0x4242), &key, &sealed).unwrap();
    assert_eq!(opened.as_slice(), b"frozen session");
}
