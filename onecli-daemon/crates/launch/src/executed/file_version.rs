//! The properties that distinguish versions of a file.

use std::ffi::OsString;
use std::path::Path;

use nix::sys::stat::FileStat;
use sha2::{Digest as _, Sha256};

use super::names::PACKAGE;
use crate::files::start_time::StartTime;
use crate::files::tree::{Links, Tree};

/// Bytes of a file whose content is compared. For longer files the kernel's times and numbers are compared.
const MAX_CONTENT: u64 = 1024 * 1024;
/// The executable bits of inode(7).
const EXECUTABLE: u32 = 0o111;

/// A version of a file.
#[derive(Debug, Clone)]
pub(super) struct FileVersion {
    kind: u32,
    executable: bool,
    link: Option<OsString>,
    /// Inode, length, and the times of the last change of content and of status. An agent cannot set the last one back.
    meta: [i64; 6],
    content: Option<[u8; 32]>,
}

impl FileVersion {
    /// Takes the version of the file at `path`, and of the file in the tree that a link points to. Returns `None` if
    /// there is no file, or one that does not count: an empty file names no program. `budget` is the number of bytes
    /// that may still be read.
    pub(super) fn take(tree: &Tree, path: &Path, budget: &mut u64) -> Option<FileVersion> {
        let found = tree.stat(path).ok()?;
        let kind = found.st_mode & libc::S_IFMT;
        if kind == libc::S_IFREG && found.st_size == 0 {
            return None;
        }
        let content = match kind {
            libc::S_IFREG | libc::S_IFLNK => tree.read(path, MAX_CONTENT.min(*budget), Links::Follow),
            _ => None,
        };
        *budget = budget.saturating_sub(content.as_ref().map_or(0, |content| content.len() as u64));
        let content = match content {
            Some(content) if path.ends_with(PACKAGE) => Some(scripts(&content)?),
            content => content,
        };
        Some(FileVersion {
            kind,
            executable: kind == libc::S_IFREG && found.st_mode & EXECUTABLE != 0,
            link: (kind == libc::S_IFLNK).then(|| tree.link(path)).flatten(),
            meta: meta(&found),
            content: content.map(|content| Sha256::digest(content).into()),
        })
    }

    /// Whether both versions are the same to programs that execute the file.
    pub(super) fn is_same(&self, other: &FileVersion) -> bool {
        let is_alike =
            (self.kind, self.executable, &self.link) == (other.kind, other.executable, &other.link);
        is_alike && (self.kind == libc::S_IFDIR || self.has_content_of(other))
    }

    fn has_content_of(&self, other: &FileVersion) -> bool {
        match (&self.content, &other.content) {
            (Some(one), Some(other)) => one == other,
            // The target of a link was created or removed.
            (Some(_), None) | (None, Some(_)) if self.kind == libc::S_IFLNK => false,
            _ => self.meta == other.meta,
        }
    }

    /// Whether content or status changed at or after this time.
    pub(super) fn is_since(&self, start: StartTime) -> bool {
        start.is_before((self.meta[4], self.meta[5]))
    }
}

fn meta(found: &FileStat) -> [i64; 6] {
    [
        found.st_ino.cast_signed(),
        found.st_size,
        found.st_mtime,
        found.st_mtime_nsec,
        found.st_ctime,
        found.st_ctime_nsec,
    ]
}

/// Returns the scripts of a package.json, as text, or the whole file if it is not valid JSON. `None` without scripts.
fn scripts(content: &[u8]) -> Option<Vec<u8>> {
    // npm skips a byte order mark.
    let text = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content);
    match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(package) => {
            let scripts = package.get("scripts")?;
            let is_empty = scripts.as_object().is_some_and(serde_json::Map::is_empty);
            (!is_empty).then(|| scripts.to_string().into_bytes())
        }
        Err(_) => Some(content.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scripts_of_a_package_are_compared() {
        let of = |text: &str| scripts(text.as_bytes()).map(|scripts| String::from_utf8(scripts).unwrap());
        assert_eq!(of(r#"{"name":"a","scripts":{"test":"x"}}"#), Some(r#"{"test":"x"}"#.to_owned()));
        assert_eq!(of("\u{feff}{\"scripts\":{\"a\":\"b\"}}"), Some(r#"{"a":"b"}"#.to_owned()));
        assert_eq!(of(r#"{"name":"a"}"#), None);
        assert_eq!(of(r#"{"scripts":{}}"#), None);
        assert_eq!(of("{broken"), Some("{broken".to_owned()));
    }
}
