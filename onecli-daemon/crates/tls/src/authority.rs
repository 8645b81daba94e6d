//! The certificate authority that agents trust.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use onecli_model::Host;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The validity of the authority's own certificate: ten years.
const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// The validity of a leaf: 30 days, well under the 398 days that clients accept.
const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 30);
/// The time by which the validity of certificates begins in the past, for clients whose clock is behind.
const BACKDATE: SignedDuration = SignedDuration::from_hours(24);

/// The reason why the authority cannot be created or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A certificate could not be created.
    #[error("cannot create a certificate for {what}: {source}")]
    Generate {
        /// The purpose of the certificate.
        what: String,
        /// rcgen's reason.
        source: rcgen::Error,
    },
    /// The stored authority cannot be parsed.
    #[error("cannot parse the stored CA certificate or key: {0}")]
    Load(String),
    /// Certificate and key of a stored authority do not match.
    #[error("{0}: it was changed outside of OneCLI; restore a backup")]
    Changed(&'static str),
    /// The date is later than a certificate can express.
    #[error("the host's clock shows a time that a certificate cannot express")]
    Clock,
}

/// The stored parts of an authority: the certificate in plain text, and certificate and key together, to be sealed by
/// the vault ([`CaMaterial::to_seal`]). The plain certificate is for people; a modified one is refused.
pub struct CaMaterial {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8 DER.
    pub key_der: Zeroizing<Vec<u8>>,
}

/// The first byte of the sealed content, since format 2. Format 1 was the key alone, whose DER begins with 0x30.
const FORMAT: u8 = 2;

impl CaMaterial {
    /// Returns the content to seal, so that the certificate cannot be exchanged: format, length of the certificate (4
    /// bytes, big-endian), certificate, key.
    ///
    /// # Errors
    /// [`CaError::Load`] for a certificate of 4 GiB.
    pub fn to_seal(&self) -> Result<Zeroizing<Vec<u8>>, CaError> {
        let certificate = self.certificate_pem.as_bytes();
        let length = u32::try_from(certificate.len()).map_err(|error| CaError::Load(error.to_string()))?;
        let mut all = Zeroizing::new(Vec::with_capacity(5 + certificate.len() + self.key_der.len()));
        all.push(FORMAT);
        all.extend_from_slice(&length.to_be_bytes());
        all.extend_from_slice(certificate);
        all.extend_from_slice(&self.key_der);
        Ok(all)
    }

    /// Parses sealed content and compares it with the plain certificate. The boolean is true for format 1, which must
    /// be sealed again. [`CertAuthority::load`] checks the rest.
    ///
    /// # Errors
    /// [`CaError::Changed`] if the certificate differs from the sealed one, [`CaError::Load`].
    pub fn unsealed(certificate_pem: String, sealed: &[u8]) -> Result<(CaMaterial, bool), CaError> {
        let Some((&FORMAT, rest)) = sealed.split_first() else {
            let key_der = Zeroizing::new(sealed.to_vec());
            return Ok((CaMaterial { certificate_pem, key_der }, true));
        };
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (certificate, key) = rest.split_at_checked(length).ok_or_else(cut)?;
        if certificate != certificate_pem.as_bytes() {
            return Err(CaError::Changed(
                "the stored CA certificate differs from the one that was sealed with its key",
            ));
        }
        Ok((CaMaterial { certificate_pem, key_der: Zeroizing::new(key.to_vec()) }, false))
    }
}

fn cut() -> CaError {
    CaError::Load("the sealed CA data is truncated".to_owned())
}

/// Parses a text that must consist of exactly one certificate. Any additional content would be trusted as well.
fn only_certificate(pem: &str) -> Result<CertificateDer<'static>, CaError> {
    let one = pem.trim_end().strip_prefix("-----BEGIN CERTIFICATE-----").and_then(|rest| {
        let body = rest.strip_suffix("-----END CERTIFICATE-----")?;
        (!body.contains('-')).then_some(())
    });
    one.ok_or(CaError::Changed("the stored CA certificate is not one certificate in PEM"))?;
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| CaError::Load(error.to_string()))
}

impl fmt::Debug for CaMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaMaterial(..)")
    }
}

