//! Errors of the kernel programs' user-space side, each with a way to repair it.

use std::{error::Error, io, path::PathBuf};

use crate::lock::LockError;
use aya::{EbpfError, maps::MapError};

/// Errors between the daemon and the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No cgroup2 hierarchy in this mount namespace.
    #[error(
        "no cgroup2 file system in /proc/self/mountinfo: mount one (`mount -t cgroup2 none /sys/fs/cgroup`)"
    )]
    NoCgroup2,
    /// Only a part of the cgroup2 hierarchy is visible, so levels cannot be counted from its root.
    #[error(
        "{mount} is not the root of the cgroup2 hierarchy: start the daemon in the host's cgroup namespace \
         (containers: `--cgroupns=host`)"
    )]
    PartialHierarchy {
        /// Where cgroup2 is mounted.
        mount: PathBuf,
    },
    /// A cgroup path that is absolute, empty, or leaves the hierarchy.
    #[error("{path:?} is not a path below the cgroup2 mount: write it relative, without `.` and `..`")]
    CgroupPath {
        /// The path as configured.
        path: PathBuf,
    },
    /// An agent name that gives no valid cgroup name.
    #[error("agent name {name:?} gives no cgroup name of 1 to 255 bytes: choose a shorter one")]
    AgentName {
        /// The agent's name.
        name: String,
    },
    /// A file operation on the cgroup tree failed.
    #[error("cannot {action} {path}: run it as root, and check that the cgroup exists")]
    Cgroup {
        /// The failed action, as a verb phrase.
        action: &'static str,
        /// The cgroup or the file in it.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file operation on the pin directory failed.
    #[error("cannot {action} {path}: run it as root; a bpf file system allows no dot in a name (EPERM)")]
    Bpffs {
        /// The failed action, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another daemon serves the same agents.
    #[error(
        "{path} is in use: {source}; stop that daemon, or set another kernel.agents_root and \
         kernel.bpffs_dir for this one"
    )]
    Claimed {
        /// A file of the agents root, or the pin directory.
        path: PathBuf,
        /// The process that holds it.
        source: LockError,
    },
    /// The pin directory is on another file system.
    #[error(
        "{path} is not on a bpf file system: `mount -t bpf bpf DIRECTORY`, and set kernel.bpffs_dir below it"
    )]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// More ports than the programs have room for.
    #[error("the daemon listens on more than {most} explicit ports: give some of them the same number")]
    TooManyPorts {
        /// The largest possible number.
        most: usize,
    },
    /// The object or its maps were refused.
    #[error(
        "the kernel rejected OneCLI's programs: they need Linux 5.15 or later with BTF, and CAP_BPF, \
         CAP_NET_ADMIN and CAP_PERFMON (root)"
    )]
    Load {
        /// aya's reason.
        source: Box<EbpfError>,
    },
    /// The embedded object lacks a part: it was not built from these sources.
    #[error("the embedded object has no {kind} `{name}`: rebuild it with `cargo xtask ebpf`")]
    Incomplete {
        /// `program` or `map`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// Loading or attaching one program failed.
    #[error("cannot {action} program `{program}`; {hint}")]
    Program {
        /// `load` or `attach`.
        action: &'static str,
        /// Name of the program.
        program: &'static str,
        /// The next step.
        hint: &'static str,
        /// aya's reason; for `load` it holds the verifier's log.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A `bpf(2)` call on a pinned link failed.
    #[error("bpf({call}) failed on {path}, the link of program `{program}`")]
    Link {
        /// Name of the program.
        program: &'static str,
        /// The bpf command.
        call: &'static str,
        /// The pin path of the link.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A pinned link does not match its name. The kernel does not check this when a program is replaced.
    #[error(
        "{path} is not the link of program `{program}` ({found}): another program pinned it; remove the \
         directory with `onecli-daemon --detach` and start again"
    )]
    ForeignLink {
        /// Name of the program.
        program: &'static str,
        /// The pin path of the link.
        path: PathBuf,
        /// A description of the object that was found.
        found: String,
    },
    /// A pinned map has a different layout than this version's.
    #[error(
        "the pinned map {path} belongs to another build (its values have {found} bytes instead of \
         {wanted}): run `onecli-daemon --detach` and start again"
    )]
    ForeignMap {
        /// The pin path of the map.
        path: PathBuf,
        /// Size of its values, bytes.
        found: u32,
        /// Size of this version's values, bytes.
        wanted: u32,
    },
    /// An operation on a map failed.
    #[error("cannot {action} map {map}")]
    Map {
        /// The failed action, as a verb.
        action: &'static str,
        /// Name of the map.
        map: &'static str,
        /// aya's reason.
        source: Box<MapError>,
    },
    /// The network namespace of the calling process is unknown.
    #[error("cannot determine the network namespace of this process")]
    Home(#[source] Box<NetnsError>),
    /// The SYN or the namespace of an accepted connection could not be read.
    #[error("cannot read the origin of an accepted connection: the connection is refused")]
    Accepted(#[source] io::Error),
    /// A listener could not be set to save SYNs.
    #[error("cannot make a listener save SYNs (TCP_SAVE_SYN)")]
    Listener(#[source] io::Error),
    /// The ring buffer could not be waited on.
    #[error("cannot wait for events of map DENY")]
    Events(#[source] io::Error),
    /// The programs' log could not be opened.
    #[error("cannot read the programs' log")]
    Log {
        /// aya-log's reason.
        source: Box<aya_log::Error>,
    },
    /// A record that the kernel programs cannot have written.
    #[error("the kernel's record in map {map} is invalid ({what}): the connection is refused")]
    Corrupt {
        /// Name of the map.
        map: &'static str,
        /// The fault in the record.
        what: &'static str,
    },
    /// The helper passed fewer maps than this version has.
    #[error(
        "the helper passed {found} maps, without {name}: install the same version of both programs, and \
         restart both"
    )]
    MissingMap {
        /// Name of the map.
        name: &'static str,
        /// Number of maps that were passed.
        found: usize,
    },
}

impl KernelError {
    /// Whether another daemon serves the same agents.
    pub fn is_claimed(&self) -> bool {
        matches!(self, Self::Claimed { source: LockError::Held { .. }, .. })
    }

    pub(super) fn map(action: &'static str, map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { action, map, source: Box::new(source) }
    }

    pub(super) fn bpffs(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Bpffs { action, path: path.into(), source }
    }

    pub(super) fn cgroup(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Cgroup { action, path: path.into(), source }
    }
}

/// A network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// A file of `/proc` or the cgroup hierarchy.
    #[error("cannot {action} {path}")]
    File {
        /// The failed action, as a verb.
        action: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The process has ended, or moved, since it was listed.
    #[error("process {0} has ended or left its cgroup or namespace")]
    Moved(i32),
    /// The namespace cannot be entered, or left.
    #[error("cannot {action} network namespace {inode}")]
    Enter {
        /// `enter`, or `return to`.
        action: &'static str,
        /// Its inode number.
        inode: u64,
        /// The error of setns(2).
        source: io::Error,
    },
    /// A socket, inside.
    #[error("cannot {action} inside network namespace {inode}")]
    Socket {
        /// The failed action, as a verb with its object.
        action: String,
        /// Its inode number.
        inode: u64,
        /// The error of the kernel.
        source: io::Error,
    },
    /// According to the kernel, the thread did not enter the namespace.
    #[error("network namespace {inode} has the same cookie as the daemon's")]
    NotEntered {
        /// Its inode number.
        inode: u64,
    },
    /// The cgroup hierarchy.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl NetnsError {
    /// Whether the thread is in a namespace other than its own.
    pub fn is_lost(&self) -> bool {
        matches!(self, NetnsError::Enter { action: "return to", .. })
    }
}
