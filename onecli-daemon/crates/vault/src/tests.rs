//! Tests of sealing and opening, frozen vectors, and values that must not open.

mod credentials;
mod rekey;
mod sessions;
mod slots;
mod speed;
mod vectors;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use onecli_model::{Placement, Secret};
use onecli_store::testing::{agent, secret};
use onecli_store::{KeyStore, SqliteStore, Store, StoreError};
use onecli_sys::OsRandom;
use onecli_sys::PrivateDir;
use onecli_tests::panicking::{panic_text, unwrap_text};

use super::*;
use crate::keyring::RootKey;
use onecli_model::Random;
use onecli_model::SecretValue;
use onecli_policy::Grant;
use std::sync::Arc;

struct Host {
    store: SqliteStore,
    source: KeySource,
    dir: PrivateDir,
    _temp: tempfile::TempDir,
}

impl Host {
    async fn new() -> Host {
        let (temp, dir) = PrivateDir::temporary();
        let store = SqliteStore::open(&dir.join("onecli.db")).await.unwrap();
        Host { store, source: KeySource::file(&dir), dir, _temp: temp }
    }

    async fn unlock(&self) -> Result<Vault, VaultError> {
        self.unlock_with(Arc::new(OsRandom)).await
    }

    async fn unlock_with(&self, random: Arc<dyn Random>) -> Result<Vault, VaultError> {
        Vault::unlock(&self.store, &self.source, random).await
    }

    fn key_file(&self) -> std::path::PathBuf {
        self.dir.join("root.key")
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec()).unwrap()
}

fn sealed(vault: &Vault, number: u128, text: &str) -> Secret {
    let secret = secret(number, "key");
    Secret { sealed: vault.seal(&secret, &value(text)).unwrap(), ..secret }
}

fn open(vault: &Vault, secret: Secret) -> Result<Credential, VaultError> {
    vault.open(&Grant::for_test(Arc::new(agent(1, "one")), Arc::new(secret)))
}

#[tokio::test]
async fn a_granted_secret_opens() {
    let vault = Host::new().await.unlock().await.unwrap();
    let secret = sealed(&vault, 1, "correct horse battery");
    assert!(!secret.sealed.0.windows(5).any(|window| window == b"horse"));
    let credential = open(&vault, secret.clone()).unwrap();
    assert_eq!(credential.value().expose(), b"correct horse battery");
    assert_eq!((credential.name(), credential.version()), (&secret.name, secret.version));
    assert_eq!(credential.placement(), &secret.placement);
    assert_ne!(sealed(&vault, 1, "correct horse battery").sealed, secret.sealed, "nonces are random");
}

/// Changes that an attacker with write access to the database may try.
#[tokio::test]
async fn altered_value_does_not_open() {
    let vault = Host::new().await.unlock().await.unwrap();
    let good = sealed(&vault, 1, "correct horse battery");

    for at in 0..good.sealed.0.len() * 8 {
        let mut bad = good.clone();
        bad.sealed.0[at / 8] ^= 1 << (at % 8);
        let error = open(&vault, bad).unwrap_err();
        let expected = match at / 8 {
            0 => matches!(error, VaultError::UnknownFormat { .. }),
            1..9 => matches!(error, VaultError::UnknownKey { .. }),
            _ => matches!(error, VaultError::Damaged { .. }),
        };
        assert!(expected, "bit {at}: {error}");
    }
    for len in 0..good.sealed.0.len() {
        let mut bad = good.clone();
        bad.sealed.0.truncate(len);
        assert!(matches!(open(&vault, bad), Err(VaultError::Damaged { .. })), "{len} bytes");
    }
    let mut longer = good.clone();
    longer.sealed.0.push(0);
    assert!(matches!(open(&vault, longer), Err(VaultError::Damaged { .. })), "one byte more");

    let other = sealed(&vault, 2, "another credential");
    let swapped = Secret { sealed: other.sealed.clone(), ..good.clone() };
    assert!(matches!(open(&vault, swapped), Err(VaultError::Damaged { .. })), "of another row");
    let version = Secret { version: 2, ..good.clone() };
    assert!(matches!(open(&vault, version), Err(VaultError::Damaged { .. })), "of another version");
    let blob = vault.seal_blob("ca", b"correct horse battery").unwrap();
    let blob = Secret { sealed: blob, ..good.clone() };
    assert!(matches!(open(&vault, blob), Err(VaultError::Damaged { .. })), "of another kind");

    let stranger = Host::new().await.unlock().await.unwrap();
    let error = open(&stranger, good.clone()).unwrap_err();
    let key = vault.key_id();
    assert!(matches!(error, VaultError::UnknownKey { key: found, .. } if found == key), "{error}");
    assert!(open(&vault, good).is_ok());
}

