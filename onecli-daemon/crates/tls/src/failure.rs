//! Readable reasons for a failed TLS connection to an upstream, with the next step. rustls prints many reasons in
//! debug format. The text also must not suggest a wrong certificate if the TLS versions differ.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible, SignatureScheme};

use super::verify::ChainError;

/// Signature algorithms with SHA-1, as encoded in an `AlgorithmIdentifier`: sha1WithRSAEncryption (RFC 8017 appendix
/// C), ecdsa-with-SHA1 (RFC 3279 section 2.2.3), id-dsa-with-sha1 (section 2.2.2).
const SHA1: [&[u8]; 3] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],
    &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x03],
];

const CERTIFICATE: &str =
    "the upstream needs a certificate valid for the host; add a private CA to [upstream] extra_ca_files";
const WEAK: &str = "the upstream's operator must obtain a certificate chain signed with SHA-256 or better";
const CLIENT_CERTIFICATE: &str =
    "OneCLI cannot present client certificates: ask the operator of the upstream for an API key or a token";
const VERSION: &str =
    "the upstream's operator must enable TLS 1.2 or 1.3; older versions are not secure (RFC 8996)";
const CIPHER: &str =
    "the upstream's operator must offer ECDHE with AES-GCM or ChaCha20-Poly1305, as RFC 9325 recommends";
const NOT_TLS: &str = "check the port: a plain HTTP service needs an http:// URL";
const AGAIN: &str = "try again; if the error persists, check the upstream";

/// The reason why TLS with an upstream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TlsFailure {
    message: String,
    hint: &'static str,
}

impl TlsFailure {
    fn new(message: impl Into<String>, hint: &'static str) -> TlsFailure {
        TlsFailure { message: message.into(), hint }
    }

    /// Returns the next step.
    pub fn hint(&self) -> &'static str {
        self.hint
    }

    /// The failure for a name that no certificate can have.
    pub(super) fn of_name(error: impl std::fmt::Display) -> TlsFailure {
        TlsFailure::new(error.to_string(), CERTIFICATE)
    }

    /// The failure for a chain of more than `most` certificates.
    pub(super) fn of_chain(most: usize) -> TlsFailure {
        TlsFailure::new(format!("it presents more than {most} certificates"), CERTIFICATE)
    }

    /// The failure for a handshake that ended in `error`.
    pub(super) fn of_handshake(error: &io::Error, requested: &CertificateRequested) -> TlsFailure {
        match tls_error(error) {
            Some(error) => TlsFailure::of(error, requested),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                TlsFailure::new("the upstream closed the connection during the handshake", AGAIN)
            }
            None => TlsFailure::new(error.to_string(), AGAIN),
        }
    }

    /// The failure for an alert after the handshake. In TLS 1.3 the client finishes before the server has checked its
    /// certificate (RFC 8446 section 4.4.2.4). `None` for other errors.
    pub(super) fn of_alert(error: &io::Error, requested: &CertificateRequested) -> Option<TlsFailure> {
        let error = tls_error(error)?;
        matches!(error, Error::AlertReceived(_)).then(|| TlsFailure::of(error, requested))
    }

    fn of(error: &Error, requested: &CertificateRequested) -> TlsFailure {
        match error {
            Error::InvalidCertificate(error) => of_certificate(error),
            Error::AlertReceived(alert) => of_alert(*alert, requested),
            Error::PeerIncompatible(reason) => of_incompatible(reason),
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
                TlsFailure::new("the upstream's answer is not TLS", NOT_TLS)
            }
            other => TlsFailure::new(other.to_string(), AGAIN),
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn of_certificate(error: &CertificateError) -> TlsFailure {
    let certificate = |message: &str| TlsFailure::new(message, CERTIFICATE);
    match error {
        CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: id, .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: id,
            ..
        } => {
            let is_sha1 = SHA1.iter().any(|oid| id.windows(oid.len()).any(|window| window == *oid));
            let with =
                if is_sha1 { "SHA-1, which is insecure" } else { "an algorithm that is not supported" };
            TlsFailure::new(format!("a certificate of its chain is signed with {with}"), WEAK)
        }
        CertificateError::Expired => certificate("its certificate has expired"),
        CertificateError::NotValidYet => certificate("its certificate is not valid yet"),
        CertificateError::NotValidForName => certificate("its certificate is not valid for this host"),
        CertificateError::UnknownIssuer => certificate("its certificate is signed by an unknown authority"),
        CertificateError::BadEncoding => certificate("its certificate is malformed"),
        CertificateError::BadSignature => certificate("a signature in its certificate or handshake is wrong"),
        CertificateError::UnhandledCriticalExtension => {
            certificate("its certificate has a critical extension that is not supported")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            certificate("its certificate is not a server certificate")
        }
        CertificateError::Other(other) if other.0.downcast_ref::<ChainError>().is_some() => {
            certificate(&other.0.to_string())
        }
        // rustls has readable texts for these, with names and dates.
        CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYetContext { .. }
        | CertificateError::NotValidForNameContext { .. } => certificate(&error.to_string()),
        other => certificate(&format!("its certificate is not valid: {other:?}")),
    }
}

fn of_alert(alert: AlertDescription, requested: &CertificateRequested) -> TlsFailure {
    let reject = |what: &str, hint| TlsFailure::new(format!("{what} (TLS alert {alert:?})"), hint);
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            reject("the upstream requires a client certificate", CLIENT_CERTIFICATE)
        }
        // Before TLS 1.3, a server that requires a client certificate and gets none sends one of these (RFC 5246
        // section 7.4.6).
        AlertDescription::HandshakeFailure
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
            if requested.any() =>
        {
            reject(
                "the upstream asked for a client certificate, then refused the handshake",
                CLIENT_CERTIFICATE,
            )
        }
        AlertDescription::ProtocolVersion => {
            reject("the upstream speaks neither TLS 1.2 nor TLS 1.3", VERSION)
        }
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            reject("the upstream has no cipher suite or key exchange in common with OneCLI", CIPHER)
        }
        AlertDescription::UnrecognisedName => {
            reject("the upstream does not serve this name", "check the name of the host")
        }
        _ => reject("the upstream ended the connection", AGAIN),
    }
}

fn of_incompatible(reason: &PeerIncompatible) -> TlsFailure {
    match reason {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            TlsFailure::new("the upstream speaks neither TLS 1.2 nor TLS 1.3", VERSION)
        }
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoEcPointFormatsInCommon => {
            TlsFailure::new("the upstream has no cipher suite or key exchange in common with OneCLI", CIPHER)
        }
        PeerIncompatible::ExtendedMasterSecretExtensionRequired => {
            TlsFailure::new("the upstream lacks the extended master secret (RFC 7627)", VERSION)
        }
        other => TlsFailure::new(format!("the upstream's TLS is not compatible: {other:?}"), AGAIN),
    }
}

/// Whether the server of one connection requested a client certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct CertificateRequested(Arc<AtomicBool>);

tokio::task_local! {
    /// The flag of the current handshake.
    static REQUESTED: CertificateRequested;
}

impl CertificateRequested {
    fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the flag if a server requests a certificate during `handshake`.
    pub(super) async fn observe<F: Future>(&self, handshake: F) -> F::Output {
        REQUESTED.scope(self.clone(), handshake).await
    }
}

/// Presents no certificate and notes that a server requested one. rustls resumes a session only with the resolver
/// that it began with, so connections share this one.
#[derive(Debug)]
pub(super) struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Outside a handshake there is no flag to set.
        let _ = REQUESTED.try_with(|requested| requested.0.store(true, Ordering::Relaxed));
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
