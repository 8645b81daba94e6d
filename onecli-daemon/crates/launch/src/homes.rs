//! The home directories of this host, which agents do not see.
#![allow(unsafe_code, reason = "getpwent(3) has no wrapper")]

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// `UID_MIN` where login.defs(5) names none.
const UID_MIN: u32 = 1000;
/// Root's home, whatever passwd(5) says.
const ROOT: &str = "/root";
/// Where people's homes are on most hosts. A directory service may not list its users.
const PEOPLE: &str = "/home";

/// Directories that are the system's, with all that is below them.
const SYSTEM: &[&str] = &[
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/proc", "/run", "/sbin",
    "/sys", "/usr",
];
/// Directories whose children are the system's too: `/var/lib` is, `/var/lib/jenkins` is a home.
const SYSTEM_PARENTS: &[&str] = &["/var"];

/// Home directories, by their physical paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Homes(Vec<PathBuf>);

impl Homes {
    /// Root's, those of all users from `UID_MIN` on, what else of theirs lies in `/home`, and those of `others`.
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

    /// Those of `paths` that are not the system's; parents come before what is in them.
    fn from_paths(paths: impl Iterator<Item = PathBuf>) -> Homes {
        let mut homes: Vec<PathBuf> = paths.filter(|path| !is_system(path)).collect();
        homes.sort();
        homes.dedup();
        Homes(homes)
    }

    /// These.
    #[cfg(test)]
    pub(super) fn of(paths: &[&str]) -> Homes {
        Homes::from_paths(paths.iter().map(PathBuf::from))
    }

    /// All of them; parents come before what is in them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// The innermost home that `path` is, or lies in.
    pub fn around(&self, path: &Path) -> Option<&Path> {
        self.paths().filter(|home| path.starts_with(home)).last()
    }

    /// Whether `path` is a home.
    pub fn has(&self, path: &Path) -> bool {
        self.paths().any(|home| home == path)
    }

    /// Whether a home lies in `path`, or is it.
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

/// Whether programs of the host need what is at `path`, whoever has it as a home: `/`, `/usr/games`, `/var`, `/srv`.
pub fn is_system(path: &Path) -> bool {
    let parent = path.parent().unwrap_or(path);
    let is_top = parent == Path::new("/") && path != Path::new(ROOT);
    is_top
        || SYSTEM.iter().any(|system| path.starts_with(system))
        || SYSTEM_PARENTS.iter().any(|system| parent == Path::new(system))
}

/// Uid and home of every user that the host lists, by getpwent(3).
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
