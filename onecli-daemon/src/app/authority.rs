//! The certificate authority's life on this host: made once, kept sealed in the store, given to agents as a bundle.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::model::Clock;
use crate::store::{Store, VaultChange};
use crate::tls::{CaError, CaMaterial, CertAuthority, UpstreamTls};
use crate::vault::Vault;

use super::error::AppError;

/// Meta entry of the store.
const META_CERTIFICATE: &str = "ca.certificate";
/// What the key is sealed for.
const PURPOSE: &str = "ca.key";
/// The bundle's name, beside the admin socket: a directory that every agent can read.
const BUNDLE: &str = "ca-bundle.pem";

/// The authority as it is kept.
#[derive(Debug)]
pub(super) struct Authority {
    material: CaMaterial,
}

impl Authority {
    /// Opens the stored authority, or makes one.
    pub(super) async fn open(
        store: &dyn Store,
        vault: &Vault,
        clock: &dyn Clock,
    ) -> Result<Authority, AppError> {
        let stored = (store.get_meta(META_CERTIFICATE).await?, store.get_blob(PURPOSE).await?);
        if let (Some(certificate_pem), Some(sealed)) = stored {
            let key_der = vault.open_blob(PURPOSE, &sealed)?;
            return Ok(Authority { material: CaMaterial { certificate_pem, key_der } });
        }
        let label = nix::unistd::gethostname()
            .map_or_else(|_| "this host".to_owned(), |name| name.to_string_lossy().into_owned());
        let material = CertAuthority::generate(&label, clock.now())?;
        let change = VaultChange {
            set: vec![(META_CERTIFICATE, material.certificate_pem.clone())],
            put_blobs: vec![(PURPOSE.to_owned(), vault.seal_blob(PURPOSE, &material.key_der)?)],
            ..VaultChange::default()
        };
        store.change_vault(&change).await?;
        tracing::info!("made a certificate authority for this host's agents");
        Ok(Authority { material })
    }

    /// Ready to sign.
    pub(super) fn load(&self) -> Result<CertAuthority, CaError> {
        CertAuthority::load(&self.material)
    }

    /// Its certificate, PEM.
    pub(super) fn certificate_pem(&self) -> &str {
        &self.material.certificate_pem
    }

    /// Writes the bundle that agents are pointed at: the system's roots and ours.
    pub(super) fn write_bundle(&self, config: &Config, roots: &UpstreamTls) -> Result<PathBuf, AppError> {
        let directory = config.listen.admin_socket.parent().unwrap_or(Path::new("/"));
        let path = directory.join(BUNDLE);
        let bundle = format!("{}{}", roots.system_roots_pem(), self.certificate_pem());
        write_public(directory, &path, bundle.as_bytes())
            .map_err(|source| AppError::Bundle { path: path.display().to_string(), source })?;
        Ok(path)
    }
}

/// Replaces a file that everybody may read: written beside, then renamed, so that no reader sees half of it.
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
    // The umask of the daemon (077) cut the mode.
    file.set_permissions(Permissions::from_mode(0o644))?;
    fs::rename(beside, path)
}
