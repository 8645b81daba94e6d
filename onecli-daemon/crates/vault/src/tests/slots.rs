//! Key slots, and the sources of their keys.

use jiff::Timestamp;
use onecli_store::{SlotRow, VaultChange};
use zeroize::Zeroizing;

use super::*;
use std::sync::Arc;

const PASSPHRASE: &str = "correct horse battery staple";

fn text(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// A file that only this user may read.
fn private(host: &Host, name: &str, content: &[u8]) -> std::path::PathBuf {
    let path = host.dir.join(name);
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, content).unwrap();
    chmod(&path, 0o400);
    path
}

impl Host {
    async fn add(&self, vault: &Vault, new: NewSlot) -> (SlotInfo, Option<Zeroizing<String>>) {
        vault.add_slot(&self.store, new, Timestamp::UNIX_EPOCH).await.unwrap()
    }

    async fn unlock_from(&self, source: &KeySource) -> Result<Vault, VaultError> {
        Vault::unlock(&self.store, source, Arc::new(OsRandom)).await
    }
}

#[tokio::test]
async fn passphrase_and_recovery_key_open_the_same_vault() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let secret = sealed(&vault, 1, "correct horse battery");
    let (by_passphrase, _) = host.add(&vault, NewSlot::Passphrase(text(PASSPHRASE))).await;
    let (by_recovery, recovery) = host.add(&vault, NewSlot::Recovery).await;
    assert_eq!((by_passphrase.number, by_passphrase.kind), (2, "passphrase"));
    assert_eq!((by_recovery.number, by_recovery.kind), (3, "recovery"));
    let recovery = recovery.unwrap();
    std::fs::remove_file(host.key_file()).unwrap();

    let open_with = async |content: &[u8]| {
        let file = private(&host, "passphrase", content);
        host.unlock_from(&host.source.clone().with_passphrase_file(&file)?).await
    };
    let shouted = recovery.to_uppercase().replace('-', " ");
    for content in [format!("{PASSPHRASE}\n"), recovery.to_string(), shouted] {
        let opened = open_with(content.as_bytes()).await.unwrap();
        assert_eq!(open(&opened, secret.clone()).unwrap().value().expose(), b"correct horse battery");
        assert_eq!(opened.key_id(), vault.key_id());
    }
    let mut typo = recovery.to_string();
    let last = if typo.pop() == Some('a') { 'b' } else { 'a' };
    typo.push(last);
    for content in ["correct horse battery stable", &typo] {
        let error = open_with(content.as_bytes()).await.unwrap_err();
        assert!(error.is_key_problem());
        assert!(error.to_string().contains("opens no key slot"), "{error}");
        assert!(error.to_string().contains("the passphrase of slot 2"), "{error}");
        assert!(!error.to_string().contains(content), "{error}");
    }
    for content in [&b""[..], b"\n", &[0xff; 20], &[b'a'; 2000]] {
        assert!(open_with(content).await.unwrap_err().is_key_problem());
    }

    // With this key, add a new key file.
    let file = private(&host, "passphrase", PASSPHRASE.as_bytes());
    let vault = host.unlock_from(&host.source.clone().with_passphrase_file(&file).unwrap()).await.unwrap();
    let (slot, _) = host.add(&vault, NewSlot::KeyFile).await;
    assert_eq!((slot.number, slot.kind), (4, "key"));
    assert!(open(&host.unlock().await.unwrap(), secret).is_ok());
    let again = vault.add_slot(&host.store, NewSlot::KeyFile, Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert!(again.to_string().contains("there is a key file"), "{again}");
}

#[tokio::test]
async fn credentials_come_first_and_the_environment_last() {
    let host = Host::new().await;
    let credentials = host.dir.join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("onecli.key"), [7; 32]).unwrap();
    chmod(&credentials.join("onecli.key"), 0o440);
    let source = host.source.clone().with_credentials(credentials.clone());
    let vault = host.unlock_from(&source).await.unwrap();
    assert!(!host.key_file().exists(), "nothing is created if a key is supplied");
    assert_eq!(vault.opened.at, credentials.join("onecli.key").display().to_string());

    chmod(&credentials.join("onecli.key"), 0o444);
    assert!(host.unlock_from(&source).await.unwrap_err().to_string().contains("mode 0444"));
    std::fs::remove_file(credentials.join("onecli.key")).unwrap();
    let error = host.unlock_from(&source).await.unwrap_err();
    assert!(matches!(error, VaultError::KeyMissing { .. }), "{error}");

    let variable = |text: &str| host.source.clone().with_variable("ONECLI_ROOT_KEY", text);
    let key = data_encoding::BASE64.encode(&[7; 32]);
    let by_variable = host.unlock_from(&variable(&key).unwrap()).await.unwrap();
    assert_eq!(by_variable.opened.at, "the variable ONECLI_ROOT_KEY");
    for bad in ["", "no base64!", &data_encoding::BASE64.encode(&[7; 31])] {
        assert!(variable(bad).unwrap_err().to_string().contains("32 bytes in base64"));
    }
    assert!(!format!("{:?}", variable(&key).unwrap()).contains(&key));

    // After a credential that opens nothing, the key file is still tried.
    host.add(&by_variable, NewSlot::KeyFile).await;
    std::fs::write(credentials.join("onecli.key"), [8; 32]).unwrap();
    chmod(&credentials.join("onecli.key"), 0o400);
    assert_eq!(host.unlock_from(&source).await.unwrap().opened.at, host.key_file().display().to_string());
}

