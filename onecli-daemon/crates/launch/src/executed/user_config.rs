//! The user's own git configuration: `~/.gitconfig` and similar files, with their includes (git-config(1), FILES).
//!
//! An agent cannot write it, but it may name files that the agent can write. The launcher reads it with the user's
//! rights. It does not ask git, because git would take commands from the directory in which it is started.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use super::git_config::{self, MAX_CONFIG, Use};
use crate::process::permitted;

/// Largest number of files that are read, includes among them.
const MAX_FILES: usize = 32;
/// Total size after which no further file is read, bytes. The last file may exceed it.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Configuration of the host, for all users.
const SYSTEM: &str = "/etc/gitconfig";

/// The configuration that was read.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct UserConfig {
    home: Option<PathBuf>,
    files: Vec<ConfigFile>,
}

/// A file of configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ConfigFile {
    /// The physical path, so that a link into the directory counts as a file there.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl UserConfig {
    /// Reads the configuration of the user `ids` with that user's rights, and the files `named` by the user's
    /// environment. Empty if that fails.
    pub(crate) fn read(ids: (u32, u32), named: &[PathBuf]) -> UserConfig {
        let home = User::from_uid(Uid::from_raw(ids.0)).ok().flatten().map(|user| user.dir);
        let Ok(shared) = memfd_create(c"git-config", MFdFlags::MFD_CLOEXEC) else {
            return UserConfig::default();
        };
        let mut shared = File::from(shared);
        let work = || {
            let found = UserConfig::collect(home, named);
            let _ = serde_json::to_vec(&found).map(|bytes| (&shared).write_all(&bytes));
        };
        let _ = permitted::as_user(ids, work);
        let mut bytes = Vec::new();
        let read = shared.rewind().and_then(|()| shared.read_to_end(&mut bytes));
        read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Runs with the user's rights.
    pub(super) fn collect(home: Option<PathBuf>, named: &[PathBuf]) -> UserConfig {
        let own =
            home.iter().flat_map(|home| [".gitconfig", ".config/git/config"].map(|name| home.join(name)));
        let mut waiting: VecDeque<PathBuf> =
            named.iter().cloned().chain(own).chain([SYSTEM.into()]).collect();
        let mut found = UserConfig { home, files: Vec::new() };
        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        while let Some(path) =
            waiting.pop_front().filter(|_| found.files.len() < MAX_FILES && bytes < MAX_BYTES)
        {
            let Some(file) = ConfigFile::read(&path).filter(|file| seen.insert(file.path.clone())) else {
                continue;
            };
            waiting.extend(found.includes(&path, &file.text).take(MAX_FILES));
            bytes += file.text.len();
            found.files.push(file);
        }
        found
    }

    /// Returns the includes, and those of `includeIf` under any condition.
    fn includes(&self, path: &Path, text: &str) -> impl Iterator<Item = PathBuf> {
        let included =
            git_config::named(text.as_bytes()).into_iter().filter(|named| named.used == Use::Include);
        let directory = path.parent().unwrap_or(path);
        included
            .filter_map(move |named| Some(directory.join(git_config::expanded(&named.path, self.home())?)))
    }

    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    pub(super) fn files(&self) -> &[ConfigFile] {
        &self.files
    }
}

/// Returns the files of git configuration that the environment names (git(1), git-config(1)). They need not exist.
pub fn configs_of_environment() -> Vec<PathBuf> {
    let below = |name: &str, file: &str| std::env::var_os(name).map(|value| Path::new(&value).join(file));
    let named = [
        std::env::var_os("GIT_CONFIG_GLOBAL").map(PathBuf::from),
        below("XDG_CONFIG_HOME", "git/config"),
        below("HOME", ".gitconfig"),
        below("HOME", ".config/git/config"),
    ];
    named.into_iter().flatten().filter(|path| path.is_absolute() && path.to_str().is_some()).collect()
}

impl ConfigFile {
    fn read(path: &Path) -> Option<ConfigFile> {
        let path = fs::canonicalize(path).ok()?;
        // Checked before opening: a FIFO or a device would notice an open.
        fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
        let file = File::options().read(true).custom_flags(flags).open(&path).ok()?;
        let mut text = Vec::new();
        file.take(MAX_CONFIG).read_to_end(&mut text).ok()?;
        Some(ConfigFile { path, text: String::from_utf8_lossy(&text).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn includes_are_followed_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at(".gitconfig"), "[include]\n path = sub/one\n path = ~/two\n path = missing\n").unwrap();
        fs::write(at("sub/one"), "[includeIf \"gitdir:x\"]\n path = three\n path = ../.gitconfig\n").unwrap();
        fs::write(at("two"), "[alias]\n x = !y\n").unwrap();
        fs::write(at("sub/three"), "").unwrap();
        fs::write(at("named"), "").unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = UserConfig::collect(Some(dir.path().to_owned()), &[at("named"), at("fifo")]);
        let within = |file: &ConfigFile| file.path.strip_prefix(dir.path()).ok().map(Path::to_owned);
        let names: Vec<_> = found.files.iter().filter_map(within).collect();
        assert_eq!(names, ["named", ".gitconfig", "sub/one", "two", "sub/three"].map(PathBuf::from));
        // A file that includes more files than are read.
        let many: Vec<_> = (0..100).map(|n| format!("[include]\n path = {n}\n")).collect();
        fs::write(at("many"), many.concat()).unwrap();
        (0..100).for_each(|n| fs::write(at(&n.to_string()), "").unwrap());
        assert_eq!(UserConfig::collect(None, &[at("many")]).files.len(), MAX_FILES);
    }

    #[test]
    fn configuration_is_read_with_the_users_rights() {
        if !nix::unistd::geteuid().is_root() {
            println!("not run: becoming another user (needs root)");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "[alias]\n").unwrap();
        let found = |mode: u32| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = UserConfig::read((2, 2), std::slice::from_ref(&path));
            read.files().iter().any(|file| file.text == "[alias]\n")
        };
        assert!(found(0o644) && !found(0o600));
    }
}
