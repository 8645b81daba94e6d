//! Finds the network namespaces of managed processes, and opens sockets inside them.
#![allow(unsafe_code, reason = "getsockopt(SO_NETNS_COOKIE) has no safe binding")]

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io, mem,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};

use super::{cgroup::Cgroup2, error::NetnsError};

/// Cgroups that are examined for one agent, its own and those nested in it.
const MAX_CGROUPS: usize = 256;
/// Processes that are examined for one agent.
const MAX_PROCESSES: usize = 4096;

/// Option that returns the namespace of a socket: `SO_NETNS_COOKIE` of asm-generic/socket.h. Kernel 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The namespaces of one cgroup's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupNamespaces {
    /// A process of each namespace, by inode number. The daemon's own namespace is left out.
    pub others: BTreeMap<u64, i32>,
    /// There are more cgroups or processes than were examined.
    pub cut: bool,
}

/// The network namespaces of a host, for a process that stays in one and visits others.
///
/// For a process with threads in several namespaces, only the first thread's namespace counts.
#[derive(Debug)]
pub struct Namespaces {
    home: Netns,
    cookie: u64,
}

/// An open namespace. It exists at least as long as this value.
#[derive(Debug)]
struct Netns {
    file: File,
    inode: u64,
}

impl Namespaces {
    /// Records the calling thread's namespace as home.
    ///
    /// # Errors
    /// [`NetnsError::File`], [`NetnsError::Socket`]: the kernel is older than 5.14.
    pub fn of_self() -> Result<Namespaces, NetnsError> {
        let home = Netns::open(Path::new("/proc/thread-self/ns/net"))?;
        let cookie = home.cookie()?;
        Ok(Namespaces { home, cookie })
    }

    /// Returns the cookie of the home namespace.
    pub(super) fn home(&self) -> u64 {
        self.cookie
    }

    /// Returns the namespaces of the processes in a cgroup and below. A removed cgroup has none.
    ///
    /// # Errors
    /// [`NetnsError::File`], [`NetnsError::Kernel`].
    pub fn of_cgroup(&self, cgroups: &Cgroup2, cgroup: &Path) -> Result<CgroupNamespaces, NetnsError> {
        let (members, cut) = walk(cgroups, cgroup)?;
        let mut found = CgroupNamespaces { cut, ..CgroupNamespaces::default() };
        for pid in members {
            // Unreadable: the process has ended, or is a zombie.
            if let Ok(namespace) = fs::metadata(format!("/proc/{pid}/ns/net"))
                && namespace.ino() != self.home.inode
            {
                found.others.entry(namespace.ino()).or_insert(pid);
            }
        }
        Ok(found)
    }

    /// Runs `work` inside the namespace of a process of the cgroup, with the namespace's cookie. The calling thread
    /// then returns to its own namespace.
    ///
    /// # Errors
    /// [`NetnsError`]. If [`is_lost`](NetnsError::is_lost), the thread must end.
    pub fn visit<T>(
        &self,
        process: i32,
        inode: u64,
        cgroup: &Path,
        work: impl FnOnce(u64) -> Result<T, NetnsError>,
    ) -> Result<T, NetnsError> {
        let other = Netns::open(Path::new(&format!("/proc/{process}/ns/net")))?;
        // Checked after opening: the process that now has this id must be a member too, or the visit fails.
        if other.inode != inode || !is_member(process, cgroup) {
            return Err(NetnsError::Moved(process));
        }
        other.enter("enter")?;
        let result = other.cookie().and_then(|cookie| {
            if cookie == self.cookie { Err(NetnsError::NotEntered { inode }) } else { work(cookie) }
        });
        self.home.enter("return to")?;
        result
    }
}

impl Netns {
    fn open(path: &Path) -> Result<Netns, NetnsError> {
        let failed = |source| NetnsError::File { action: "open", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let inode = file.metadata().map_err(failed)?.ino();
        Ok(Netns { file, inode })
    }

    fn enter(&self, action: &'static str) -> Result<(), NetnsError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| NetnsError::Enter {
            action,
            inode: self.inode,
            source: errno.into(),
        })
    }

    /// Returns the cookie of the calling thread's namespace.
    fn cookie(&self) -> Result<u64, NetnsError> {
        let ask = || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            netns_cookie(&socket)
        };
        ask().map_err(|source| NetnsError::Socket {
            action: "ask for the cookie".to_owned(),
            inode: self.inode,
            source,
        })
    }
}

/// Returns the cookie of a socket's network namespace, unique since boot.
pub(super) fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(mem::size_of_val(&cookie)).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes, which `cookie` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Returns the processes in a cgroup and below, up to the limits. A removed cgroup has none.
pub(super) fn members(cgroups: &Cgroup2, cgroup: &Path) -> Result<Vec<i32>, NetnsError> {
    walk(cgroups, cgroup).map(|(members, _)| members)
}

/// Returns the processes, and whether there are more.
fn walk(cgroups: &Cgroup2, cgroup: &Path) -> Result<(Vec<i32>, bool), NetnsError> {
    let (mut members, mut seen) = (Vec::new(), HashSet::new());
    let mut pending = vec![cgroups.path(cgroup)?];
    let (mut looked_at, mut cut) = (0, false);
    while let Some(directory) = pending.pop() {
        looked_at += 1;
        for pid in processes(&directory)? {
            if members.len() == MAX_PROCESSES {
                return Ok((members, true));
            }
            if seen.insert(pid) {
                members.push(pid);
            }
        }
        for nested in directories(&directory)? {
            if looked_at + pending.len() == MAX_CGROUPS {
                cut = true;
                break;
            }
            pending.push(nested);
        }
    }
    Ok((members, cut))
}

/// Whether the process is in this cgroup, or below it (cgroups(7): the line of cgroup2 in `/proc/PID/cgroup`).
fn is_member(process: i32, cgroup: &Path) -> bool {
    let own = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    own.lines().filter_map(|line| line.strip_prefix("0::/")).any(|path| Path::new(path).starts_with(cgroup))
}

fn processes(cgroup: &Path) -> Result<Vec<i32>, NetnsError> {
    let path = cgroup.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(list) => Ok(list.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(source) => Err(NetnsError::File { action: "read", path, source }),
    }
}

fn directories(cgroup: &Path) -> Result<Vec<PathBuf>, NetnsError> {
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(source) => return Err(NetnsError::File { action: "list", path: cgroup.to_owned(), source }),
    };
    let nested = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(nested.map(|entry| entry.path()).collect())
}

/// Whether the cgroup was removed during the walk, or is a threaded one, whose parent lists the processes
/// (`EOPNOTSUPP`).
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP))
}
