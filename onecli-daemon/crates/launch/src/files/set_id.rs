//! Searches a directory for files that run with more rights than those of the user who starts them: set-user-ID and
//! set-group-ID bits (inode(7)), file capabilities (capabilities(7)).
//!
//! An agent may make the directory large and deep, so the search is bounded. It follows no symbolic link and holds one
//! directory of each level open. A process that moves files meanwhile cannot redirect it.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, lgetxattr, openat, statat};
use rustix::io::Errno;

use super::start_time::StartTime;

/// Entries that a search examines, about 2 µs each. A large repository with its dependencies has about 500,000.
const MAX_ENTRIES: usize = 4_000_000;
/// Levels of directories. Each holds a descriptor open.
const MAX_DEPTH: usize = 256;
/// Files that a search names.
pub(crate) const MAX_FILES: usize = 1024;

/// Set-user-ID and set-group-ID, of inode(7).
pub(crate) const SET_ID: u32 = 0o6000;
const EXECUTABLE: u32 = 0o111;

/// The reason why a search names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It has the set-user-ID or the set-group-ID bit.
    SetId,
    /// It has file capabilities.
    Capability,
    /// It belongs to a user that the search does not expect.
    ForeignOwner,
}

/// A file that a search names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlaggedFile {
    /// The path relative to the directory.
    pub(crate) path: PathBuf,
    pub(crate) fault: Fault,
    /// Device and inode.
    pub(crate) id: (u64, u64),
}

/// The result of a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// At most [`MAX_FILES`].
    pub(crate) files: Vec<FlaggedFile>,
    /// Number of further files.
    pub(crate) more: usize,
    /// The reason why the search is incomplete.
    pub(crate) cut_off: Option<&'static str>,
}

/// The criteria of a search.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    /// Files whose status changed earlier are left out.
    pub(crate) since: Option<StartTime>,
    /// Users to whom files may belong; `None` ignores owners.
    pub(crate) owners: Option<Vec<u32>>,
}

impl Search {
    /// Searches `directory`, which may have been opened with `O_PATH`.
    ///
    /// # Errors
    /// Those of openat(2) for the directory itself. Unreadable entries below it are left out: if root cannot read them,
    /// no agent can.
    pub(crate) fn through(&self, directory: BorrowedFd<'_>) -> Result<Findings, Errno> {
        let top = open(directory, c".")?;
        let mut walk =
            Walk { search: self, path: PathBuf::new(), left: MAX_ENTRIES, found: Findings::default() };
        walk.enter(top, 0);
        Ok(walk.found)
    }

    fn fault(&self, directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Option<Fault> {
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if self.since.is_some_and(|since| !since.is_before(changed(stat))) {
            None
        } else if is_file && stat.st_mode & SET_ID != 0 {
            Some(Fault::SetId)
        } else if is_file && self.asks_for_capability(stat) && has_capability(directory, name) {
            Some(Fault::Capability)
        } else {
            let is_foreign = self.owners.as_ref().is_some_and(|owners| !owners.contains(&stat.st_uid));
            is_foreign.then_some(Fault::ForeignOwner)
        }
    }

    /// Whether to check for capabilities. A file that cannot be executed gives none. The few files that changed in a
    /// run are all checked.
    fn asks_for_capability(&self, stat: &Stat) -> bool {
        stat.st_mode & EXECUTABLE != 0 || self.since.is_some()
    }

    /// Whether the type alone excludes a finding.
    fn is_harmless(&self, kind: FileType) -> bool {
        self.owners.is_none() && !matches!(kind, FileType::RegularFile | FileType::Unknown)
    }
}

/// A running search.
struct Walk<'s> {
    search: &'s Search,
    /// The current path.
    path: PathBuf,
    /// Number of entries that it may still examine.
    left: usize,
    found: Findings,
}

impl Walk<'_> {
    fn enter(&mut self, mut directory: Dir, depth: usize) {
        while let Some(Ok(entry)) = directory.read() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.left == 0 {
                self.found.cut_off = Some("more than 4 million entries");
                return;
            }
            self.left -= 1;
            let Ok(here) = directory.fd() else { return };
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            self.look(here, name, entry.file_type(), depth);
            self.path.pop();
        }
    }

    fn look(&mut self, directory: BorrowedFd<'_>, name: &CStr, kind: FileType, depth: usize) {
        if kind == FileType::Directory {
            self.descend(directory, name, depth);
        }
        if self.search.is_harmless(kind) {
            return;
        }
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
        if kind == FileType::Unknown && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.descend(directory, name, depth);
        }
        if let Some(fault) = self.search.fault(directory, name, &stat) {
            self.add(fault, &stat);
        }
    }

    fn descend(&mut self, directory: BorrowedFd<'_>, name: &CStr, depth: usize) {
        if depth == MAX_DEPTH {
            self.found.cut_off = Some("more than 256 levels of directories");
            return;
        }
        match open(directory, name) {
            Ok(inner) => self.enter(inner, depth + 1),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
                self.found.cut_off = Some("more directories than the launcher can open");
            }
            // It is removed, has become a link, or is closed even to root.
            Err(_) => {}
        }
    }

    fn add(&mut self, fault: Fault, stat: &Stat) {
        if self.found.files.len() == MAX_FILES {
            self.found.more += 1;
            return;
        }
        let id = (stat.st_dev, stat.st_ino);
        self.found.files.push(FlaggedFile { path: self.path.clone(), fault, id });
    }
}

