//! Files with the set-user-ID or set-group-ID bit, or with capabilities, that were in a directory before the agent got it.
//!
//! write(2) takes these from a file, but a store through mmap(2) with `MAP_SHARED` does not: the agent would replace the
//! program and keep the bit. Overlayfs copies both into a project. So each such file becomes a read-only mount of itself
//! in the agent's view. It can neither be written, renamed nor removed there. In a user namespace these mounts are locked, and
//! the kernel takes no directory that holds one as a layer of overlayfs (`has_locked_children`).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};

use super::project::{move_mount, open_tree, set_read_only};
use super::set_id::{Found, MAX_FILES, Quoted, Search};

/// The files of one directory.
#[derive(Debug, Default)]
pub(super) struct Protected(Vec<Found>);

impl Protected {
    /// Looks for them in `directory`, which is at `path`.
    ///
    /// # Errors
    /// Why the agent cannot have the directory, and what to do.
    pub(super) fn find(directory: &OwnedFd, path: &Path) -> Result<Protected, String> {
        let at = path.display();
        let found = Search::default()
            .through(directory.as_fd())
            .map_err(|error| format!("cannot look for set-user-ID files in {at}: {error}"))?;
        if let Some(why) = found.cut_off {
            return Err(format!(
                "cannot look for set-user-ID files in {at}: it has {why}; remove some, or give the agent a part of it"
            ));
        }
        if found.more > 0 {
            return Err(format!(
                "{at} has more than {MAX_FILES} files with a set-user-ID or set-group-ID bit, or capabilities, which an agent \
                 must not change: give it another directory, or take the bits away: \
                 find {at} -type f -perm /6000 -exec chmod ug-s {{}} +"
            ));
        }
        Ok(Protected(found.files))
    }

    /// What the caller should know; none if there are no such files.
    pub(super) fn notice(&self, path: &Path) -> Option<String> {
        let first = path.join(&self.0.first()?.path);
        let others = match self.0.len() - 1 {
            0 => "has".to_owned(),
            others => format!("and {others} more files have"),
        };
        Some(format!(
            "{} {others} a set-user-ID or set-group-ID bit, or capabilities: the agent cannot change, rename or remove that",
            Quoted(&first)
        ))
    }

    /// Makes each file read-only in `tree`, a mount that is in this process's view.
    pub(super) fn apply(&self, tree: &OwnedFd) -> io::Result<()> {
        self.0.iter().try_for_each(|file| {
            let failed = |error: io::Error| io::Error::other(format!("{}: {error}", Quoted(&file.path)));
            protect(tree, &file.path, file.id).map_err(failed)
        })
    }
}

fn protect(tree: &OwnedFd, path: &PathBuf, id: (u64, u64)) -> io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat2(tree, path, flags, Mode::empty(), resolve)?;
    let found = fstat(&file)?;
    if (found.st_dev, found.st_ino) != id {
        return Err(io::Error::other("it was replaced meanwhile: try again"));
    }
    let copy = open_tree(file.as_fd())?;
    set_read_only(&copy)?;
    move_mount(&copy, &file)
}

#[cfg(test)]
mod tests {
    use super::super::set_id::Fault;
    use super::*;

    #[test]
    fn notice_names_the_first_file() {
        let file = |name: &str| Found { path: name.into(), fault: Fault::SetId, id: (0, 0) };
        let notice = |files: Vec<Found>| Protected(files).notice(Path::new("/p"));
        assert_eq!(notice(vec![]), None);
        assert!(notice(vec![file("a")]).unwrap().starts_with(r#""/p/a" has a set-user-ID"#));
        let two = notice(vec![file("\u{1b}a"), file("b")]).unwrap();
        assert!(two.starts_with(r#""/p/\u{1b}a" and 1 more files have a"#), "{two}");
    }
}
