//! Directories that a user confirmed for an agent. Root owns the file, in a place that no agent sees.
//!
//! The file holds paths, each followed by a NUL, oldest first.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Directories of one user for one agent. The oldest are removed first, and the user must confirm them again.
const MAX: usize = 1024;
/// Bytes of the largest file: each path has at most `PATH_MAX`.
const MAX_BYTES: u64 = (MAX * libc::PATH_MAX as usize) as u64;

/// The confirmed directories of one user for one agent.
#[derive(Debug)]
pub(crate) struct Confirmed {
    file: PathBuf,
    paths: Vec<PathBuf>,
}

impl Confirmed {
    /// Reads the directories that the user `uid` confirmed, from the agent's directory. Returns none if there is no
    /// file.
    pub(crate) fn read(kept: &Path, uid: u32) -> io::Result<Confirmed> {
        let file = kept.join("confirmed").join(uid.to_string());
        let bytes = match fs::metadata(&file) {
            Ok(found) if found.len() > MAX_BYTES => Vec::new(),
            Ok(_) => fs::read(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let paths = bytes.split(|byte| *byte == 0).filter(|path| path.starts_with(b"/"));
        let paths = paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
        Ok(Confirmed { file, paths })
    }

    /// Returns all of them.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether `path` itself was confirmed.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.paths.iter().any(|known| known == path)
    }

    /// Adds one. If two commands add at the same time, one entry may be lost, and the user is asked again.
    pub(crate) fn add(&mut self, path: &Path) -> io::Result<()> {
        if self.has(path) {
            return Ok(());
        }
        self.paths.push(path.to_owned());
        let from = self.paths.len().saturating_sub(MAX);
        let bytes = self.paths[from..].iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"]);
        if let Some(directory) = self.file.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = self.file.with_extension(format!("{}.new", std::process::id()));
        fs::write(&new, bytes.collect::<Vec<_>>().concat())?;
        fs::rename(&new, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmed_directories_are_stored_per_user() {
        let kept = tempfile::tempdir().unwrap();
        let read = |uid| Confirmed::read(kept.path(), uid).unwrap();
        let odd = PathBuf::from(OsStr::from_bytes(b"/a\n\xff"));
        for path in [Path::new("/srv/a"), &odd, Path::new("/srv/a")] {
            read(7).add(path).unwrap();
        }
        assert_eq!(read(7).paths(), [PathBuf::from("/srv/a"), odd]);
        assert_eq!(read(8).paths(), [] as [PathBuf; 0]);
    }

    #[test]
    fn oldest_directories_are_removed_at_the_limit() {
        let kept = tempfile::tempdir().unwrap();
        let mut all = Confirmed::read(kept.path(), 7).unwrap();
        all.paths = (0..MAX).map(|n| PathBuf::from(format!("/{n}"))).collect();
        all.add(Path::new("/new")).unwrap();
        let read = Confirmed::read(kept.path(), 7).unwrap();
        assert_eq!((read.paths().len(), read.paths()[0].as_path()), (MAX, Path::new("/1")));
    }
}
