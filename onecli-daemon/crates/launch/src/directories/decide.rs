//! Decides which of the caller's directories an agent gets, and how.
//!
//! An agent can put a symbolic link, or another directory, where the caller expects a project. So only the physical
//! path counts, and the caller must have confirmed it for this agent.

use std::path::{Path, PathBuf};

use nix::sys::stat::{FileStat, fstat};

use crate::host::homes::Homes;
use crate::protocol::wire::Project;
use crate::text::shown;
use crate::view::git_dir::Guards;
use crate::view::project::Directory;

/// The decision about the directory in which a command starts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DirectoryDecision {
    /// It stays as it is: the agent has the rights of its user there.
    Plain,
    /// It belongs to the agent, and is mounted in its view unchanged.
    Own,
    /// The agent gets it.
    HandOver,
    /// The agent gets it if the caller confirms that.
    Ask,
    /// Nothing is started, for this reason.
    Refuse(String),
}

/// A requested directory, and the facts about it.
#[derive(Debug)]
pub(crate) struct DirectoryRequest<'a> {
    /// The form of the request.
    pub(crate) project: Project,
    /// Its physical path.
    pub(crate) path: &'a Path,
    /// The user who owns it.
    pub(crate) owner: u32,
    /// The user whose files the agent would get.
    pub(crate) giver: u32,
    /// The agent's user.
    pub(crate) agent: u32,
    /// Home directories of the host.
    pub(crate) homes: &'a Homes,
    /// The directories that the caller confirmed before.
    pub(crate) confirmed: &'a [PathBuf],
}

impl DirectoryRequest<'_> {
    /// Decides.
    pub(crate) fn decide(&self) -> DirectoryDecision {
        let path = shown(self.path);
        match self.project {
            Project::Plain => DirectoryDecision::Plain,
            _ if self.owner == self.agent => DirectoryDecision::Own,
            Project::Named { .. } if self.owner != self.giver => {
                DirectoryDecision::Refuse(format!("{path} does not belong to you"))
            }
            Project::Named { physical: true } => DirectoryDecision::HandOver,
            Project::Named { physical: false } => self.known(false),
            Project::Current { .. } if self.is_home() => DirectoryDecision::Refuse(format!(
                "{path} is or contains a home directory: change to a project, or use --dir {path}"
            )),
            Project::Current { .. } if self.owner != self.giver || self.owner == 0 => {
                DirectoryDecision::Plain
            }
            Project::Current { linked } => self.known(linked),
        }
    }

    fn known(&self, linked: bool) -> DirectoryDecision {
        let path = shown(self.path);
        if self.is_hidden() {
            return DirectoryDecision::Refuse(format!(
                "{path} is in a hidden directory of a home: if the agent may use it, name it with --dir {path}"
            ));
        }
        if self.confirmed.iter().any(|known| self.covers(known)) {
            return DirectoryDecision::HandOver;
        }
        if linked {
            return DirectoryDecision::Refuse(format!(
                "the current directory is {path}: $PWD reaches it through a symbolic link, and it is \
                 outside every directory that you confirmed for this agent. If the agent may use it, name \
                 it with --dir {path}"
            ));
        }
        DirectoryDecision::Ask
    }

    /// Whether it is a home, or a directory of the caller that contains homes. Directories of root that contain homes,
    /// such as `/` and `/home`, are not handed over anyway.
    fn is_home(&self) -> bool {
        self.homes.has(self.path)
            || (self.owner == self.giver && self.owner != 0 && self.homes.are_in(self.path))
    }

    /// Whether a confirmation of `known` covers this directory. A confirmed directory covers what is below it, unless
    /// it contains a home: a home holds more than projects.
    fn covers(&self, known: &Path) -> bool {
        self.path == known || (self.path.starts_with(known) && !self.homes.are_in(known))
    }

    /// Whether a name on the path from the home to the directory begins with a dot. Directories in a confirmed project
    /// are part of that project.
    fn is_hidden(&self) -> bool {
        let below = |path: &Path| {
            self.homes.around(path).and_then(|home| Some(path.strip_prefix(home).ok()?.to_owned()))
        };
        let dotted = |path: &Path| below(path).is_some_and(|below| has_dot(&below));
        let project =
            self.confirmed.iter().any(|known| known != self.path && self.covers(known) && !dotted(known));
        dotted(self.path) && !project
    }
}

