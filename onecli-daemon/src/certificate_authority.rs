//! The life cycle of the host's certificate authority: generated once, stored sealed, published to agents in a
//! bundle, and replaced in two steps.
//!
//! A new authority is first *next*: it is in the bundle, so that clients that read the bundle from then on trust both
//! authorities, but it signs nothing. Then it becomes the signing authority, and the previous one leaves the bundle.
//! In between, agents with an old bundle are served as before.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use onecli_api::{Ca, CaCertificate};
use onecli_config::Config;
use onecli_model::{Clock, Sealed};
use onecli_store::{Store, VaultChange};
use onecli_tls::{CaError, CaMaterial, CertAuthority, CertificateFacts, UpstreamTls};
use onecli_vault::Vault;
use parking_lot::Mutex;

use crate::process::AppError;

/// The signing authority: the meta entry of its certificate and the purpose of its sealed key.
const CURRENT: BlobNames = BlobNames { certificate: "ca.certificate", key: "ca.key" };
/// The next signing authority.
const NEXT: BlobNames = BlobNames { certificate: "ca.next.certificate", key: "ca.next.key" };
/// The meta entry with the creation time of the next authority.
const NEXT_SINCE: &str = "ca.next.since";
/// The file name of the bundle, beside the admin socket: a directory that every agent can read.
const BUNDLE: &str = "ca-bundle.pem";

struct BlobNames {
    certificate: &'static str,
    key: &'static str,
}

/// The authority with its storage.
pub(super) struct Authority {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    /// The system's roots, which form the beginning of the bundle.
    roots_pem: String,
    bundle: PathBuf,
    certificates: Mutex<Certificates>,
}

#[derive(Clone)]
struct Certificates {
    current: String,
    next: Option<(String, Timestamp)>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Authority {
    /// Opens the stored authority or generates one, and writes the bundle that agents are configured with.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        clock: Arc<dyn Clock>,
        config: &Config,
        roots: &UpstreamTls,
    ) -> Result<Authority, AppError> {
        // The stored authority is verified before it is published as trusted.
        let current = if let Some(material) = read(store.as_ref(), &vault, &CURRENT).await? {
            material.certificate_pem
        } else {
            let (certificate, change) = generate(&vault, clock.as_ref(), &CURRENT)?;
            store.change_vault(&change).await?;
            tracing::info!("created the certificate authority for this host's agents");
            certificate
        };
        let next = match read(store.as_ref(), &vault, &NEXT).await? {
            Some(material) => {
                let since = store.get_meta(NEXT_SINCE).await?.and_then(|text| text.parse().ok());
                Some((material.certificate_pem, since.unwrap_or(Timestamp::UNIX_EPOCH)))
            }
            None => None,
        };
        let directory = config.listen.admin_socket.parent().unwrap_or(Path::new("/"));
        let authority = Authority {
            store,
            vault,
            clock,
            roots_pem: roots.system_roots_pem().to_owned(),
            bundle: directory.join(BUNDLE),
            certificates: Mutex::new(Certificates { current, next }),
        };
        authority.write_bundle()?;
        Ok(authority)
    }

    fn certificates(&self) -> Certificates {
        self.certificates.lock().clone()
    }

    /// Returns the signing authority with its key.
    pub(super) async fn load(&self) -> Result<CertAuthority, AppError> {
        self.read_again(&CURRENT, &self.certificates().current).await.map(|(_, authority)| authority)
    }

    /// Loads an authority that is already in the bundle, with its key.
    async fn read_again(
        &self,
        names: &BlobNames,
        trusted: &str,
    ) -> Result<(CaMaterial, CertAuthority), AppError> {
        let material =
            read(self.store.as_ref(), &self.vault, names).await?.ok_or_else(|| absent(names.key))?;
        if material.certificate_pem != trusted {
            return Err(
                CaError::Changed("the stored CA certificate differs from the one that agents trust").into()
            );
        }
        let authority = CertAuthority::load(&material)?;
        Ok((material, authority))
    }

    /// Returns the authorities that agents trust.
    pub(super) fn view(&self) -> Ca {
        let stored = self.certificates();
        let mut certificates = Vec::new();
        let mut tell = |role: &str, pem: &str, since| {
            let Ok(facts) = CertificateFacts::of(pem) else { return };
            certificates.push(CaCertificate {
                role: role.to_owned(),
                sha256: facts.sha256,
                not_before: facts.not_before,
                not_after: facts.not_after,
                since,
            });
        };
        tell("signing", &stored.current, None);
        if let Some((pem, since)) = &stored.next {
            tell("next", pem, Some(*since));
        }
        Ca { pem: stored.pem(), bundle: self.bundle.clone(), certificates }
    }

