//! Paths that only root can redirect.
//!
//! A path is walked one name at a time. Each name is looked up in the directory that was opened before, so that no
//! process can exchange one in between. A symbolic link on the way is followed only if root owns it. Otherwise, a
//! user with write access to a directory could redirect the path to any file of the host.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

/// The maximum number of symbolic links on the way; the kernel follows as many (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// Opens a file for reading.
///
/// # Errors
/// The reason, as part of a sentence about the path.
pub fn open(path: &Path) -> Result<File, String> {
    let end = walk(path, |_| Ok(()))?;
    // O_NONBLOCK: opening a pipe without a writer would block.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = openat(&end.directory, end.name.as_os_str(), flags, Mode::empty());
    file.map(File::from).map_err(|errno| errno.to_string())
}

/// Returns the physical path of a program that only root can have installed and can change. The program and every
/// directory on the way to it belong to root and are not writable for group or others.
///
/// # Errors
/// The reason why it is not such a program, as part of a sentence about the path.
pub fn program(path: &Path) -> Result<PathBuf, String> {
    let closed = |found: &PathComponent| {
        let what = found.path.display();
        if found.facts.uid() != 0 {
            return Err(format!("{what} belongs to uid {}, not to root", found.facts.uid()));
        }
        // The mode of a symbolic link has no meaning.
        if !found.facts.is_symlink() && found.facts.mode() & 0o022 != 0 {
            let mode = found.facts.mode() & 0o7777;
            return Err(format!(
                "{what} has mode {mode:04o}, so users other than root can change the program"
            ));
        }
        Ok(())
    };
    let end = walk(path, closed)?;
    if !end.facts.is_file() || end.facts.mode() & 0o111 == 0 {
        return Err(format!("{} is not a file that can be executed", end.path.display()));
    }
    Ok(end.path)
}

/// Opens a directory, for reading if permitted, and returns its physical path.
///
/// # Errors
/// The reason, as part of a sentence about the path.
pub fn directory(path: &Path) -> Result<(File, PathBuf), String> {
    let (directory, here, last) = walk_all(path, |_| Ok(()))?;
    let (name, physical) = match last {
        Some((name, physical, _)) => (name, physical),
        None => (".".into(), here),
    };
    let open = |how| {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | how;
        openat(&directory, name.as_os_str(), flags, Mode::empty())
    };
    // A directory that cannot be read can still be traversed.
    let opened = open(OFlag::O_RDONLY).or_else(|_| open(OFlag::O_PATH)).map_err(|errno| match errno {
        nix::Error::ENOTDIR => "it is not a directory".to_owned(),
        errno => errno.to_string(),
    })?;
    Ok((opened.into(), physical))
}

/// The file at one name of a path.
struct PathComponent {
    path: PathBuf,
    facts: Metadata,
}

/// The last name of a path, which is not a symbolic link, and the directory that contains it.
struct End {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    facts: Metadata,
}

fn walk(path: &Path, judge: impl Fn(&PathComponent) -> Result<(), String>) -> Result<End, String> {
    match walk_all(path, judge)? {
        (directory, _, Some((name, path, facts))) => Ok(End { directory, name, path, facts }),
        _ => Err("it is a directory".to_owned()),
    }
}

/// A directory with its path. Also the last name with its own path and metadata, unless the directory is the end of
/// the path.
type Walked = (OwnedFd, PathBuf, Option<(OsString, PathBuf, Metadata)>);

fn walk_all(path: &Path, judge: impl Fn(&PathComponent) -> Result<(), String>) -> Result<Walked, String> {
    if !path.is_absolute() {
        return Err("it is not an absolute path".to_owned());
    }
    let at = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let said = |errno: nix::Error| errno.to_string();
    let mut left: VecDeque<OsString> = names(path)?;
    let mut here = PathBuf::from("/");
    let mut directory = nix::fcntl::open("/", at | OFlag::O_DIRECTORY, Mode::empty()).map_err(said)?;
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == OsStr::new("..") {
            // `here` contains no link, so its parent's name is known.
            directory = openat(&directory, "..", at | OFlag::O_DIRECTORY, Mode::empty()).map_err(said)?;
            here.pop();
            continue;
        }
        let found = File::from(openat(&directory, name.as_os_str(), at, Mode::empty()).map_err(said)?);
        let facts = found.metadata().map_err(|error| error.to_string())?;
        let found_at = PathComponent { path: here.join(&name), facts };
        judge(&found_at)?;
        let PathComponent { path, facts } = found_at;
        if facts.is_symlink() {
            if facts.uid() != 0 {
                return Err(format!(
                    "{} is a symbolic link that belongs to uid {}: only root's are followed",
                    path.display(),
                    facts.uid()
                ));
            }
            links += 1;
            if links > MOST_LINKS {
                return Err("the path has too many symbolic links".to_owned());
            }
            let target = PathBuf::from(readlinkat(&found, "").map_err(said)?);
            if target.is_absolute() {
                here = PathBuf::from("/");
                directory = nix::fcntl::open("/", at | OFlag::O_DIRECTORY, Mode::empty()).map_err(said)?;
            }
            let mut ahead = names(&target)?;
            ahead.append(&mut left);
            left = ahead;
        } else if left.is_empty() {
            return Ok((directory, here, Some((name, path, facts))));
        } else {
            here = path;
            directory = found.into();
        }
    }
    Ok((directory, here, None))
}

