//! The user that runs an agent.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::error::LaunchError;

/// A user that exists on this host and is not root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchUser {
    /// Login name.
    pub name: String,
    /// Never 0.
    pub uid: Uid,
    /// Primary group, never 0.
    pub gid: Gid,
    /// All groups, the primary one too, never 0.
    pub groups: Vec<Gid>,
    /// Home directory, which may not exist.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// The shell for users whose account has no login shell: the system's, by system(3).
const SHELL: &str = "/bin/sh";

/// Whether this shell of passwd(5) prevents logins.
pub fn is_no_login(shell: &Path) -> bool {
    shell.file_name().is_some_and(|name| name == "nologin" || name == "false")
}

impl LaunchUser {
    /// Returns the shell that programs of the agent start.
    pub(crate) fn command_shell(&self) -> &Path {
        if is_no_login(&self.shell) { Path::new(SHELL) } else { &self.shell }
    }

    /// Looks a user up by name, or by number.
    ///
    /// # Errors
    /// [`LaunchError::NoUser`], [`LaunchError::RootUser`], [`LaunchError::UserLookup`].
    pub fn find(name: &str) -> Result<LaunchUser, LaunchError> {
        let failed = |error: nix::Error| LaunchError::UserLookup {
            user: name.to_owned(),
            source: io::Error::from(error),
        };
        let mut entry = User::from_name(name).map_err(failed)?;
        if let (None, Ok(uid)) = (&entry, name.parse::<u32>()) {
            entry = User::from_uid(Uid::from_raw(uid)).map_err(failed)?;
        }
        let entry = entry.ok_or_else(|| LaunchError::NoUser(name.to_owned()))?;
        if entry.uid.is_root() || entry.gid.as_raw() == 0 {
            return Err(LaunchError::RootUser(name.to_owned()));
        }
        let login = CString::new(entry.name.as_str()).map_err(|_| LaunchError::NoUser(name.to_owned()))?;
        let mut groups = getgrouplist(&login, entry.gid).map_err(failed)?;
        // On some hosts root's group may write files of root; an agent never needs it.
        groups.retain(|group| group.as_raw() != 0);
        Ok(LaunchUser {
            name: entry.name,
            uid: entry.uid,
            gid: entry.gid,
            groups,
            home: entry.dir,
            shell: entry.shell,
        })
    }
}
