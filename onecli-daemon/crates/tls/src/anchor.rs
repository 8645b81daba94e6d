//! Checks of configured roots: their extensions.
//!
//! RFC 5280 section 6.1 leaves the extensions of a trust anchor to local policy, and webpki reads only its name
//! constraints. Here, a configured root must be allowed to sign certificates, and its path length applies.

use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::VerifiedPath;

use super::verify::{ChainError, parsed};

/// The reason why a certificate cannot be a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnfitRoot {
    /// The key usage does not include signing.
    #[error(
        "the key usage of '{0}' lacks keyCertSign, so it must not sign certificates (RFC 5280 section 4.2.1.3); name the \
         CA that signs the servers' certificates, or reissue this one"
    )]
    NotASigner(String),
    /// The certificate cannot be parsed.
    #[error("a certificate cannot be read: {0}")]
    Unreadable(String),
}

/// Roots that limit the number of intermediates below them. Empty for most configurations.
#[derive(Debug, Default)]
pub(super) struct PathLimits(Vec<(TrustAnchor<'static>, u32)>);

impl PathLimits {
    /// Reads a root of the configuration.
    ///
    /// # Errors
    /// [`UnfitRoot`].
    pub(super) fn read(&mut self, root: &CertificateDer<'_>) -> Result<(), UnfitRoot> {
        let unreadable = |error: &dyn std::fmt::Display| UnfitRoot::Unreadable(error.to_string());
        let certificate = parsed(root).map_err(|error| unreadable(&error))?;
        let usage = certificate.key_usage().map_err(|error| unreadable(&error))?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(UnfitRoot::NotASigner(certificate.subject().to_string()));
        }
        let constraints = certificate.basic_constraints().map_err(|error| unreadable(&error))?;
        if let Some(limit) = constraints.and_then(|found| found.value.path_len_constraint) {
            let anchor = webpki::anchor_from_trusted_cert(root).map_err(|error| unreadable(&error))?;
            self.0.push((anchor.to_owned(), limit));
        }
        Ok(())
    }

    /// Checks that the root of this path allows its intermediates. Self-issued ones do not count (RFC 5280 section
    /// 4.2.1.9).
    ///
    /// # Errors
    /// [`ChainError::TooLong`], or [`ChainError::Unreadable`].
    pub(super) fn check(&self, path: &VerifiedPath<'_>) -> Result<(), ChainError> {
        let root = path.anchor();
        let is_it = |own: &&(TrustAnchor<'static>, u32)| {
            own.0.subject == root.subject && own.0.subject_public_key_info == root.subject_public_key_info
        };
        let Some(limit) = self.0.iter().filter(is_it).map(|(_, limit)| *limit).min() else { return Ok(()) };
        let mut found = 0;
        for certificate in path.intermediate_certificates() {
            let der = certificate.der();
            let certificate = parsed(&der)?;
            found += usize::from(certificate.subject().as_raw() != certificate.issuer().as_raw());
        }
        if u32::try_from(found).is_ok_and(|found| found <= limit) {
            Ok(())
        } else {
            Err(ChainError::TooLong { found, limit })
        }
    }
}
