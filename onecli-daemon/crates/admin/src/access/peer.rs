//! The peer of an admin connection, and its rights.
//!
//! Every fact comes from the host: the uid of `SO_PEERCRED`, the groups of that uid in the user database, and the
//! cgroup of the process.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use onecli_model::Runner;
use onecli_sys::peer::peer_cgroup;

use crate::error::AdminError;

/// The group of administrators. Its members may do everything except read stored values; see [`Rights::Root`].
pub(super) const WRITE_GROUP: &str = "onecli";
/// The group whose members may read status and audit.
pub(super) const AUDIT_GROUP: &str = "onecli-audit";

/// The rights of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Everything. Root and the daemon's own user can read the data directory, so further limits would not protect
    /// anything.
    Root,
    /// Everything except operations that could reveal a stored value: key slots, key rotation, backups, and secrets
    /// whose values the daemon reads elsewhere.
    Write,
    /// Read status and audit.
    Audit,
    /// View the caller's own runs of agents that an administrator lets this user run.
    Runner,
}

/// The known facts about a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: i32,
    /// Whether the peer has the daemon's own uid. Such a process can read all of the daemon's data anyway.
    pub(crate) is_owner: bool,
    /// Names of the relevant groups that the peer belongs to.
    pub(crate) groups: Vec<&'static str>,
    /// Its path in the cgroup2 hierarchy as seen by the daemon. `Err` contains the reason why it is unknown. `None` on
    /// a host without cgroup2.
    pub(crate) cgroup: Result<Option<String>, String>,
}

impl Peer {
    /// Reads the peer's identity from the kernel and the user database. May block on the user database.
    pub(crate) fn of(stream: &impl AsFd) -> io::Result<Peer> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        let uid = credentials.uid();
        Ok(Peer {
            uid,
            gid: credentials.gid(),
            pid: credentials.pid(),
            is_owner: Uid::from_raw(uid) == Uid::effective(),
            groups: groups(uid, credentials.gid()),
            cgroup: peer_cgroup(stream, credentials.pid()),
        })
    }

    /// Builds a peer from the ids that the launcher reports about its client. May block on the user database.
    pub(crate) fn from_reported_ids(uid: u32, gid: u32, cgroup: Option<String>) -> Peer {
        let is_owner = Uid::from_raw(uid) == Uid::effective();
        Peer { uid, gid, pid: 0, is_owner, groups: groups(uid, gid), cgroup: Ok(cgroup) }
    }

    /// Determines the rights. `agents_root` is the path below the cgroup2 mount, without a leading `/`.
    pub(crate) fn rights(&self, agents_root: &str) -> Result<Rights, AdminError> {
        self.check_not_managed(agents_root)?;
        if self.uid == 0 || self.is_owner {
            Ok(Rights::Root)
        } else if self.groups.contains(&WRITE_GROUP) {
            Ok(Rights::Write)
        } else if self.groups.contains(&AUDIT_GROUP) {
            Ok(Rights::Audit)
        } else {
            Err(AdminError::NotPermitted {
                message: format!("uid {} may not use the OneCLI daemon", self.uid),
                hint: format!(
                    "use sudo, or join the group '{WRITE_GROUP}' (administration) or '{AUDIT_GROUP}' (status and audit)"
                ),
            })
        }
    }

    /// Refuses peers inside the agents' cgroups: an agent must not administer its own confinement, whatever its uid.
    pub(crate) fn check_not_managed(&self, agents_root: &str) -> Result<(), AdminError> {
        let refused = |message: String| AdminError::NotPermitted {
            message,
            hint: "run onecli outside the agents' cgroups and containers".to_owned(),
        };
        let path = match &self.cgroup {
            Ok(Some(path)) => path,
            Ok(None) => return Ok(()),
            Err(reason) => return Err(refused(format!("cannot determine your cgroup: {reason}"))),
        };
        let below = Path::new(path.trim_start_matches('/'));
        if below.starts_with(agents_root) {
            Err(refused("agents may not administer OneCLI".to_owned()))
        } else if below.starts_with("..") {
            // The peer is outside the daemon's cgroup namespace, so its path has no meaning here.
            Err(refused("your cgroup is outside the daemon's view of the cgroup hierarchy".to_owned()))
        } else {
            Ok(())
        }
    }
}

/// Returns the relevant groups that `uid` belongs to.
fn groups(uid: u32, gid: u32) -> Vec<&'static str> {
    let gids = gids(uid, gid);
    [WRITE_GROUP, AUDIT_GROUP].into_iter().filter(|name| holds(&gids, name)).collect()
}

/// Returns the groups of the user database and the peer's effective group. Group changes therefore need no new login.
pub(crate) fn gids(uid: u32, gid: u32) -> Vec<Gid> {
    let mut gids = vec![Gid::from_raw(gid)];
    if let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid))
        && let Ok(name) = std::ffi::CString::new(user.name)
    {
        gids.extend(getgrouplist(&name, user.gid).unwrap_or_default());
    }
    gids
}

fn holds(gids: &[Gid], group: &str) -> bool {
    matches!(Group::from_name(group), Ok(Some(group)) if gids.contains(&group.gid))
}

/// Returns whether a process with these ids is one of `runners`. May block on the user database.
pub(crate) fn is_runner(uid: u32, gid: u32, runners: &[Runner]) -> bool {
    let gids = gids(uid, gid);
    runners.iter().any(|runner| matches_runner(uid, &gids, runner))
}

/// Returns whether an entry matches a process with these ids. May block on the user database.
pub(crate) fn matches_runner(uid: u32, gids: &[Gid], runner: &Runner) -> bool {
    match runner {
        Runner::User(name) => matches!(User::from_name(name), Ok(Some(user)) if user.uid.as_raw() == uid),
        Runner::Group(name) => holds(gids, name),
    }
}
