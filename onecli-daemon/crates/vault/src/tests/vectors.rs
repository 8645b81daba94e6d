//! Frozen: the results must never change. `vectors/format_2.py` computed them from the format's description, with
//! another implementation of every primitive.

use std::sync::atomic::{AtomicU8, Ordering};

use onecli_model::random::RandomError;
use serde_json::Value;
use uuid::Uuid;

use super::super::envelope::{self, Context};
use super::super::key::Key;
use super::super::keyring::{RootKey, SlotKey};
use super::super::slots::{Method, write_recovery_key};
use super::*;
use crate::binding::Binding;
use crate::keyring::Derived;
use onecli_model::Placeholder;
use onecli_model::Random;
use onecli_model::Sealed;
use onecli_model::Token;

/// Fills with a0, then a1, and so on.
#[derive(Debug)]
struct Counting(AtomicU8);

fn counting(first: u8) -> Counting {
    Counting(AtomicU8::new(first))
}

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        out.fill(self.0.fetch_add(1, Ordering::SeqCst));
        Ok(())
    }
}

fn key(first: u8) -> Key {
    let mut key = Key::default();
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = first + u8::try_from(at).unwrap();
    }
    key
}

/// The subkey for sessions, and the salt.
pub(super) fn session_key_and_random() -> (Key, impl Random) {
    (Derived::of(&key(64)).session().clone(), counting(0xa0))
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[test]
fn format_2_is_frozen() {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/format_2.json")).unwrap();
    let frozen = |name: &str| vectors[name].as_str().unwrap().to_owned();
    let unhex = |name: &str| Sealed(data_encoding::HEXLOWER.decode(frozen(name).as_bytes()).unwrap());
    let vault = Uuid::from_u128(0x4242);
    let (root, slot) = (RootKey::new(key(0)), SlotKey(key(32)));
    assert_eq!(root.id().to_string(), frozen("root_key_id"));
    assert_eq!(slot.id().to_string(), frozen("slot_key_id"));

    let secret = secret(0x1111, "key").id;
    let binding = {
        use sha2::Digest;
        Binding(sha2::Sha256::digest(b"where it may go").into())
    };
    let current = Context::Current { secret, version: 3, binding };
    let kept = Context::Kept { secret, version: 3 };
    let blob = Context::Blob { purpose: "ca.key" };
    let kek = |id| (root.id() == id).then(|| root.kek());
    for (name, context, plaintext) in [
        ("current", current, &b"frozen value 1"[..]),
        ("kept", kept, b"frozen value 1"),
        ("replaced", Context::Replaced { secret, version: 3, binding }, b"frozen value 1"),
        ("blob", blob, b"frozen blob"),
    ] {
        let sealed = envelope::seal(vault, root.kek(), context, plaintext, &counting(0xa0)).unwrap();
        assert_eq!(hex(&sealed.0), frozen(name), "{name}");
        assert_eq!(
            envelope::open(vault, kek, context, &unhex(name)).unwrap().as_slice(),
            plaintext,
            "{name}"
        );
    }
    let to = (root.kek(), kept);
    let rewrapped = envelope::rewrap(vault, kek, current, &unhex("current"), to, &counting(0xa1)).unwrap();
    assert_eq!(hex(&rewrapped.0), frozen("kept"));

    let method = Method::key(&slot);
    let row = method.slot(1, vault, &root, &slot, jiff::Timestamp::UNIX_EPOCH, &counting(0xa1)).unwrap();
    assert_eq!((row.method.as_str(), hex(&row.sealed.0)), (frozen("slot_method").as_str(), frozen("slot")));
    let (_, stretched) = Method::passphrase("correct horse battery staple", &counting(0xa0)).unwrap();
    assert_eq!(hex(stretched.0.as_ref()), frozen("passphrase_key"));
    assert_eq!(write_recovery_key(&slot).as_str(), frozen("recovery_key"));

    let derived = Derived::of(&key(64));
    let token = Token::parse(&format!("onecli_at_{}", "A".repeat(43))).unwrap();
    assert_eq!(hex(derived.token_mac(token.expose().as_bytes()).as_ref()), frozen("token_hash"));
    let bits = derived.placeholder_bits(agent(0x2222, "one").id, secret, 7);
    assert_eq!(Placeholder::from_bits(bits).as_str(), frozen("placeholder"));
    assert_eq!(hex(derived.audit().as_ref()), frozen("audit"));
}