fn names(path: &Path) -> Result<VecDeque<OsString>, String> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err("it contains a NUL byte".to_owned());
    }
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    Ok(path.components().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[test]
    fn only_links_of_root_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/key"), "content").unwrap();
        symlink("real/../real", at("dir")).unwrap();
        symlink(at("dir/key"), at("link")).unwrap();
        symlink("round", at("round")).unwrap();
        let read = |name: &str| open(&at(name)).map(|file| std::io::read_to_string(file).unwrap());
        assert!(read("round").is_err());
        assert_eq!(read("real/key").unwrap(), "content");
        if !is_root() {
            assert!(read("link").unwrap_err().contains("only root's"));
            return;
        }
        for name in ["link", "dir/key"] {
            assert_eq!(read(name).unwrap(), "content", "{name}");
        }
        // In the middle of the path as well as at its end.
        lchown(at("dir"), Some(65534), None).unwrap();
        for name in ["link", "dir/key"] {
            assert!(read(name).unwrap_err().contains("only root's are followed"), "{name}");
        }
        assert_eq!(read("real/key").unwrap(), "content");
    }

    #[test]
    fn directory_returns_the_physical_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(dir.path()).unwrap();
        std::fs::create_dir_all(real.join("project/src")).unwrap();
        std::fs::write(real.join("file"), "").unwrap();
        symlink("project", real.join("link")).unwrap();
        let physical_path = |name: &str| directory(&real.join(name)).map(|(_, path)| path);
        for (name, physical) in
            [("project/src", "project/src"), ("project/src/..", "project"), ("project/./", "project")]
        {
            assert_eq!(physical_path(name), Ok(real.join(physical)), "{name}");
        }
        assert_eq!(directory(Path::new("/")).unwrap().1, Path::new("/"));
        assert!(
            physical_path("file").is_err() && physical_path("nowhere").unwrap_err().contains("No such file")
        );
        if is_root() {
            assert_eq!(physical_path("link/src"), Ok(real.join("project/src")));
            lchown(real.join("link"), Some(65534), None).unwrap();
        }
        assert!(physical_path("link/src").is_err());
        assert!(physical_path("link").unwrap_err().contains("only root's are followed"));
    }

    #[test]
    fn program_must_belong_to_root_on_the_whole_path() {
        // All users can write to its directory.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        set_mode(&file, 0o755);
        assert!(program(&file).is_err(), "below a world-writable directory");
        for real in ["/bin/sh", "/usr/bin/env"] {
            assert_eq!(program(Path::new(real)).unwrap(), Path::new(real).canonicalize().unwrap(), "{real}");
        }
        for (path, why) in [
            ("/etc/passwd", "can be executed"),
            ("/usr/bin", "can be executed"),
            ("/", "a directory"),
            ("bin/sh", "absolute"),
            ("/no/such/program", "ENOENT"),
        ] {
            let message = program(Path::new(path)).unwrap_err();
            assert!(message.contains(why), "{path}: {message}");
        }
    }

    #[test]
    fn program_writable_by_others_is_refused() {
        type Spoil = fn(&Path);
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir_in("/run").unwrap();
        set_mode(dir.path(), 0o755);
        let file = dir.path().join("program");
        let spoil: [(&str, Spoil); 5] = [
            ("good", |_| ()),
            ("writable by a group", |file| set_mode(file, 0o775)),
            ("somebody's", |file| chown(file, Some(65534), None).unwrap()),
            ("in a group-writable directory", |file| set_mode(file.parent().unwrap(), 0o775)),
            ("in another user's directory", |file| chown(file.parent().unwrap(), Some(65534), None).unwrap()),
        ];
        for (number, (what, spoil)) in spoil.iter().enumerate() {
            let _ = std::fs::remove_file(&file);
            std::fs::write(&file, "#!/bin/sh\n").unwrap();
            set_mode(&file, 0o755);
            chown(dir.path(), Some(0), None).unwrap();
            set_mode(dir.path(), 0o755);
            spoil(&file);
            assert_eq!(program(&file).is_ok(), number == 0, "{what}");
        }
    }
}
