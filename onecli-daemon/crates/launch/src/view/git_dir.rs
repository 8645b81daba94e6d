//! Git directories in a project, protected from the agent by mounts.
//!
//! Git runs the programs that its configuration and its hooks name, with the rights of the user who works in the
//! repository. In the agent's view they are mounted read-only, and `.git` is a mount point: the kernel neither renames
//! nor removes mount points (`EBUSY`).
//!
//! This stops programs that write there. It does not stop a malicious agent: in a user namespace with another mount
//! namespace the names are not mount points, and `.git` can be renamed. The agent may also make another repository in a
//! directory below. So the launcher compares these files when the command ends ([`executed`]), even if
//! they are mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use crate::executed::{self, GitPlaces};
use crate::files::mount::{move_mount, open_tree, set_read_only};
use crate::files::tree::{Links, Tree};
use crate::text::shown;

/// Mounts in one project. A repository needs about seven.
const MAX_GUARDS: usize = 3000;

/// The directory of a git directory from which git runs programs.
pub(crate) const HOOKS: &str = "hooks";
/// A directory whose files name repositories as `remote.NAME.url` does. Git itself no longer writes there.
pub(crate) const REMOTES: &str = "remotes";
/// The older form of [`REMOTES`].
pub(crate) const BRANCHES: &str = "branches";
/// A directory with other files, to which git writes too.
pub(crate) const INFO: &str = "info";
/// Files that hold commands, or name commands or the path of such files.
const FILES: [&str; 4] = ["config", "config.worktree", "commondir", ATTRIBUTES];
/// A file in [`INFO`].
pub(crate) const ATTRIBUTES: &str = "info/attributes";
/// The protected files of a linked working tree.
const WORKTREE_FILES: [&str; 3] = ["gitdir", "commondir", "config.worktree"];

/// The kind of protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// A directory that must retain its name.
    Pin,
    /// A directory that must also not change.
    Directory,
    /// A file that must not change.
    File,
}

/// The protected paths of a project, relative to it. Parents come before their children.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Guards {
    all: BTreeMap<PathBuf, Guard>,
    is_cut: bool,
    /// The project holds more than was searched for repositories.
    pub(crate) is_unsearched: bool,
}

impl Guards {
    /// Creates guards for all git directories that were found.
    pub(crate) fn of(found: &GitPlaces) -> Guards {
        let mut guards = Guards::default();
        let repositories: BTreeSet<&Path> = found.repositories.iter().map(PathBuf::as_path).collect();
        for repository in &found.repositories {
            let around = repository.ancestors().skip(1).find(|other| repositories.contains(other));
            guards.pin_between(around, repository);
            guards.add(repository, &[HOOKS, REMOTES, BRANCHES], Guard::Directory);
            guards.add(repository, &[INFO], Guard::Pin);
            guards.add(repository, &FILES, Guard::File);
        }
        for worktree in &found.worktrees {
            guards.pin(worktree.parent().unwrap_or(worktree));
            guards.pin(worktree);
            guards.add(worktree, &WORKTREE_FILES, Guard::File);
        }
        for file in &found.git_files {
            guards.insert(file.clone(), Guard::File);
        }
        guards
    }

    /// Pins a git directory. If it is inside another one, also pins the directories between: `modules` of
    /// `.git/modules/a`.
    fn pin_between(&mut self, around: Option<&Path>, repository: &Path) {
        let steps = repository.ancestors().skip(1);
        let between: Vec<_> = steps.take_while(|step| around.is_some_and(|around| *step != around)).collect();
        for step in between {
            self.pin(step);
        }
        self.pin(repository);
    }

    /// The project itself is already a mount point.
    fn pin(&mut self, path: &Path) {
        if !path.as_os_str().is_empty() {
            self.insert(path.to_owned(), Guard::Pin);
        }
    }

    fn add(&mut self, directory: &Path, names: &[&str], guard: Guard) {
        for name in names {
            self.insert(directory.join(name), guard);
        }
    }

    fn insert(&mut self, path: PathBuf, guard: Guard) {
        if self.all.len() < MAX_GUARDS {
            self.all.insert(path, guard);
        } else {
            self.is_cut = true;
        }
    }

