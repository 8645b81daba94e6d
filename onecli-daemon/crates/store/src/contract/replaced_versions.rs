//! Replaced values: which ones are retained, and until when.

use super::*;
use crate::ReplacedVersion;

/// This version of a secret as a retained version.
pub(crate) fn replaced_version(secret: &Secret, sealed: u8, until: Timestamp) -> ReplacedVersion {
    ReplacedVersion { secret: Secret { sealed: Sealed(vec![sealed]), ..secret.clone() }, until }
}

/// All stored versions, with their sealed values.
async fn versions(store: &dyn Store) -> Vec<(u32, Vec<u8>)> {
    let rows = store.list_versions(None, 100).await.unwrap();
    rows.into_iter().map(|row| (row.secret.version, row.secret.sealed.0)).collect()
}

pub(crate) async fn one_replaced_version_is_kept(store: &dyn Store) {
    let first = secret(1, "key");
    store.add_secret(&first).await.unwrap();
    assert_eq!(store.load().await.unwrap().replaced_versions, []);

    // The retained version has its old definition, while the secret's definition changes.
    let mut second = Secret { class: Some(ValueClass::ISSUED), env: None, ..version(&first, 2, 2) };
    second.target.host = "api.example.org".parse().unwrap();
    second.target.paths = vec!["/v2".parse().unwrap()];
    second.target.allow_plaintext = true;
    second.placement = Placement::bearer();
    let of_first = replaced_version(&first, 101, at(100));
    store.add_version(&second, Some(&of_first)).await.unwrap();
    let state = store.load().await.unwrap();
    assert_eq!((&state.secrets[0], &state.replaced_versions), (&second, &vec![of_first.clone()]));
    let rows = store.list_versions(None, 100).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (&row.secret, row.current)).collect();
    assert_eq!(rows, [(&of_first.secret, false), (&second, true)]);

    // Only the previous version can be retained.
    let third = version(&second, 3, 3);
    let error = store.add_version(&third, Some(&of_first)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { column: "retained version", .. }), "{error}");
    assert_eq!(versions(store).await, [(1, vec![101]), (2, vec![2])], "nothing has changed");
    let of_second = replaced_version(&second, 102, at(200));
    store.add_version(&third, Some(&of_second)).await.unwrap();
    assert_eq!(versions(store).await, [(2, vec![102]), (3, vec![3])], "the one before is erased");

    store.add_version(&version(&third, 4, 4), None).await.unwrap();
    assert_eq!(
        (store.load().await.unwrap().replaced_versions, versions(store).await),
        (vec![], vec![(4, vec![4])])
    );

    let of_third = replaced_version(&version(&third, 4, 4), 104, at(300));
    store.add_version(&version(&third, 5, 5), Some(&of_third)).await.unwrap();
    store.remove_secret(first.id).await.unwrap();
    assert_eq!((store.load().await.unwrap().replaced_versions, versions(store).await), (vec![], vec![]));
}

pub(crate) async fn replaced_versions_are_erased_in_time(store: &dyn Store) {
    let untils = async || -> Vec<Timestamp> {
        store.load().await.unwrap().replaced_versions.into_iter().map(|replaced| replaced.until).collect()
    };
    for (number, until) in [(1, 100), (2, 200), (3, 900)] {
        let key = secret(number, &format!("key{number}"));
        store.add_secret(&key).await.unwrap();
        store.add_version(&version(&key, 2, 2), Some(&replaced_version(&key, 9, at(until)))).await.unwrap();
    }
    assert_eq!(store.prune_replaced(at(99), at(900)).await.unwrap(), 0);
    assert_eq!(store.prune_replaced(at(100), at(900)).await.unwrap(), 1);
    assert_eq!(untils().await, [at(200), at(900)]);
    // The clock was set back, or the configuration now retains values for less time.
    assert_eq!(store.prune_replaced(at(50), at(150)).await.unwrap(), 0);
    assert_eq!(untils().await, [at(150), at(150)]);
    // Values are no longer retained.
    assert_eq!(store.prune_replaced(at(60), at(60)).await.unwrap(), 2);
    assert_eq!(untils().await, []);
    assert_eq!(store.load().await.unwrap().secrets.len(), 3, "current values stay");
}
