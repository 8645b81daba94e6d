//! The steps by which a process becomes the command.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::confine::{landlock, privileges, seccomp};
use crate::error::LaunchError;
use crate::host::program;
use crate::host::user::LaunchUser;
use crate::process::cgroup;
use crate::text::shown;
use crate::view::mounts::View;
use crate::view::project::Mapped;

/// A command that is ready to start.
pub struct Launch {
    /// The user that runs it.
    pub user: LaunchUser,
    /// Uid of the user who launches it.
    pub caller: u32,
    /// Directory of the managed cgroup to enter; `None` leaves the cgroup unchanged.
    pub cgroup: Option<PathBuf>,
    /// The complete environment, from [`environment`](crate::environment).
    pub env: Vec<(OsString, OsString)>,
    /// The command: a path, or a name that the user looks up in the PATH of `env`.
    pub program: OsString,
    /// Arguments after the command's name.
    pub args: Vec<OsString>,
    /// The command's own view of the files; `None` leaves the host's.
    pub view: Option<View>,
    /// The directory in which it starts, as a path in that view.
    pub directory: PathBuf,
    /// Device and inode of that directory on the host. In the view, another one may be at its path.
    pub directory_id: Option<(u64, u64)>,
}

/// Omits arguments and environment, which may contain the user's own credentials.
impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("user", &self.user.name)
            .field("cgroup", &self.cgroup)
            .field("program", &self.program)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Launch {
    /// Replaces this process with the command. Returns only on failure. The process may have dropped privileges by then
    /// and can only exit.
    ///
    /// `directories` are mounted in the view, and then `entered` is called. `notice` receives messages for the user at
    /// the terminal.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub(crate) fn exec(
        self,
        directories: Vec<Mapped<'_>>,
        entered: &dyn Fn(),
        notice: &mut dyn FnMut(&str),
    ) -> Result<Infallible, LaunchError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LaunchError::NotRoot);
        }
        if let Some(directory) = &self.cgroup {
            cgroup::enter(directory, self.caller)?;
        }
        privileges::close_inherited_files()?;
        privileges::forbid_core_files()?;
        if let Some(view) = &self.view {
            view.enter(&self.user, directories, notice)?;
            entered();
        }
        privileges::become_user(&self.user)?;
        privileges::drop_capabilities()?;
        privileges::check_unprivileged(&self.user)?;
        self.settle_directory(notice);
        privileges::forbid_new_privileges()?;
        if !landlock::restrict()? {
            notice(
                "this kernel cannot restrict abstract sockets and signals (needs Landlock of Linux 6.12): \
                 the agent can reach those of the host",
            );
        }
        seccomp::install()?;

        let path = self.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
        let command = || self.program.to_string_lossy().into_owned();
        let file = program::find(&self.program, path.unwrap_or_default())
            .ok_or_else(|| LaunchError::NotFound(command()))?;
        let error = Command::new(file).arg0(&self.program).args(&self.args).env_clear().envs(self.env).exec();
        Err(LaunchError::NotExecutable { command: command(), user: self.user.name, source: error })
    }

    /// Whether the current directory is the requested one. The view's own `/tmp` may contain an old mount point of the
    /// same name.
    fn is_in_directory(&self) -> bool {
        let here = nix::sys::stat::stat(".").ok().map(|found| (found.st_dev, found.st_ino));
        self.directory_id.is_none() || here == self.directory_id
    }

    /// Changes to a directory that the user can enter. Otherwise programs fail in ways that are hard to understand.
    fn settle_directory(&self, notice: &mut dyn FnMut(&str)) {
        // By path: a descriptor would refer to the host's view.
        if std::env::set_current_dir(&self.directory).is_ok() && self.is_in_directory() {
            return;
        }
        let fallback = [self.user.home.as_path(), Path::new("/")]
            .into_iter()
            .find(|directory| std::env::set_current_dir(directory).is_ok());
        if let Some(directory) = fallback {
            notice(&format!(
                "user '{}' cannot enter the current directory; starting in {}",
                self.user.name,
                shown(directory)
            ));
        }
    }
}
