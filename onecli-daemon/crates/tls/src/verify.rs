//! Requirements for an upstream's certificate in addition to rustls' own checks.
//!
//! - An intermediate with a key usage must be allowed to sign certificates (RFC 5280 section 6.1.4 (n)).
//! - A configured root's path length limits the intermediates below it (`anchor`).
//! - An authentic stapled OCSP response must not have the status "revoked" or "unknown".
//! - A certificate that requires a staple must come with one whose status is "good" (TLS feature extension, RFC
//!   7633).
//!
//! Any other staple counts as none. The server that presents the certificate can omit the staple, so refusing an
//! invalid one would not protect. Servers also staple errors while their responder is down.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_cert::der::Decode;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::anchor::PathLimits;
use super::ocsp::{self, CheckedCertificate, Status, Unusable};
use super::provider;

/// The TLS feature extension, 1.3.6.1.5.5.7.1.24.
const TLS_FEATURE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
/// The feature `status_request` (RFC 6066 section 8).
const STATUS_REQUEST: u16 = 5;

/// The reason why a certificate that rustls accepts is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChainError {
    /// The staple has the status "revoked".
    #[error("the certificate is revoked according to the stapled OCSP response of its issuer")]
    Revoked,
    /// The issuer does not know the certificate.
    #[error("the issuer does not know the certificate: the status in its stapled OCSP response is 'unknown'")]
    Unknown,
    /// The certificate requires a staple.
    #[error("the certificate requires a stapled OCSP response (RFC 7633), {0}")]
    Unstapled(String),
    /// The key usage of an intermediate does not include signing.
    #[error(
        "an intermediate certificate must not sign certificates: its key usage lacks keyCertSign (RFC 5280)"
    )]
    NotASigner,
    /// The root allows fewer intermediates.
    #[error(
        "the chain has {found} intermediate certificates, and the path length of its root allows {limit} \
         (RFC 5280 section 4.2.1.9)"
    )]
    TooLong {
        /// The number of intermediates that are not self-issued.
        found: usize,
        /// The root's `pathLenConstraint`.
        limit: u32,
    },
    /// A certificate cannot be parsed.
    #[error("cannot parse a certificate of the chain: {0}")]
    Unreadable(String),
}

impl From<ChainError> for Error {
    fn from(error: ChainError) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// Verifies upstreams. Every connection to an upstream uses it: agents' connections and the daemon's own.
pub(super) struct UpstreamVerifier {
    inner: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    limits: PathLimits,
}

impl fmt::Debug for UpstreamVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamVerifier(..)")
    }
}

impl UpstreamVerifier {
    /// Returns a verifier that trusts `roots`, within the `limits` of some of them.
    ///
    /// # Errors
    /// rustls' reason why these roots cannot be used.
    pub(super) fn new(
        roots: RootCertStore,
        limits: PathLimits,
    ) -> Result<UpstreamVerifier, rustls::client::VerifierBuilderError> {
        let roots = Arc::new(roots);
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build()?;
        Ok(UpstreamVerifier { inner, roots, limits })
    }
}

impl ServerCertVerifier for UpstreamVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Name, validity and path first: their errors name the reason best.
        let verified =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        check(end_entity, intermediates, (&self.roots.roots, &self.limits), ocsp_response, now)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Searches for a path whose intermediates may sign, and checks the staple with the issuer on that path.
fn check(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    (roots, limits): (&[TrustAnchor<'_>], &PathLimits),
    staple: &[u8],
    now: UnixTime,
) -> Result<(), ChainError> {
    let unreadable = |error: &dyn fmt::Display| ChainError::Unreadable(error.to_string());
    let certificate = EndEntityCert::try_from(end_entity).map_err(|error| unreadable(&error))?;
    let rejection = Cell::new(None);
    let may_sign = |path: &VerifiedPath<'_>| {
        let signs = path.intermediate_certificates().try_for_each(|certificate| signs(&certificate.der()));
        signs.and_then(|()| limits.check(path)).map_err(|why| {
            rejection.set(Some(why));
            // The error value is irrelevant: webpki gives this path up and tries others.
            webpki::Error::UnknownIssuer
        })
    };
    let algorithms = provider().signature_verification_algorithms.all;
    let path = certificate
        .verify_for_usage(
            algorithms,
            roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&may_sign),
        )
        .map_err(|error| rejection.take().unwrap_or_else(|| unreadable(&error)))?;
    let issuer = match path.intermediate_certificates().next() {
        Some(issuer) => webpki::anchor_from_trusted_cert(&issuer.der()).map(|anchor| anchor.to_owned()),
        None => Ok(path.anchor().to_owned()),
    };
    let issuer = issuer.map_err(|error| unreadable(&error))?;
    let subject =
        CheckedCertificate { serial: certificate.serial(), issuer_name: certificate.issuer(), issuer };
    let status = (!staple.is_empty()).then(|| ocsp::status(staple, &subject, now));
    let chain = path.intermediate_certificates().map(webpki::Cert::der);
    judge(status, std::iter::once(end_entity.clone()).chain(chain).any(|der| wants_staple(&der)))
}

fn judge(status: Option<Result<Status, Unusable>>, must_staple: bool) -> Result<(), ChainError> {
    match status {
        Some(Ok(Status::Revoked)) => Err(ChainError::Revoked),
        Some(Ok(Status::Unknown)) => Err(ChainError::Unknown),
        Some(Err(why)) if must_staple => {
            Err(ChainError::Unstapled(format!("and this one is not usable: {why}")))
        }
        None if must_staple => Err(ChainError::Unstapled("and none came".to_owned())),
        Some(Err(why)) => {
            tracing::debug!(%why, "ignored an unusable stapled OCSP response");
            Ok(())
        }
        Some(Ok(Status::Good)) | None => Ok(()),
    }
}

/// Checks that this intermediate may sign certificates. One without a key usage may (RFC 5280 section 4.2.1.3).
fn signs(der: &CertificateDer<'_>) -> Result<(), ChainError> {
    let certificate = parsed(der)?;
    let usage = certificate.key_usage().map_err(|error| ChainError::Unreadable(error.to_string()))?;
    if usage.is_none_or(|usage| usage.value.key_cert_sign()) { Ok(()) } else { Err(ChainError::NotASigner) }
}

/// Returns whether the certificate requires a staple. A certificate that cannot be parsed counts as requiring one.
fn wants_staple(der: &CertificateDer<'_>) -> bool {
    let Ok(certificate) = parsed(der) else { return true };
    let is_feature = |oid: &x509_parser::oid_registry::Oid<'_>| {
        oid.iter().is_some_and(|arcs| arcs.eq(TLS_FEATURE.iter().copied()))
    };
    certificate.extensions().iter().filter(|extension| is_feature(&extension.oid)).any(|extension| {
        // A list of numbers (RFC 7633 section 3).
        <Vec<u16> as Decode>::from_der(extension.value)
            .map_or(true, |features| features.contains(&STATUS_REQUEST))
    })
}

pub(super) fn parsed<'d>(der: &'d CertificateDer<'_>) -> Result<X509Certificate<'d>, ChainError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|error| ChainError::Unreadable(error.to_string()))
}