/// An attacker edits the database so that the value goes to another host, or to another location in a request.
#[tokio::test]
async fn value_does_not_open_for_another_destination() {
    let vault = Host::new().await.unlock().await.unwrap();
    let good = sealed(&vault, 1, "correct horse battery");
    let edits: [fn(&mut Secret); 8] = [
        |s| s.target.host = "**.evil.example".parse().unwrap(),
        |s| s.target.port = 80,
        |s| s.target.methods = onecli_model::MethodSet::default(),
        |s| s.target.paths.push("/**".parse().unwrap()),
        |s| s.target.allow_plaintext = true,
        |s| s.placement = onecli_model::Placement::query("q").unwrap(),
        |s| s.name = "harmless".parse().unwrap(),
        |s| s.env = Some("OTHER_KEY".to_owned()),
    ];
    for (number, edit) in edits.iter().enumerate() {
        let mut edited = good.clone();
        edit(&mut edited);
        let error = open(&vault, edited.clone()).unwrap_err();
        assert!(matches!(error, VaultError::Damaged { .. }), "edit {number}: {error}");
        assert!(error.to_string().contains("edited in the database"), "{error}");
        // The same change through the daemon.
        edited.sealed = vault.rebind(&good, &edited).unwrap();
        assert_eq!(open(&vault, edited.clone()).unwrap().value().expose(), b"correct horse battery");
        assert!(
            open(&vault, Secret { sealed: edited.sealed, ..good.clone() }).is_err(),
            "and for that destination only"
        );
    }
    let disabled = Secret { enabled: false, ..good };
    assert!(open(&vault, disabled).is_ok(), "properties that do not affect the destination may change");
}

/// A replaced version is stored in a form that is not used, even if its row is put back.
#[tokio::test]
async fn restored_older_version_is_reported() {
    let vault = Host::new().await.unlock().await.unwrap();
    let first = sealed(&vault, 1, "correct horse battery");
    let kept = Secret { sealed: vault.retire(&first).unwrap(), ..first.clone() };
    assert_eq!(kept.sealed.0.len(), first.sealed.0.len());
    assert_eq!(kept.sealed.0[121..], first.sealed.0[121..], "the body stays");
    let error = open(&vault, kept.clone()).unwrap_err();
    assert!(matches!(error, VaultError::RolledBack { .. }), "{error}");
    assert!(error.to_string().contains("put the old one back"), "{error}");
    assert!(vault.retire(&kept).is_err() && vault.rebind(&kept, &first).is_err());
}

/// A replaced value opens only with the definition that it had when it was replaced.
#[tokio::test]
async fn replaced_value_stays_bound_to_its_destination() {
    let vault = Host::new().await.unlock().await.unwrap();
    let first = sealed(&vault, 1, "correct horse battery");
    let kept = Secret { sealed: vault.retire(&first).unwrap(), ..first.clone() };
    assert_eq!(vault.open_replaced(&kept).unwrap().expose(), b"correct horse battery");
    let changes: [fn(&mut Secret); 5] = [
        |s| s.version += 1,
        |s| s.id = secret(2, "key").id,
        |s| s.target.host = "evil.test".parse().unwrap(),
        |s| s.target.paths = vec!["/**".parse().unwrap()],
        |s| s.placement = Placement::query("key").unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut edited = kept.clone();
        change(&mut edited);
        assert!(vault.open_replaced(&edited).is_err(), "change {number}");
    }
    assert!(vault.open_replaced(&first).is_err(), "a current value is not a replaced one");
}

#[tokio::test]
async fn blobs_open_for_their_purpose_only() {
    let vault = Host::new().await.unlock().await.unwrap();
    let blob = vault.seal_blob("ca.key", b"-----BEGIN\nPRIVATE KEY").unwrap();
    assert_eq!(vault.open_blob("ca.key", &blob).unwrap().as_slice(), b"-----BEGIN\nPRIVATE KEY");
    assert!(matches!(vault.open_blob("ca.key2", &blob), Err(VaultError::Damaged { .. })));
    assert_eq!(vault.open_blob("", &vault.seal_blob("", b"").unwrap()).unwrap().as_slice(), b"");
}

#[tokio::test]
async fn an_unknown_format_is_refused() {
    let vault = Host::new().await.unlock().await.unwrap();
    for format in [0, 1, 3, 255] {
        let mut later = sealed(&vault, 1, "correct horse battery");
        later.sealed.0[0] = format;
        let error = open(&vault, later).unwrap_err();
        assert!(
            matches!(error, VaultError::UnknownFormat { format: found, .. } if found == format),
            "{error}"
        );
    }
}

