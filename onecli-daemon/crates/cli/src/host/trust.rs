//! `onecli ca install | uninstall`: adds the CA to the host's trust store.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::program;

/// The certificate's file name in a system's directory of anchors.
const FILE: &str = "onecli-local-ca.crt";

/// A system's directory for additional CAs, and the program that adds them to its bundles.
struct Store {
    anchors: &'static str,
    update: &'static [&'static str],
}

const STORES: &[Store] = &[
    // Debian, Ubuntu, Alpine.
    Store { anchors: "/usr/local/share/ca-certificates", update: &["update-ca-certificates"] },
    // Fedora, RHEL.
    Store { anchors: "/etc/pki/ca-trust/source/anchors", update: &["update-ca-trust", "extract"] },
    // openSUSE.
    Store { anchors: "/etc/pki/trust/anchors", update: &["update-ca-certificates"] },
    // Arch.
    Store { anchors: "/etc/ca-certificates/trust-source/anchors", update: &["update-ca-trust"] },
];

/// Why the host's trust store was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// Only root may change it.
    #[error("only root may change the host's trust store\nhelp: use sudo")]
    NotRoot,
    /// The system's trust store is not supported.
    #[error(
        "this system's trust store is not supported\nhelp: add the output of 'onecli ca export' as the \
         system's manual describes"
    )]
    Unknown,
    /// A file could not be changed.
    #[error("cannot change {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The system's program failed.
    #[error("{program} failed: {message}")]
    Program {
        /// The program.
        program: &'static str,
        /// Its error output.
        message: String,
    },
}

/// Makes the whole host trust the CA. Returns the path of its certificate.
pub(crate) fn install(pem: &str) -> Result<PathBuf, TrustError> {
    let store = store()?;
    let path = Path::new(store.anchors).join(FILE);
    let failed = |source| TrustError::File { path: path.clone(), source };
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&path);
    let written = opened.and_then(|mut file| {
        file.write_all(pem.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))
    });
    written.map_err(failed)?;
    update(store)?;
    Ok(path)
}

/// Removes the CA; `None` if it was not installed.
pub(crate) fn uninstall() -> Result<Option<PathBuf>, TrustError> {
    let store = store()?;
    let path = Path::new(store.anchors).join(FILE);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TrustError::File { path, source }),
    }
    update(store)?;
    Ok(Some(path))
}

fn store() -> Result<&'static Store, TrustError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(TrustError::NotRoot);
    }
    STORES.iter().find(|store| Path::new(store.anchors).is_dir()).ok_or(TrustError::Unknown)
}

fn update(store: &Store) -> Result<(), TrustError> {
    let (name, args) = store.update.split_first().map_or(("true", &[][..]), |(first, rest)| (*first, rest));
    program::run(name, args).map_err(|message| TrustError::Program { program: name, message })
}
