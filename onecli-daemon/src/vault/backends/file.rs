//! Values in files of the daemon's host, read each time they are needed: whoever replaces the file has rotated the secret.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::model::{SecretValue, SourceFile};

/// Largest file, in bytes: past the bound of a value by the line ends of a document.
const LARGEST: u64 = 32 << 10;
/// Symbolic links in the last component, one after the other: Kubernetes mounts secrets behind one.
const MOST_LINKS: usize = 4;
/// A file on a server that is gone is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a file gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot take the value from {path}: {reason}")]
pub struct FileError {
    path: String,
    reason: String,
}

/// Reads a value.
///
/// # Errors
/// [`FileError`].
pub async fn read(file: SourceFile) -> Result<SecretValue, FileError> {
    let shown = file.to_string();
    let failed = |reason: String| FileError { path: shown.clone(), reason };
    let reading = tokio::task::spawn_blocking(move || read_now(file.path()));
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(outcome)) => outcome.map_err(failed),
        Ok(Err(_)) => Err(failed("reading it broke off".to_owned())),
        Err(_) => Err(failed(format!("it could not be read within {PATIENCE:?}"))),
    }
}

fn read_now(path: &Path) -> Result<SecretValue, String> {
    let file = open(path)?;
    let facts = file.metadata().map_err(|error| error.to_string())?;
    if !facts.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(LARGEST + 1).unwrap_or(0)));
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("it is larger than {LARGEST} bytes"));
    }
    SecretValue::of_document(&bytes).map_err(|error| error.to_string())
}

/// Opens what the path leads to. A symbolic link as its last component is followed only where root made it: whoever else
/// may write in the directory could lead us to any file of the host.
fn open(path: &Path) -> Result<File, String> {
    let mut path = path.to_owned();
    for _ in 0..=MOST_LINKS {
        // O_NONBLOCK: a pipe that nobody writes to would keep us waiting.
        let flags = nix::libc::O_CLOEXEC | nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        match File::options().read(true).custom_flags(flags).open(&path) {
            Ok(file) => return Ok(file),
            Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => path = followed(&path)?,
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("too many symbolic links".to_owned())
}

fn followed(link: &Path) -> Result<PathBuf, String> {
    // Held, so that the link that is judged is the one that is read.
    let held = File::options()
        .read(true)
        .custom_flags(nix::libc::O_PATH | nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(link)
        .map_err(|error| error.to_string())?;
    let owner = held.metadata().map_err(|error| error.to_string())?.uid();
    if owner != 0 {
        return Err(format!("it is a symbolic link of uid {owner}: only root's are followed"));
    }
    let target = nix::fcntl::readlinkat(&held, "").map_err(|error| error.to_string())?;
    Ok(link.parent().unwrap_or(Path::new("/")).join(target))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn value(path: &Path) -> Result<String, String> {
        read_now(path).map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
    }

    #[test]
    fn one_line_of_a_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "sk-12345678\n").unwrap();
        assert_eq!(value(&file).unwrap(), "sk-12345678");
        // Replaced, as programs that rotate do.
        std::fs::write(dir.path().join("new"), "sk-87654321\n").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        assert_eq!(value(&file).unwrap(), "sk-87654321");
        for (content, why) in [
            ("short\n".to_owned(), "shorter"),
            ("sk-12345678\nsk-87654321\n".to_owned(), "control character"),
            ("a".repeat(40_000), "larger than"),
        ] {
            std::fs::write(&file, content).unwrap();
            assert!(value(&file).unwrap_err().contains(why), "{why}");
        }
        assert!(value(dir.path()).unwrap_err().contains("no regular file"));
        assert!(value(&dir.path().join("none")).is_err());
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(value(&pipe).unwrap_err().contains("no regular file"));
    }

    #[test]
    fn links_are_followed_where_root_made_them() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("data"), "sk-12345678").unwrap();
        let link = dir.path().join("link");
        symlink("data", &link).unwrap();
        if nix::unistd::geteuid().is_root() {
            assert_eq!(value(&link).unwrap(), "sk-12345678");
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        }
        assert!(value(&link).unwrap_err().contains("only root's"));
        let round = dir.path().join("round");
        symlink("round", &round).unwrap();
        assert!(value(&round).is_err());
    }
}