#[tokio::test]
async fn placeholders_differ_by_agent_secret_and_generation() {
    let vault = Host::new().await.unlock().await.unwrap();
    let (a, b) = (agent(1, "a").id, agent(2, "b").id);
    let (k, l) = (secret(1, "k").id, secret(2, "l").id);
    let all = [(a, k, 1), (b, k, 1), (a, l, 1), (a, k, 2)].map(|(a, s, g)| vault.placeholder(a, s, g));
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(vault.placeholder(a, k, 1), all[0]);
}

#[tokio::test]
async fn first_start_creates_a_private_key_file() {
    let host = Host::new().await;
    std::fs::write(host.dir.path().join("root.key.new"), "left by a crash").unwrap();
    let vault = host.unlock().await.unwrap();
    let found = std::fs::metadata(host.key_file()).unwrap();
    assert_eq!((found.mode() & 0o7777, found.len()), (0o400, 32));
    assert!(!host.dir.path().join("root.key.new").exists());
    assert_eq!(host.unlock().await.unwrap().key_id(), vault.key_id(), "and the next start uses it");
}

#[tokio::test]
async fn key_file_is_reused_after_crash_before_store_change() {
    let host = Host::new().await;
    let root = host.source.create(&OsRandom).unwrap();
    let vault = host.unlock().await.unwrap();
    let slots = vault.key_status(&host.store).await.unwrap().slots;
    assert_eq!(slots[0].key_id, Some(root.id().to_string()));
}

#[tokio::test]
async fn existing_key_is_never_replaced() {
    let host = Host::new().await;
    host.source.create(&OsRandom).unwrap();
    let before = std::fs::read(host.key_file()).unwrap();
    assert!(host.source.create(&OsRandom).is_err());
    assert_eq!(std::fs::read(host.key_file()).unwrap(), before);
}

#[tokio::test]
async fn no_key_is_created_if_values_exist() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    std::fs::remove_file(host.key_file()).unwrap();
    let error = host.unlock().await.unwrap_err();
    assert!(error.is_key_problem());
    let wanted = vault.key_status(&host.store).await.unwrap().slots[0].key_id.clone().unwrap();
    assert!(error.to_string().contains(&format!("opens with the key {wanted}")), "{error}");

    let host = Host::new().await;
    host.store.add_secret(&secret(1, "key")).await.unwrap();
    assert!(matches!(host.unlock().await, Err(VaultError::KeyMissing { .. })));
    assert!(!host.key_file().exists());
    host.source.create(&OsRandom).unwrap();
    assert!(matches!(host.unlock().await, Err(VaultError::Meta { .. })), "a key that no vault id confirms");
}

#[tokio::test]
async fn a_wrong_key_is_told_with_both_ids() {
    let host = Host::new().await;
    host.unlock().await.unwrap();
    let wanted = host.source.load().unwrap().unwrap().id();
    std::fs::remove_file(host.key_file()).unwrap();
    let found = host.source.create(&OsRandom).unwrap().id();
    let error = host.unlock().await.unwrap_err();
    assert!(error.is_key_problem());
    let path = host.key_file();
    assert_eq!(
        error.to_string(),
        format!(
            "the key at {} has the id {found}, but the store opens with the key {wanted}",
            path.display()
        )
    );
}

#[tokio::test]
async fn unsafe_key_files_are_refused() {
    let check = async |spoil: &dyn Fn(&Path), hint: &str| {
        let host = Host::new().await;
        host.unlock().await.unwrap();
        spoil(&host.key_file());
        let error = host.unlock().await.unwrap_err();
        assert!(error.is_key_problem());
        assert!(error.to_string().contains(hint), "{error}");
    };
    check(&|path| chmod(path, 0o440), "fix: chmod 0400").await;
    check(&|path| chmod(path, 0o600), "fix: chmod 0400").await;
    let resize = |path: &Path, len: usize| {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, vec![7; len]).unwrap();
        chmod(path, 0o400);
    };
    check(&|path| resize(path, 31), "has 31 bytes").await;
    check(&|path| resize(path, 33), "has 33 bytes").await;
    check(&|path| resize(path, 0), "has 0 bytes").await;
    let link = |path: &Path| {
        let aside = path.with_extension("aside");
        std::fs::rename(path, &aside).unwrap();
        symlink(&aside, path).unwrap();
    };
    check(&link, "not a regular file").await;
    let directory = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    };
    check(&directory, "not a regular file").await;
    let pipe = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    };
    check(&pipe, "not a regular file").await;
    if nix::unistd::Uid::effective().is_root() {
        check(&|path| std::os::unix::fs::chown(path, Some(12345), None).unwrap(), "belongs to uid 12345")
            .await;
    }
}