/// The facts stated in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The SHA-256 of its DER form, in hex.
    pub sha256: String,
    /// Not valid before.
    pub not_before: Timestamp,
    /// Not valid after.
    pub not_after: Timestamp,
}

impl CertificateFacts {
    /// Reads a certificate in PEM.
    ///
    /// # Errors
    /// [`CaError::Load`].
    pub fn of(pem: &str) -> Result<CertificateFacts, CaError> {
        let bad = |error: &dyn fmt::Display| CaError::Load(error.to_string());
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(&e))?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|e| bad(&e))?;
        let validity = certificate.validity();
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| CaError::Clock);
        Ok(CertificateFacts {
            sha256: data_encoding::HEXLOWER.encode(&Sha256::digest(&der)),
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
        })
    }
}

/// The certificate authority: signs leaves for the inspected hosts.
pub struct CertAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    /// One key for all leaves. They all exist only in this process, and agents never see the key.
    leaf_key: KeyPair,
}

impl fmt::Debug for CertAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertAuthority(..)")
    }
}

/// A leaf certificate with its key, and the time at which it should be replaced.
pub(super) struct Leaf {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) renew_at: Timestamp,
}

impl CertAuthority {
    /// Generates an authority. `label` distinguishes hosts in a trust store.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn generate(label: &str, now: Timestamp) -> Result<CaMaterial, CaError> {
        let failed = |source| CaError::Generate { what: "the authority".to_owned(), source };
        let key = new_key().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("OneCLI local CA ({label})"));
        params.distinguished_name.push(DnType::OrganizationName, "OneCLI");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_LIFETIME)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(CaMaterial { certificate_pem: certificate.pem(), key_der: Zeroizing::new(key.serialize_der()) })
    }

    /// Loads an authority that [`CertAuthority::generate`] created.
    ///
    /// # Errors
    /// [`CaError::Load`]; [`CaError::Changed`] if the certificate is invalid or belongs to another key.
    pub fn load(material: &CaMaterial) -> Result<CertAuthority, CaError> {
        let bad = |error: &dyn fmt::Display| CaError::Load(error.to_string());
        let certificate = only_certificate(&material.certificate_pem)?;
        let key = PrivatePkcs8KeyDer::from(material.key_der.as_slice());
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|e| bad(&e))?;
        let (rest, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|e| bad(&e))?;
        if !rest.is_empty() || parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::Changed("the stored CA certificate does not match the stored CA key"));
        }
        Ok(CertAuthority {
            issuer: Issuer::from_ca_cert_der(&certificate, key).map_err(|e| bad(&e))?,
            certificate_pem: material.certificate_pem.clone(),
            leaf_key: new_key()
                .map_err(|source| CaError::Generate { what: "the leaves".to_owned(), source })?,
        })
    }

    /// Returns the authority's certificate in PEM, which agents trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs a leaf for one host, or for several names of one host.
    pub(super) fn leaf(&self, hosts: &[Host], now: Timestamp) -> Result<Leaf, CaError> {
        let first = hosts.first().map_or_else(String::new, ToString::to_string);
        let failed = |source| CaError::Generate { what: first.clone(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // X.520 limits a common name to 64 characters. Clients check the subject alternative names.
        let common_name: String = first.chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let name = |host: &Host| {
            Ok(match host {
                Host::Name(name) => SanType::DnsName(name.as_str().try_into().map_err(failed)?),
                Host::V4(ip) => SanType::IpAddress((*ip).into()),
                Host::V6(ip) => SanType::IpAddress((*ip).into()),
            })
        };
        params.subject_alt_names = hosts.iter().map(name).collect::<Result<_, CaError>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_LIFETIME)?;
        let certificate = params.signed_by(&self.leaf_key, &self.issuer).map_err(failed)?;
        Ok(Leaf {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()).into(),
            renew_at: now.saturating_add(LEAF_LIFETIME / 2).map_err(|_| CaError::Clock)?,
        })
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    lifetime: SignedDuration,
) -> Result<(), CaError> {
    let date =
        |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| CaError::Clock);
    params.not_before = date(now.checked_sub(BACKDATE).map_err(|_| CaError::Clock)?)?;
    params.not_after = date(now.checked_add(lifetime).map_err(|_| CaError::Clock)?)?;
    Ok(())
}