#[tokio::test]
async fn a_store_can_begin_with_a_passphrase() {
    let host = Host::new().await;
    let credentials = host.dir.join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("onecli.passphrase"), PASSPHRASE).unwrap();
    let source = host.source.clone().with_credentials(credentials);
    let vault = host.unlock_from(&source).await.unwrap();
    assert!(!host.key_file().exists());
    assert_eq!(host.unlock_from(&source).await.unwrap().key_id(), vault.key_id());
    assert_eq!(vault.key_status(&host.store).await.unwrap().slots[0].kind, "passphrase");
}

#[tokio::test]
async fn passphrase_files_readable_by_others_are_refused() {
    let host = Host::new().await;
    let file = private(&host, "passphrase", PASSPHRASE.as_bytes());
    chmod(&file, 0o644);
    assert!(host.source.clone().with_passphrase_file(&file).is_err());
    let link = host.dir.join("link");
    symlink(&file, &link).unwrap();
    assert!(host.source.clone().with_passphrase_file(&link).is_err());
    assert!(host.source.clone().with_passphrase_file(&host.dir.join("none")).is_err());
}

#[tokio::test]
async fn last_usable_slot_is_not_removed() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let refused = async |number| vault.remove_slot(&host.store, number).await.unwrap_err().to_string();
    assert!(refused(1).await.contains("could not start again without key slot 1"));
    assert!(refused(9).await.contains("no key slot 9"));
    let (_, recovery) = host.add(&vault, NewSlot::Recovery).await;
    assert!(recovery.is_some());
    assert!(
        refused(1).await.contains("could not start again"),
        "no operator types a recovery key at each start"
    );
    assert_eq!(vault.remove_slot(&host.store, 2).await.unwrap().kind, "recovery");
    assert_eq!(vault.key_status(&host.store).await.unwrap().slots.len(), 1);
    let short = NewSlot::Passphrase(text("too short"));
    assert!(vault.add_slot(&host.store, short, Timestamp::UNIX_EPOCH).await.is_err());
    let own = host.source.load().unwrap().unwrap();
    let twice = vault.add_slot(&host.store, NewSlot::Key(own.0), Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert!(twice.to_string().contains("has a slot already"), "{twice}");
}

/// Changes of a slot that an attacker with write access to the database may try.
#[tokio::test]
async fn altered_slot_does_not_open() {
    let check = async |spoil: &dyn Fn(&mut SlotRow), hint: &str| {
        let host = Host::new().await;
        host.unlock().await.unwrap();
        let mut slot = host.store.list_slots().await.unwrap().remove(0);
        let remove = VaultChange { remove_slots: vec![(slot.number, slot.root)], ..VaultChange::default() };
        host.store.change_vault(&remove).await.unwrap();
        spoil(&mut slot);
        let add = VaultChange { add_slots: vec![slot], ..VaultChange::default() };
        host.store.change_vault(&add).await.unwrap();
        let error = host.unlock().await.unwrap_err();
        assert!(error.is_key_problem(), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
    };
    check(&|slot| slot.sealed.0[40] ^= 1, "slot 1 was damaged or edited").await;
    check(&|slot| slot.sealed.0.truncate(40), "slot 1 was damaged").await;
    check(&|slot| slot.sealed.0[0] = 3, "slot 1 was damaged").await;
    check(&|slot| slot.root[0] ^= 1, "slot 1 was damaged").await;
    check(&|slot| slot.method.push(' '), "slot 1 was damaged").await;
    check(&|slot| slot.method = "{}".to_owned(), "slot 1 was damaged").await;
    let greedy = r#"{"kind":"passphrase","memory_kib":4294967295,"passes":1,"lanes":1,"salt":"AAAA"}"#;
    check(&|slot| slot.method = greedy.to_owned(), "opens with the passphrase of slot 1").await;
}
