//! A trust store as Java reads it, made of a PEM bundle.
//!
//! The format is JKS, which every Java since 1.2 reads. Java reads it without a password, and then ignores the digest
//! at its end. So it can replace a JVM's own `cacerts`.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha1::{Digest as _, Sha1};

/// The password of every JVM's own `cacerts`.
const PASSWORD: &str = "changeit";

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
/// Tag of an entry that is a certificate to trust.
const TRUSTED: u32 = 2;

/// Returns the certificates of `pem` in a JKS key store. Blocks that are not valid base64 are left out.
pub fn java_trust_store(pem: &str) -> Vec<u8> {
    let certificates: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
    let mut store = Vec::new();
    let word = |store: &mut Vec<u8>, value: usize| {
        store.extend(u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
    };
    let text = |store: &mut Vec<u8>, text: &str| {
        store.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        store.extend(text.as_bytes());
    };
    store.extend(MAGIC.to_be_bytes());
    store.extend(VERSION.to_be_bytes());
    word(&mut store, certificates.len());
    for (number, certificate) in certificates.iter().enumerate() {
        store.extend(TRUSTED.to_be_bytes());
        text(&mut store, &format!("onecli-{number}"));
        // The time at which it was added, ms: unused.
        store.extend(0u64.to_be_bytes());
        text(&mut store, "X.509");
        word(&mut store, certificate.len());
        store.extend_from_slice(certificate);
    }
    let mut digest = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update(b"Mighty Aphrodite");
    digest.update(&store);
    let digest = digest.finalize();
    store.extend_from_slice(&digest);
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_contains_only_valid_certificates() {
        let pem = "junk\n-----BEGIN CERTIFICATE-----\nAAEC\nAwQ=\n-----END CERTIFICATE-----\n\
                   -----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n\
                   -----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n";
        let store = java_trust_store(pem);
        assert_eq!(store[..12], [0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 1]);
        // Tag, alias, time, type, length, certificate, digest.
        assert_eq!(store.len(), 12 + 4 + (2 + 8) + 8 + (2 + 5) + 4 + 5 + 20);
        assert_eq!(store[store.len() - 25..store.len() - 20], [0, 1, 2, 3, 4]);
        assert_eq!(java_trust_store("").len(), 12 + 20);
    }
}
