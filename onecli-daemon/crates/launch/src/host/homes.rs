//! The home directories of this host, which agents do not see.
#![allow(unsafe_code, reason = "getpwent(3) has no wrapper")]

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// `UID_MIN` if login.defs(5) does not set it.
const UID_MIN: u32 = 1000;
/// Root's home, independent of passwd(5).
const ROOT: &str = "/root";
/// The parent of most users' homes. A directory service may not list its users.
const PEOPLE: &str = "/home";

/// System directories, with everything below them.
const SYSTEM: &[&str] = &[
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/proc", "/run", "/sbin",
    "/sys", "/usr",
];
/// Directories whose children are system directories too: `/var/lib` is one, `/var/lib/jenkins` is a home.
const SYSTEM_PARENTS: &[&str] = &["/var"];

/// Home directories, by their physical paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Homes(Vec<PathBuf>);

impl Homes {
    /// Returns root's home, those of all users from `UID_MIN` on, their other directories in `/home`, and the homes of
    /// `others`.
    pub fn of_host(others: &[u32]) -> Homes {
        let least = uid_min(&fs::read_to_string("/etc/login.defs").unwrap_or_default());
        let listed = users().into_iter().filter(|(uid, _)| *uid >= least).map(|(_, home)| home);
        let named = others.iter().filter_map(|uid| Some(User::from_uid(Uid::from_raw(*uid)).ok()??.dir));
        let theirs = fs::read_dir(PEOPLE).into_iter().flatten().flatten();
        let theirs =
            theirs.filter(|entry| entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() >= least));
        let all = std::iter::once(PathBuf::from(ROOT)).chain(listed).chain(named);
        Homes::from_paths(
            all.chain(theirs.map(|entry| entry.path())).filter_map(|home| fs::canonicalize(home).ok()),
        )
    }

    /// Returns `paths` without system directories. Parents come before their children.
    fn from_paths(paths: impl Iterator<Item = PathBuf>) -> Homes {
        let mut homes: Vec<PathBuf> = paths.filter(|path| !is_system(path)).collect();
        homes.sort();
        homes.dedup();
        Homes(homes)
    }

    /// Creates a list from `paths`.
    #[cfg(test)]
    pub(crate) fn of(paths: &[&str]) -> Homes {
        Homes::from_paths(paths.iter().map(PathBuf::from))
    }

    /// Returns all of them. Parents come before their children.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// Returns the innermost home that is `path` or contains it.
    pub fn around(&self, path: &Path) -> Option<&Path> {
        self.paths().filter(|home| path.starts_with(home)).last()
    }

    /// Whether `path` is a home.
    pub fn has(&self, path: &Path) -> bool {
        self.paths().any(|home| home == path)
    }

    /// Whether a home is in `path`, or is it.
    pub fn are_in(&self, path: &Path) -> bool {
        self.paths().any(|home| home.starts_with(path))
    }
}

/// `UID_MIN` of login.defs(5).
fn uid_min(login_defs: &str) -> u32 {
    let mut lines = login_defs.lines().map(str::split_whitespace);
    let value = lines.find_map(|mut words| (words.next() == Some("UID_MIN")).then(|| words.next()).flatten());
    value.and_then(|value| value.parse().ok()).unwrap_or(UID_MIN)
}

/// Whether programs of the host need the directory at `path`, even if it is a user's home: `/`, `/usr/games`, `/var`,
/// `/srv`.
pub fn is_system(path: &Path) -> bool {
    let parent = path.parent().unwrap_or(path);
    let is_top = parent == Path::new("/") && path != Path::new(ROOT);
    is_top
        || SYSTEM.iter().any(|system| path.starts_with(system))
        || SYSTEM_PARENTS.iter().any(|system| parent == Path::new(system))
}

/// Returns uid and home of every user that the host lists with getpwent(3).
fn users() -> Vec<(u32, PathBuf)> {
    let mut users = Vec::new();
    // SAFETY: this process has one thread; each entry is read before the next call, which may overwrite it.
    unsafe {
        libc::setpwent();
        while let Some(entry) = libc::getpwent().as_ref() {
            if !entry.pw_dir.is_null() {
                let home = OsStr::from_bytes(CStr::from_ptr(entry.pw_dir).to_bytes());
                users.push((entry.pw_uid, PathBuf::from(home)));
            }
        }
        libc::endpwent();
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_directories_are_never_homes() {
        for system in [
            "/",
            "/usr",
            "/usr/games",
            "/bin",
            "/etc/x",
            "/var",
            "/var/lib",
            "/var/tmp",
            "/srv",
            "/home",
            "/opt",
            "/tmp",
            "/run/x",
        ] {
            assert!(is_system(Path::new(system)), "{system}");
        }
        for home in [
            "/root",
            "/home/alice",
            "/srv/people/bob",
            "/srv/bob",
            "/var/lib/jenkins",
            "/opt/app",
            "/data/home/x",
        ] {
            assert!(!is_system(Path::new(home)), "{home}");
        }
    }

    #[test]
    fn uid_min_is_read_from_login_defs() {
        assert_eq!(uid_min("# UID_MIN 7\nUID_MAX 60000\nUID_MIN\t\t 500\n"), 500);
        assert_eq!(uid_min("UID_MIN\n"), 1000);
        assert_eq!(uid_min(""), 1000);
    }

    #[test]
    fn the_innermost_home_is_found() {
        let homes = ["/home/alice", "/root", "/home/alice/bots/one", "/usr/games", "/home/alice"];
        let homes = Homes::of(&homes);
        assert_eq!(homes.paths().count(), 3);
        let around = |path: &str| homes.around(Path::new(path)).map(Path::to_owned);
        assert_eq!(around("/home/alice/bots/one/x"), Some("/home/alice/bots/one".into()));
        assert_eq!(around("/home/alice/src"), Some("/home/alice".into()));
        assert_eq!(around("/home/alicette"), None);
        assert!(homes.are_in(Path::new("/home")) && homes.has(Path::new("/root")));
        assert!(!homes.are_in(Path::new("/home/alice/src")));
    }

    #[test]
    fn the_host_lists_root() {
        assert!(users().iter().any(|(uid, _)| *uid == 0));
    }
}
