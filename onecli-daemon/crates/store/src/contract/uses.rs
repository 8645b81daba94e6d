//! The last use of each secret, as audit rows report it.

use super::{at, audit_row, secret};
use crate::{AuditRow, Store};

pub(crate) async fn uses_of_secrets_are_remembered(store: &dyn Store) {
    let (one, other) = (secret(1, "one"), secret(2, "other"));
    store.add_secret(&one).await.unwrap();
    store.add_secret(&other).await.unwrap();
    assert!(store.load().await.unwrap().last_uses.is_empty());
    let row = |seq: u64, event: &str, verdict: &str, secret: &str| AuditRow {
        event: event.to_owned(),
        verdict: Some(verdict.to_owned()),
        json: serde_json::json!({ "seq": seq, "secret": secret }).to_string(),
        ..audit_row(seq, "agent")
    };
    let rows = [
        row(1, "decision", "inject", "one"),
        row(2, "decision", "inject", "one@1,other@7"),
        row(3, "decision", "deny", "one"),
        row(4, "outcome", "inject", "other"),
        row(5, "decision", "inject", "unknown"),
    ];
    store.insert_audit(&rows).await.unwrap();
    let uses = store.load().await.unwrap().last_uses;
    assert_eq!((uses.len(), uses.get(&one.id), uses.get(&other.id)), (2, Some(&at(1002)), Some(&at(1002))));
    // Rows of another host may arrive late.
    store.insert_audit(&[AuditRow { time: at(5), ..row(6, "decision", "inject", "one") }]).await.unwrap();
    store.insert_audit(&[row(7, "decision", "inject", "other")]).await.unwrap();
    store.remove_secret(one.id).await.unwrap();
    let uses = store.load().await.unwrap().last_uses;
    assert_eq!((uses.len(), uses.get(&other.id)), (1, Some(&at(1007))), "a removed secret has no last use");
}
