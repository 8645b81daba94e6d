//! The directory with the agents' homes and the launcher's state of each agent.
//!
//! ```text
//! DIR/USER                       the home in passwd(5): empty, root's; services of the host find nothing in it
//! DIR/.state                     0700, root's
//! DIR/.state/homes/USER          the real home, mounted at the home of passwd(5) in the agent's view
//! DIR/.state/agents/ID/tmp       its /tmp; var-tmp: its /var/tmp
//! DIR/.state/agents/ID/confirmed/UID   directories that this user confirmed for it
//! DIR/.state/agents/ID/start           locked while the launcher searches the directories of one of its commands
//! DIR/.state/runs/PID.N          a running command
//! ```

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use onecli_model::AgentId;

use super::user::LaunchUser;

/// The default directory.
pub const AGENTS_DIR: &str = "/var/lib/onecli-agents";
/// No user of the host has this name: useradd(8) accepts no name that begins with a dot.
const STATE: &str = ".state";
const RUNS: &str = "runs";

/// The directory of the agents' homes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentsDir(PathBuf);

impl Default for AgentsDir {
    fn default() -> AgentsDir {
        AgentsDir(AGENTS_DIR.into())
    }
}

impl AgentsDir {
    /// The directory at this absolute path.
    pub fn at(path: PathBuf) -> AgentsDir {
        AgentsDir(path)
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The part of it that belongs to root alone.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join(STATE)
    }

    /// The home in passwd(5) of a user that was made for an agent.
    pub fn passwd_home(&self, user: &str) -> PathBuf {
        self.0.join(user)
    }

    /// The directory that holds the files of that user's home.
    pub fn home(&self, user: &str) -> PathBuf {
        self.0.join(STATE).join("homes").join(user)
    }

    /// The agent's own temporary files and confirmed directories. They exist until the agent is removed.
    pub fn agent(&self, agent: AgentId) -> PathBuf {
        self.0.join(STATE).join("agents").join(agent.to_string())
    }

    /// Returns the real home of `user` if the home in passwd(5) is an empty one. That holds for users that were made
    /// for agents, and for converted ones.
    pub fn home_of(&self, user: &LaunchUser) -> Option<PathBuf> {
        let home = self.home(&user.name);
        // An account that is not converted yet still has its files there.
        let is_old = fs::metadata(&user.home).is_ok_and(|found| found.uid() == user.uid.as_raw());
        let is_made = user.home == self.passwd_home(&user.name) && !is_old;
        (is_made || home.is_dir()).then_some(home)
    }

    /// Creates the real home of a user if it is missing.
    ///
    /// # Errors
    /// Those of mkdir(2) or chown(2).
    pub fn make_home(&self, user: &str, uid: u32, gid: u32) -> io::Result<PathBuf> {
        self.make_state("homes")?;
        let home = self.home(user);
        make(&home, 0o700, Some((uid, gid)))?;
        Ok(home)
    }

    /// Creates the home that passwd(5) names, empty and owned by root, if it is missing.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn make_passwd_home(&self, user: &str) -> io::Result<PathBuf> {
        make(&self.0, 0o755, None)?;
        let home = self.passwd_home(user);
        make(&home, 0o755, None)?;
        Ok(home)
    }

    /// Creates an agent's own `/tmp` and `/var/tmp` if they are missing.
    pub(crate) fn make_tmp(&self, agent: AgentId) -> io::Result<[PathBuf; 2]> {
        let places = [self.make_agent(agent)?.join("tmp"), self.agent(agent).join("var-tmp")];
        for place in &places {
            make(place, 0o1777, None)?;
        }
        Ok(places)
    }

    /// Creates the directory of an agent if it is missing.
    pub(crate) fn make_agent(&self, agent: AgentId) -> io::Result<PathBuf> {
        self.make_state("agents")?;
        let place = self.agent(agent);
        make(&place, 0o700, None)?;
        Ok(place)
    }

    /// Creates the directory of the records of running commands if it is missing.
    pub(crate) fn make_runs(&self) -> io::Result<PathBuf> {
        self.make_state(RUNS)?;
        Ok(self.runs())
    }

    /// The directory of the records of running commands.
    pub(crate) fn runs(&self) -> PathBuf {
        self.0.join(STATE).join(RUNS)
    }

    fn make_state(&self, part: &str) -> io::Result<()> {
        make(&self.0, 0o755, None)?;
        make(&self.0.join(STATE), 0o700, None)?;
        make(&self.0.join(STATE).join(part), 0o700, None)
    }

    /// Returns the agents that have a directory here.
    pub fn kept_agents(&self) -> Vec<AgentId> {
        let entries = fs::read_dir(self.0.join(STATE).join("agents"));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).collect()
    }
}

/// Creates a directory that no other user can have put there, because root owns its parent.
fn make(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let found = fs::symlink_metadata(path).ok();
    let uid = owner.map_or(nix::unistd::geteuid().as_raw(), |(uid, _)| uid);
    if found
        .as_ref()
        .is_some_and(|found| found.is_dir() && (found.mode() & 0o7777, found.uid()) == (mode, uid))
    {
        return Ok(());
    }
    if owner.is_none()
        && let Some(found) = found.filter(|found| found.uid() != uid)
    {
        let why = format!("{} belongs to uid {}: move or remove it", path.display(), found.uid());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if let Some((uid, gid)) = owner {
        chown(path, Some(uid), Some(gid))?;
    }
    // After the owner, and without the effect of the umask.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_closed_to_other_users_and_named_by_agent() {
        let dir = tempfile::tempdir().unwrap();
        let agents = AgentsDir::at(dir.path().join("agents"));
        let id = AgentId(uuid::Uuid::from_u128(7));
        let [tmp, var_tmp] = agents.make_tmp(id).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&tmp), mode(&var_tmp)), (0o1777, 0o1777));
        assert_eq!((mode(agents.path()), mode(&agents.path().join(STATE))), (0o755, 0o700));
        assert_eq!(agents.kept_agents(), [id]);
        assert_eq!(mode(&agents.make_passwd_home("robot").unwrap()), 0o755);
    }

    #[test]
    fn users_made_for_agents_have_their_home_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let agents = AgentsDir::at(dir.path().to_owned());
        let user = |home: PathBuf| LaunchUser {
            name: "robot".to_owned(),
            uid: nix::unistd::Uid::from_raw(990),
            gid: nix::unistd::Gid::from_raw(990),
            groups: Vec::new(),
            home,
            shell: "/usr/sbin/nologin".into(),
        };
        let real = dir.path().join(".state/homes/robot");
        assert_eq!(agents.home_of(&user(dir.path().join("robot"))), Some(real.clone()));
        assert_eq!(agents.home_of(&user("/home/robot".into())), None);
        // A converted account.
        fs::create_dir_all(&real).unwrap();
        assert_eq!(agents.home_of(&user("/home/robot".into())), Some(real));
    }
}
