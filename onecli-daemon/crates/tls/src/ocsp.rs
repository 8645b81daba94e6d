//! Stapled OCSP responses (RFC 6960): the status of a certificate, once the signature is verified.

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::Digest as _;
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Tag};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoRef};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus,
    SingleResponse,
};

use super::provider;

/// The largest accepted response, in bytes. Usual ones have 0.5 to 3 KiB.
const MOST_BYTES: usize = 32 * 1024;
/// The number of certificates in a response that are tried as the responder's. Usual responses have one.
const MOST_RESPONDERS: usize = 4;
/// The tolerated clock difference between the responder and this host, in seconds.
const SKEW: u64 = 5 * 60;
/// The lifetime of a response without `nextUpdate`, in seconds.
const LIFETIME: u64 = 24 * 60 * 60;

/// `id-pkix-ocsp-basic` (RFC 6960 section 4.2.1).
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// SHA-1 and SHA-256 identify the issuer in a response (RFC 5019 section 2.1.1, RFC 9654 section 3.2.1).
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// `id-kp-OCSPSigning`, 1.3.6.1.5.5.7.3.9 (RFC 6960 section 4.2.2.2), as the contents of its DER encoding.
const OCSP_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09];

/// The status of a certificate according to its issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The certificate is not revoked, and the response is current.
    Good,
    /// The certificate is revoked. An old response counts too, because revocation is final.
    Revoked,
    /// The issuer does not know the certificate, and the response is current.
    Unknown,
}

/// The reason why a response proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it is malformed")]
    Malformed,
    #[error("it is not a successful response")]
    Unsuccessful,
    #[error("it is about another certificate")]
    Elsewhere,
    #[error("neither the issuer nor a responder of the issuer signed it")]
    Unsigned,
    #[error("it is not valid at this time")]
    Outdated,
}

/// The certificate in question.
pub(super) struct CheckedCertificate<'c> {
    /// The serial number, in two's complement.
    pub(super) serial: &'c [u8],
    /// The issuer's name, without the outer tag.
    pub(super) issuer_name: &'c [u8],
    /// The issuer itself.
    pub(super) issuer: TrustAnchor<'c>,
}

/// Returns the status of a certificate in a response.
///
/// # Errors
/// [`Unusable`]: the response proves nothing, neither good nor bad.
pub(super) fn status(
    response: &[u8],
    subject: &CheckedCertificate<'_>,
    now: UnixTime,
) -> Result<Status, Unusable> {
    let basic = basic(response)?;
    let issuer_key = webpki::spki_for_anchor(&subject.issuer);
    let about = |single: &&SingleResponse| is_about(&single.cert_id, subject, issuer_key.as_ref());
    let single = basic.tbs_response_data.responses.iter().find(about).ok_or(Unusable::Elsewhere)?;
    if !is_signed(&basic, subject, issuer_key.as_ref(), now) {
        return Err(Unusable::Unsigned);
    }
    let (from, until) = validity(single);
    if from > now.as_secs() + SKEW {
        return Err(Unusable::Outdated);
    }
    match single.cert_status {
        CertStatus::Revoked(_) => Ok(Status::Revoked),
        _ if until + SKEW < now.as_secs() => Err(Unusable::Outdated),
        CertStatus::Good(_) => Ok(Status::Good),
        CertStatus::Unknown(_) => Ok(Status::Unknown),
    }
}

fn basic(response: &[u8]) -> Result<BasicOcspResponse, Unusable> {
    if response.len() > MOST_BYTES {
        return Err(Unusable::Malformed);
    }
    let response = OcspResponse::from_der(response).map_err(|_| Unusable::Malformed)?;
    let bytes =
        response.response_bytes.filter(|_| response.response_status == OcspResponseStatus::Successful);
    let bytes = bytes.filter(|bytes| bytes.response_type == BASIC).ok_or(Unusable::Unsuccessful)?;
    BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(|_| Unusable::Malformed)
}

/// Returns the validity period in seconds since the epoch.
fn validity(single: &SingleResponse) -> (u64, u64) {
    let seconds = |time: &OcspGeneralizedTime| time.0.to_unix_duration().as_secs();
    let from = seconds(&single.this_update);
    (from, single.next_update.as_ref().map_or(from + LIFETIME, seconds))
}

fn is_about(id: &CertId, subject: &CheckedCertificate<'_>, issuer_key: &[u8]) -> bool {
    let hash = |bytes: &[u8]| match id.hash_algorithm.oid {
        SHA1 => Some(sha1::Sha1::digest(bytes).to_vec()),
        SHA256 => Some(sha2::Sha256::digest(bytes).to_vec()),
        _ => None,
    };
    let name = AnyRef::new(Tag::Sequence, subject.issuer_name).and_then(|name| name.to_der());
    let key = SubjectPublicKeyInfoRef::from_der(issuer_key);
    let (Ok(name), Ok(key)) = (name, key) else { return false };
    trimmed(id.serial_number.as_bytes()) == trimmed(subject.serial)
        && hash(&name).is_some_and(|name| name == id.issuer_name_hash.as_bytes())
        && hash(key.subject_public_key.raw_bytes()).is_some_and(|key| key == id.issuer_key_hash.as_bytes())
}

/// Removes leading zeros.
fn trimmed(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

/// Returns whether the issuer signed the response, or a responder whose certificate the issuer signed for that
/// purpose (RFC 6960 section 4.2.2.2).
fn is_signed(
    basic: &BasicOcspResponse,
    subject: &CheckedCertificate<'_>,
    issuer_key: &[u8],
    now: UnixTime,
) -> bool {
    let Ok(message) = basic.tbs_response_data.to_der() else { return false };
    let signature = basic.signature.raw_bytes();
    let by = |key: &[u8]| verifies(key, &basic.signature_algorithm, &message, signature) == Some(true);
    if by(issuer_key) {
        return true;
    }
    let responders = basic.certs.iter().flatten().take(MOST_RESPONDERS);
    responders.filter_map(|certificate| certificate.to_der().ok()).any(|der| {
        responder_key(&CertificateDer::from(der), &subject.issuer, now).is_some_and(|key| by(&key))
    })
}

/// Returns the key of a responder that the issuer itself authorized.
fn responder_key(der: &CertificateDer<'_>, issuer: &TrustAnchor<'_>, now: UnixTime) -> Option<Vec<u8>> {
    let certificate = EndEntityCert::try_from(der).ok()?;
    let algorithms = provider().signature_verification_algorithms.all;
    let usage = KeyUsage::required(OCSP_SIGNING);
    let anchors = std::slice::from_ref(issuer);
    certificate.verify_for_usage(algorithms, anchors, &[], now, usage, None, None).ok()?;
    Some(certificate.subject_public_key_info().as_ref().to_vec())
}

fn verifies(
    key: &[u8],
    algorithm: &AlgorithmIdentifierOwned,
    message: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let key = SubjectPublicKeyInfoRef::from_der(key).ok()?;
    let (of_key, of_signature) = (key.algorithm.to_der().ok()?, algorithm.to_der().ok()?);
    let (of_key, of_signature) = (AnyRef::from_der(&of_key).ok()?, AnyRef::from_der(&of_signature).ok()?);
    let suits = provider().signature_verification_algorithms.all.iter().filter(|known| {
        known.public_key_alg_id().as_ref() == of_key.value()
            && known.signature_alg_id().as_ref() == of_signature.value()
    });
    let key = key.subject_public_key.raw_bytes();
    Some(suits.into_iter().any(|known| known.verify_signature(key, message, signature).is_ok()))
}