    /// Generates the next authority. No other process changes the store meanwhile.
    pub(super) async fn rotate(&self) -> Result<(), AppError> {
        let mut stored = self.certificates();
        if let Some((_, since)) = stored.next {
            return Err(AppError::CaRotation(format!(
                "a next authority already exists, created {since}: 'onecli ca rotate --finish' makes it the signing one"
            )));
        }
        let (certificate, mut change) = generate(&self.vault, self.clock.as_ref(), &NEXT)?;
        let since = self.clock.now();
        change.set.push((NEXT_SINCE, since.to_string()));
        self.store.change_vault(&change).await?;
        stored.next = Some((certificate, since));
        self.set_certificates(stored);
        self.write_bundle()
    }

    /// Makes the next authority the signing one and returns it.
    pub(super) async fn finish(&self) -> Result<CertAuthority, AppError> {
        let Some((certificate, _)) = self.certificates().next else {
            return Err(AppError::CaRotation(
                "there is no next authority: run 'onecli ca rotate' first".to_owned(),
            ));
        };
        let (material, loaded) = self.read_again(&NEXT, &certificate).await?;
        let change = VaultChange {
            set: vec![(CURRENT.certificate, certificate.clone())],
            unset: vec![NEXT.certificate, NEXT_SINCE],
            put_blobs: vec![seal(&self.vault, &CURRENT, &material)?],
            remove_blobs: vec![NEXT.key],
            ..VaultChange::default()
        };
        self.store.change_vault(&change).await?;
        self.set_certificates(Certificates { current: certificate, next: None });
        self.write_bundle()?;
        Ok(loaded)
    }

    fn set_certificates(&self, stored: Certificates) {
        *self.certificates.lock() = stored;
    }

    /// Writes the bundle that agents are configured with: the system's roots and the daemon's authorities.
    fn write_bundle(&self) -> Result<(), AppError> {
        let directory = self.bundle.parent().unwrap_or(Path::new("/"));
        let bundle = format!("{}{}", self.roots_pem, self.certificates().pem());
        write_public(directory, &self.bundle, bundle.as_bytes())
            .map_err(|source| AppError::Bundle { path: self.bundle.display().to_string(), source })
    }
}

impl Certificates {
    fn pem(&self) -> String {
        let next = self.next.as_ref().map(|(pem, _)| pem.as_str()).unwrap_or_default();
        format!("{}{next}", self.current)
    }
}

/// Reads an authority and verifies that it is complete; `None` if there is none. If an earlier version sealed only
/// the key, it is sealed again.
async fn read(store: &dyn Store, vault: &Vault, names: &BlobNames) -> Result<Option<CaMaterial>, AppError> {
    let (certificate_pem, sealed) =
        match (store.get_meta(names.certificate).await?, store.get_blob(names.key).await?) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(sealed)) => (certificate, sealed),
            (None, Some(_)) => return Err(absent(names.certificate).into()),
            (Some(_), None) => return Err(absent(names.key).into()),
        };
    let opened = vault.open_blob(names.key, &sealed).map_err(|error| AppError::CaKey(error.to_string()))?;
    let (material, key_alone) = CaMaterial::unsealed(certificate_pem, &opened)?;
    CertAuthority::load(&material)?;
    if key_alone {
        let change =
            VaultChange { put_blobs: vec![seal(vault, names, &material)?], ..VaultChange::default() };
        store.change_vault(&change).await?;
    }
    Ok(Some(material))
}

fn absent(name: &str) -> CaError {
    CaError::Load(format!("the store has no entry '{name}': restore a backup"))
}

fn seal(vault: &Vault, names: &BlobNames, material: &CaMaterial) -> Result<(String, Sealed), AppError> {
    Ok((names.key.to_owned(), vault.seal_blob(names.key, &material.to_seal()?)?))
}

/// Generates an authority, and the change of the store that saves it.
fn generate(vault: &Vault, clock: &dyn Clock, names: &BlobNames) -> Result<(String, VaultChange), AppError> {
    let host = nix::unistd::gethostname()
        .map_or_else(|_| "this host".to_owned(), |name| name.to_string_lossy().into_owned());
    // Two authorities of one host have different names, because some clients find an issuer by its name alone.
    let now = clock.now();
    let material = CertAuthority::generate(&format!("{host}, {}", now.strftime("%F %T")), now)?;
    let change = VaultChange {
        set: vec![(names.certificate, material.certificate_pem.clone())],
        put_blobs: vec![seal(vault, names, &material)?],
        ..VaultChange::default()
    };
    Ok((material.certificate_pem, change))
}

/// Replaces a world-readable file. It is written under another name and then renamed, so that no reader sees a
/// partial file.
fn write_public(directory: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    if !directory.exists() {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    let beside = path.with_extension("pem.new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside)?;
    file.write_all(content)?;
    // The daemon's umask (077) reduced the mode.
    file.set_permissions(Permissions::from_mode(0o644))?;
    fs::rename(beside, path)
}