    /// Mounts all of them in the mount `root`, which is in this process's view. Paths that do not exist are left out.
    ///
    /// # Errors
    /// The path that cannot be protected, and the reason.
    pub(crate) fn place(
        &self,
        root: OwnedFd,
        project: &Path,
        notice: &mut dyn FnMut(&str),
    ) -> Result<(), (PathBuf, std::io::Error)> {
        let tree = Tree::new(root);
        for (path, guard) in &self.all {
            match guard.place(&tree, path) {
                Ok(Placed::Done) => {}
                Ok(Placed::Open(why)) => {
                    notice(&format!("cannot protect {} from the agent: {why}", shown(&project.join(path))));
                }
                Err(error) => return Err((project.join(path), error)),
            }
        }
        if self.is_cut {
            notice(&format!("{} holds too many git repositories: not all are protected", shown(project)));
        }
        if self.is_unsearched {
            notice(&executed::cut(project));
        }
        Ok(())
    }
}

/// The result of a guard.
enum Placed {
    Done,
    /// It protects nothing, for this reason.
    Open(&'static str),
}

impl Guard {
    fn place(self, tree: &Tree, path: &Path) -> std::io::Result<Placed> {
        let opened = match tree.open(path, OFlag::O_PATH, Links::Refuse) {
            Ok(opened) => opened,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Placed::Done),
            Err(Errno::ELOOP) => return Ok(Placed::Open("its path contains a symbolic link")),
            Err(errno) => return Err(errno.into()),
        };
        let found = fstat(&opened)?;
        let expected = if self == Guard::File { libc::S_IFREG } else { libc::S_IFDIR };
        match found.st_mode & libc::S_IFMT {
            kind if kind == expected => {}
            libc::S_IFLNK => return Ok(Placed::Open("it is a symbolic link")),
            _ => return Ok(Placed::Open("its type is not the one that git creates")),
        }
        let mount = open_tree(opened.as_fd())?;
        if self != Guard::Pin {
            set_read_only(&mount)?;
        }
        move_mount(&mount, &opened)?;
        if self == Guard::File && found.st_nlink > 1 {
            return Ok(Placed::Open("it has other names (hard links)"));
        }
        Ok(Placed::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn configuration_hooks_and_their_parents_are_protected() {
        let found = GitPlaces {
            repositories: paths(&[".git", ".git/modules/a/b", "vendor/lib/.git"]),
            worktrees: paths(&[".git/worktrees/w"]),
            git_files: paths(&["a/b/.git"]),
            ..GitPlaces::default()
        };
        let guards = Guards::of(&found);
        let guard = |path: &str| guards.all.get(Path::new(path)).copied();
        for path in [".git", ".git/modules", ".git/modules/a", ".git/modules/a/b", "vendor/lib/.git"] {
            assert_eq!(guard(path), Some(Guard::Pin), "{path}");
            let own = path.ends_with("/a") || path.ends_with("modules");
            assert_eq!(guard(&format!("{path}/hooks")), (!own).then_some(Guard::Directory), "{path}");
        }
        for path in [".git/config", ".git/modules/a/b/commondir", "a/b/.git", ".git/worktrees/w/commondir"] {
            assert_eq!(guard(path), Some(Guard::File), "{path}");
        }
        assert_eq!(
            (guard(".git/worktrees"), guard(".git/worktrees/w")),
            (Some(Guard::Pin), Some(Guard::Pin))
        );
        // Directories of the project itself remain unprotected.
        for path in ["", "vendor", "vendor/lib", "a", "a/b", ".git/objects", ".git/HEAD"] {
            assert_eq!(guard(path), None, "{path}");
        }
        let order: Vec<_> = guards.all.keys().collect();
        for (at, path) in order.iter().enumerate() {
            assert!(order[at..].iter().all(|later| !path.starts_with(later) || path == later), "{path:?}");
        }
    }

    #[test]
    fn a_bare_repository_as_the_project_is_protected() {
        let found = GitPlaces { repositories: paths(&[""]), ..GitPlaces::default() };
        let guards = Guards::of(&found);
        let expected = [
            "branches",
            "commondir",
            "config",
            "config.worktree",
            "hooks",
            "info",
            "info/attributes",
            "remotes",
        ];
        assert_eq!(guards.all.keys().collect::<Vec<_>>(), expected.map(Path::new));
    }

    #[test]
    fn guards_are_bounded() {
        let repositories = (0..MAX_GUARDS).map(|n| PathBuf::from(format!("{n}/.git"))).collect();
        let guards = Guards::of(&GitPlaces { repositories, ..GitPlaces::default() });
        assert!(guards.is_cut && guards.all.len() == MAX_GUARDS);
    }
}