fn changed(stat: &Stat) -> (i64, i64) {
    (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0))
}

fn open(directory: BorrowedFd<'_>, name: &CStr) -> Result<Dir, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    let opened = match openat(directory, name, flags, Mode::empty()) {
        // Another user's file, and no CAP_FOWNER.
        Err(Errno::PERM) => openat(directory, name, flags - OFlags::NOATIME, Mode::empty()),
        opened => opened,
    };
    Dir::new(opened?)
}

/// Whether the file has `security.capability` (xattr(7)).
fn has_capability(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let directory = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    let path = Path::new(&directory).join(OsStr::from_bytes(name.to_bytes()));
    // struct vfs_ns_cap_data has 24 bytes. A value of another size is unknown to this kernel, but present.
    let read = lgetxattr(&path, c"security.capability", &mut [0_u8; 32][..]);
    matches!(read, Ok(_) | Err(Errno::RANGE))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// `VFS_CAP_REVISION_2`, effective, with `CAP_NET_RAW` permitted.
    const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn names(found: &Findings) -> Vec<(&str, Fault)> {
        let mut names: Vec<_> =
            found.files.iter().map(|file| (file.path.to_str().unwrap(), file.fault)).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn search_finds_special_files_and_follows_no_link() {
        if !nix::unistd::geteuid().is_root() {
            println!("not run: files of other users (needs root)");
            return;
        }
        let (project, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |path: &str| project.path().join(path);
        let make = |path: PathBuf, mode: u32, owner: u32| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        make(at("plain"), 0o755, 1000);
        make(at("agents"), 0o644, 990);
        make(at("a/b/setuid"), 0o4755, 1000);
        make(at("a/setgid"), 0o2644, 1000);
        make(at("a/foreign"), 0o644, 7);
        make(at("caps"), 0o755, 1000);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(at("caps"), "security.capability", &NET_RAW, flags).unwrap();
        make(outside.path().join("setuid"), 0o4755, 1000);
        symlink(outside.path(), at("link")).unwrap();
        for directory in ["", "a", "a/b"] {
            chown(at(directory), Some(1000), Some(1000)).unwrap();
            // On a directory the bit only sets the group of files in it.
            fs::set_permissions(at(directory), PermissionsExt::from_mode(0o2755)).unwrap();
        }
        let directory = File::open(project.path()).unwrap();
        let search = |since, owners: Option<&[u32]>| {
            let search = Search { since, owners: owners.map(<[u32]>::to_vec) };
            search.through(directory.as_fd()).unwrap()
        };
        let privileged =
            [("a/b/setuid", Fault::SetId), ("a/setgid", Fault::SetId), ("caps", Fault::Capability)];
        assert_eq!(names(&search(None, None)), privileged);
        let mut all = privileged.to_vec();
        all.extend([("a/foreign", Fault::ForeignOwner), ("link", Fault::ForeignOwner)]);
        all.sort_unstable();
        assert_eq!(names(&search(Some(StartTime::default()), Some(&[1000, 990]))), all);
        assert_eq!(search(Some(StartTime::MAX), Some(&[])), Findings::default());
    }

    #[test]
    fn search_reports_where_it_stopped() {
        let project = tempfile::tempdir().unwrap();
        let directory = File::open(project.path()).unwrap();
        let search = Search::default();
        let within = |left: usize| {
            let mut walk = Walk { search: &search, path: PathBuf::new(), left, found: Findings::default() };
            walk.enter(open(directory.as_fd(), c".").unwrap(), 0);
            walk.found.cut_off
        };
        for name in ["a", "b", "c"] {
            fs::write(project.path().join(name), "").unwrap();
        }
        assert_eq!((within(3), within(2)), (None, Some("more than 4 million entries")));
        let deep: PathBuf = std::iter::repeat_n("d", MAX_DEPTH).collect();
        fs::create_dir_all(project.path().join(&deep)).unwrap();
        assert_eq!(search.through(directory.as_fd()).unwrap().cut_off, None);
        fs::create_dir(project.path().join(&deep).join("d")).unwrap();
        assert_eq!(
            search.through(directory.as_fd()).unwrap().cut_off,
            Some("more than 256 levels of directories")
        );
    }

    #[test]
    fn search_names_a_bounded_number_of_files() {
        let project = tempfile::tempdir().unwrap();
        for number in 0..MAX_FILES + 3 {
            let path = project.path().join(number.to_string());
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o4755)).unwrap();
        }
        let found = Search::default().through(File::open(project.path()).unwrap().as_fd()).unwrap();
        assert_eq!((found.files.len(), found.more), (MAX_FILES, 3));
    }
}
