//! Files with the set-user-ID or set-group-ID bit, or with capabilities, that were in a directory before the agent got
//! it.
//!
//! write(2) removes these from a file, but a store through mmap(2) with `MAP_SHARED` does not: the agent could replace
//! the program and the bit would remain. Overlayfs copies both into a project. So each such file becomes a read-only
//! mount of itself in the agent's view, where it can be neither written, renamed nor removed. In a user namespace these
//! mounts are locked, and the kernel accepts no directory that contains one as a layer of overlayfs
//! (`has_locked_children`).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::files::mount::{move_mount, open_tree, set_read_only};
use crate::files::set_id::{FlaggedFile, MAX_FILES, Search};
use crate::text::shown;

/// Files that stay open until they are mounted. Further ones are looked up by path again.
const MAX_OPEN: usize = 256;

/// The files of one directory.
#[derive(Debug, Default)]
pub(crate) struct Protected {
    files: Vec<FlaggedFile>,
    /// The first files, opened in the mount that goes into the view. A file that is moved meanwhile is mounted at its
    /// new path.
    opened: Vec<OwnedFd>,
}

impl Protected {
    /// Searches for them in `directory`, whose path is `path`.
    ///
    /// # Errors
    /// The reason why the agent cannot have the directory, and the next step.
    pub(crate) fn find(directory: &OwnedFd, path: &Path) -> Result<Protected, String> {
        let at = shown(path);
        let found = Search::default()
            .through(directory.as_fd())
            .map_err(|error| format!("cannot search {at} for set-user-ID files: {error}"))?;
        if let Some(why) = found.cut_off {
            return Err(format!(
                "cannot search {at} for set-user-ID files: it has {why}; remove some, or share a directory \
                 inside it"
            ));
        }
        if found.more > 0 {
            return Err(format!(
                "{at} has more than {MAX_FILES} files with a set-user-ID or set-group-ID bit, or \
                 capabilities, which an agent must not change: use another directory, or remove the bits: \
                 find {at} -type f -perm /6000 -exec chmod ug-s {{}} +"
            ));
        }
        Ok(Protected { files: found.files, opened: Vec::new() })
    }

    /// Opens the files in `tree`, a mount of the directory.
    ///
    /// # Errors
    /// A file was replaced or removed since it was found.
    pub(crate) fn open_in(&mut self, tree: &OwnedFd) -> Result<(), String> {
        let files = self.files.iter().take(MAX_OPEN);
        let opened = files.map(|file| open(tree, file).map_err(|error| failed(file, &error)));
        self.opened = opened.collect::<io::Result<_>>().map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Returns a message for the caller; `None` if there are no such files.
    pub(crate) fn notice(&self, path: &Path) -> Option<String> {
        let first = path.join(&self.files.first()?.path);
        let others = match self.files.len() - 1 {
            0 => "has".to_owned(),
            others => format!("and {others} more files have"),
        };
        Some(format!(
            "\"{}\" {others} a set-user-ID or set-group-ID bit, or capabilities: the agent cannot change, \
             rename or remove such files",
            shown(&first)
        ))
    }

    /// Makes each file read-only in `tree`, a mount that is in this process's view.
    pub(crate) fn apply(&self, tree: &OwnedFd) -> io::Result<()> {
        for (number, file) in self.files.iter().enumerate() {
            let done = match self.opened.get(number) {
                Some(opened) => protect(opened),
                None => open(tree, file).and_then(|opened| protect(&opened)),
            };
            done.map_err(|error| failed(file, &error))?;
        }
        Ok(())
    }
}

fn failed(file: &FlaggedFile, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", shown(&file.path)))
}

/// Opens a file that was found.
fn open(tree: &OwnedFd, file: &FlaggedFile) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat2(tree, &file.path, flags, Mode::empty(), resolve)?;
    let found = fstat(&opened)?;
    if (found.st_dev, found.st_ino) != file.id {
        return Err(io::Error::other("it was replaced during the search: try again"));
    }
    Ok(opened)
}

/// Mounts a file read-only over itself.
fn protect(file: &OwnedFd) -> io::Result<()> {
    let copy = open_tree(file.as_fd())?;
    set_read_only(&copy)?;
    move_mount(&copy, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::set_id::Fault;

    #[test]
    fn notice_names_the_first_file() {
        let file = |name: &str| FlaggedFile { path: name.into(), fault: Fault::SetId, id: (0, 0) };
        let notice =
            |files: Vec<FlaggedFile>| Protected { files, opened: Vec::new() }.notice(Path::new("/p"));
        assert_eq!(notice(vec![]), None);
        assert!(notice(vec![file("a")]).unwrap().starts_with(r#""/p/a" has a set-user-ID"#));
        let two = notice(vec![file("\u{1b}a"), file("b")]).unwrap();
        assert!(two.starts_with(r#""/p/\u{1b}a" and 1 more files have a"#), "{two}");
    }
}