/// Invariant 1, for panics: a careless `unwrap` or `assert` on the vault's types prints no value.
#[tokio::test]
async fn panic_prints_no_value() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let text = "correct horse battery";
    let secret = sealed(&vault, 1, text);
    let root = RootKey::new(zeroize::Zeroizing::new([0x5a; 32]));
    let slot = keyring::SlotKey(zeroize::Zeroizing::new([0x5a; 32]));
    let fetched = sources::Fetched { value: value(text), origin: ValueOrigin::of("file") };
    let expiring =
        sources::cache::fetch_cache::Expiring { value: value(text), usable_for: std::time::Duration::ZERO };
    let cached = sources::cache::fetch_cache::Cached { value: Arc::new(value(text)), stale: false };
    let panics = [
        ("a value", unwrap_text(value(text))),
        ("a credential", unwrap_text(open(&vault, secret.clone()).unwrap())),
        ("a secret", unwrap_text(secret.clone())),
        ("an obtained value", unwrap_text(fetched)),
        ("a fetched value", unwrap_text(expiring)),
        ("a cached value", unwrap_text(cached)),
        ("a root key", unwrap_text(root)),
        ("a slot's key", unwrap_text(slot)),
        ("a passphrase", unwrap_text(NewSlot::Passphrase(zeroize::Zeroizing::new(text.to_owned())))),
        (
            "a value in scope",
            panic_text(|| {
                let held = (value(text), open(&vault, secret.clone()).unwrap());
                assert!(held.0.expose().is_empty(), "{held:?}");
            }),
        ),
    ];
    for (what, shown) in panics {
        for hidden in ["horse", "0x5a", "5a5a", "90, 90", "99, 111, 114"] {
            assert!(!shown.contains(hidden), "{what}: {shown}");
        }
        assert!(!shown.is_empty(), "{what}");
    }
}

/// Invariant 1, for `Debug` and error texts.
#[tokio::test]
async fn debug_and_errors_print_no_value_or_key() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let root = host.source.load().unwrap().unwrap();
    let text = "correct horse battery";
    let secret = sealed(&vault, 1, text);
    let credential = open(&vault, secret.clone()).unwrap();
    let grant = Grant::for_test(Arc::new(agent(1, "one")), Arc::new(secret.clone()));
    let error = open(&vault, Secret { version: 9, ..secret.clone() }).unwrap_err();
    let raw = host.source.load().unwrap().unwrap();
    let method = super::slots::Method::key(&raw);
    let passphrase = super::slots::Opener::Text(zeroize::Zeroizing::new(text.to_owned())).key();
    let rows = host.store.list_slots().await.unwrap();
    let material = onecli_tls::CertAuthority::generate("a host", jiff::Timestamp::UNIX_EPOCH).unwrap();
    let keys = vault.key_status(&host.store).await.unwrap();
    let others = format!("{method:?} {passphrase:?} {rows:?} {material:?} {keys:?}");
    let key_in_material = data_encoding::HEXLOWER.encode(&material.key_der[40..44]);
    assert!(
        !others.contains(&key_in_material) && !others.contains(&format!("{:?}", &material.key_der[40..44]))
    );
    let store_error = StoreError::NotFound { what: "secret", id: secret.id.to_string() };
    let fetched = sources::Fetched { value: value(text), origin: ValueOrigin::of("file") };
    let expiring =
        sources::cache::fetch_cache::Expiring { value: value(text), usable_for: std::time::Duration::ZERO };
    let cached = sources::cache::fetch_cache::Cached { value: value(text), stale: false };
    let others = format!("{others} {fetched:?} {expiring:?} {cached:?}");
    let printed = format!(
        "{others} {vault:?} {root:?} {secret:?} {credential:?} {grant:?} {error:?} {error} {store_error:?} {:?} {:?}",
        value(text),
        host.source
    );
    let bytes = std::fs::read(host.key_file()).unwrap();
    for hidden in [text.to_owned(), format!("{:?}", &bytes[..4]), data_encoding::HEXLOWER.encode(&bytes[..4])]
    {
        assert!(!printed.contains(&hidden), "{hidden} in {printed}");
    }
    assert!(!printed.contains("horse"));
    assert_eq!(format!("{credential:?}"), "Credential(..)");
}