fn has_dot(path: &Path) -> bool {
    path.iter().any(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The caller who hands directories over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirectoryOwner {
    /// Effective uid and gid of the caller.
    pub(crate) caller: (u32, u32),
}

impl DirectoryOwner {
    /// Returns the uid and gid whose files the agent gets in a directory. Root may hand over files of any user; other
    /// callers only their own.
    pub(crate) fn ids(self, found: &FileStat) -> (u32, u32) {
        if self.caller.0 == 0 { (found.st_uid, found.st_gid) } else { self.caller }
    }

    /// Checks a directory that is shared in addition to the project.
    pub(crate) fn share(self, directory: &std::os::fd::OwnedFd, writable: bool) -> Result<Directory, String> {
        let found = fstat(directory)
            .map_err(|errno| format!("cannot read the status of a shared directory: {errno}"))?;
        let path = crate::protocol::descriptors::physical_path(directory)
            .ok_or("a shared directory was removed, or is not in the launcher's view of the files")?;
        crate::process::permitted::check(directory, self.caller, writable).map_err(|error| {
            format!("you may not {} {}: {error}", if writable { "write" } else { "read" }, shown(&path))
        })?;
        // Files of root stay with root.
        let ids = Some(self.ids(&found)).filter(|(uid, _)| *uid != 0);
        Ok(Directory { found, path, ids, writable, required: true, guards: Guards::default() })
    }
}

/// Describes the project, once it is decided that the agent gets it.
pub(crate) fn project(found: FileStat, path: &Path, giver: DirectoryOwner, required: bool) -> Directory {
    let ids = Some(giver.ids(&found));
    Directory { ids, found, path: path.to_owned(), writable: true, required, guards: Guards::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: u32 = 1000;
    const AGENT: u32 = 990;
    const CURRENT: Project = Project::Current { linked: false };
    const LINKED: Project = Project::Current { linked: true };
    const NAMED: Project = Project::Named { physical: true };
    const LOOSELY: Project = Project::Named { physical: false };

    fn decide(project: Project, path: &str, owner: u32, confirmed: &[&str]) -> DirectoryDecision {
        let homes = Homes::of(&["/home/alice", "/root", "/home/bob"]);
        let confirmed: Vec<PathBuf> = confirmed.iter().map(PathBuf::from).collect();
        let giver = ALICE;
        let (path, agent) = (Path::new(path), AGENT);
        DirectoryRequest { project, path, owner, giver, agent, homes: &homes, confirmed: &confirmed }.decide()
    }

    #[test]
    fn only_confirmed_directories_are_handed_over_without_a_question() {
        let check = |project, path: &str, owner, confirmed: &[&str], expected: &str| {
            let decision = match decide(project, path, owner, confirmed) {
                DirectoryDecision::Refuse(why) => {
                    assert!(why.contains(path), "the physical path is missing: {why}");
                    "refuse".to_owned()
                }
                other => format!("{other:?}").to_lowercase(),
            };
            assert_eq!(decision, expected, "{project:?} {path} of {owner}, confirmed {confirmed:?}");
        };
        let project = "/home/alice/src/mono";
        check(CURRENT, project, ALICE, &[], "ask");
        check(LOOSELY, project, ALICE, &[], "ask");
        check(NAMED, project, ALICE, &[], "handover");
        for confirmed in [project, "/home/alice/src"] {
            check(CURRENT, project, ALICE, &[confirmed], "handover");
            check(LINKED, project, ALICE, &[confirmed], "handover");
        }
        check(CURRENT, project, ALICE, &["/home/alice/src/mon", "/home/alice/src/mono/a"], "ask");
        // Naming a home once does not open the directories in it.
        check(CURRENT, project, ALICE, &["/home/alice"], "ask");
        check(CURRENT, project, ALICE, &["/"], "ask");
        // Through a link that the agent made.
        check(LINKED, "/home/alice/private", ALICE, &[project], "refuse");
        check(LINKED, "/srv/other", ALICE, &[project], "refuse");
        // Hidden directories of a home, and directories below them.
        for hidden in ["/home/alice/.ssh", "/home/alice/.config/x", "/home/alice/src/.cache/y"] {
            for asked in [CURRENT, LINKED, LOOSELY] {
                check(asked, hidden, ALICE, &[], "refuse");
                check(asked, hidden, ALICE, &[hidden], "refuse");
                check(asked, hidden, ALICE, &["/home/alice"], "refuse");
            }
            check(NAMED, hidden, ALICE, &[], "handover");
        }
        check(CURRENT, "/home/alice/src/mono/.github", ALICE, &[project], "handover");
        check(CURRENT, "/srv/.build/x", ALICE, &[], "ask");
        // Homes.
        for home in ["/home/alice", "/root", "/home/bob"] {
            check(CURRENT, home, ALICE, &[home], "refuse");
        }
        check(CURRENT, "/home", ALICE, &[], "refuse");
        check(NAMED, "/home/alice", ALICE, &[], "handover");
        // Directories of other users stay as they are, and cannot be named.
        for (path, owner) in [("/etc", 0), ("/", 0), ("/home", 0), ("/srv/x", 7)] {
            check(CURRENT, path, owner, &[], "plain");
        }
        check(CURRENT, "/srv/agent", AGENT, &[], "own");
        check(NAMED, "/srv/x", 7, &[], "refuse");
        check(Project::Plain, "/home/alice/.ssh", ALICE, &[], "plain");
    }
}
