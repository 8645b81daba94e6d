//! The cgroup2 hierarchy: its mount point, and OneCLI's cgroups in it.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::KernelError;

/// Longest file name of the kernel's virtual file systems, bytes.
const NAME_MAX: usize = 255;

/// The host's cgroup2 hierarchy. Paths given to its methods are relative to its root.
#[derive(Clone, Debug)]
pub struct Cgroup2 {
    mount: PathBuf,
}

/// One managed cgroup: a direct child of the agents root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCgroup {
    /// Path below the root of the hierarchy.
    pub path: PathBuf,
    /// Cgroup id, as the kernel programs report it. A cgroup that is removed and re-created has another one.
    pub id: u64,
}

impl Cgroup2 {
    /// Finds the hierarchy in `/proc/self/mountinfo`: `/sys/fs/cgroup`, or a directory in it on hybrid hosts.
    pub fn find() -> Result<Self, KernelError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read(path).map_err(KernelError::cgroup("read", path))?;
        let mount = mount_point(&mounts).ok_or(KernelError::NoCgroup2)?;
        // Every cgroup except the hierarchy's root has this file. If it is present, this is a cgroup namespace or a
        // bind mount, and the levels by which the programs identify agents would be counted from the wrong directory.
        if mount.join("cgroup.type").exists() {
            return Err(KernelError::PartialHierarchy { mount });
        }
        Ok(Self { mount })
    }

    /// Returns the file system path of a cgroup.
    pub fn path(&self, cgroup: &Path) -> Result<PathBuf, KernelError> {
        level(cgroup)?;
        Ok(self.mount.join(cgroup))
    }

    /// Creates a cgroup and its parents if they are missing. They persist until they are removed.
    pub fn ensure(&self, cgroup: &Path) -> Result<(), KernelError> {
        let path = self.path(cgroup)?;
        fs::create_dir_all(&path).map_err(KernelError::cgroup("create cgroup", path))
    }

    /// Returns the cgroup's id, as the kernel programs report it.
    ///
    /// It is the inode number of its directory: kernfs uses the id if inode numbers are 64 bits wide.
    pub fn id_of(&self, cgroup: &Path) -> Result<u64, KernelError> {
        id_of_directory(&self.path(cgroup)?)
    }

    /// Whether the cgroup exists.
    pub fn exists(&self, cgroup: &Path) -> bool {
        self.mount.join(cgroup).exists()
    }

    /// Whether processes are in the cgroup or below it (`populated` of `cgroup.events`). False if it does not exist.
    pub fn is_populated(&self, cgroup: &Path) -> Result<bool, KernelError> {
        let events = self.path(cgroup)?.join("cgroup.events");
        match fs::read_to_string(&events) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            // ENODEV: removed between open(2) and read(2).
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::ENODEV as i32) =>
            {
                Ok(false)
            }
            Err(error) => Err(KernelError::cgroup("read", events)(error)),
        }
    }

    /// Kills every process in the cgroup and below it, including running forks (`cgroup.kill`, Linux 5.14). They may
    /// take a moment to leave.
    pub fn kill(&self, cgroup: &Path) -> Result<(), KernelError> {
        let kill = self.path(cgroup)?.join("cgroup.kill");
        fs::write(&kill, "1").map_err(KernelError::cgroup("kill the processes with", kill))
    }

    /// Creates a cgroup below an existing one. It is no error if it exists. Uses mkdirat(2), which the helper's filter
    /// allows.
    pub fn make(&self, cgroup: &Path) -> Result<(), KernelError> {
        let path = self.path(cgroup)?;
        match mkdirat(AT_FDCWD, &path, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(KernelError::cgroup("create cgroup", path)(errno.into())),
        }
    }

    /// Removes a cgroup and those nested in it, deepest first. It is no error if it does not exist. It must contain no
    /// process.
    pub fn remove(&self, cgroup: &Path) -> Result<(), KernelError> {
        let path = self.path(cgroup)?;
        remove_tree(&path).map_err(KernelError::cgroup("remove cgroup (end its processes first)", path))
    }

    /// Returns the directory of the hierarchy's root.
    pub(super) fn root(&self) -> &Path {
        &self.mount
    }

    /// Moves the whole calling process into a cgroup. Its existing sockets stay with the cgroup in which they were
    /// created.
    pub fn move_self_into(&self, cgroup: &Path) -> Result<(), KernelError> {
        let procs = self.path(cgroup)?.join("cgroup.procs");
        fs::write(&procs, "0").map_err(KernelError::cgroup("move this process with", procs))
    }

    /// Returns the direct children of the agents root, in no order.
    pub fn agents(&self, agents_root: &Path) -> Result<Vec<AgentCgroup>, KernelError> {
        let directory = self.path(agents_root)?;
        let failed = || KernelError::cgroup("list cgroup", directory.clone());
        let mut agents = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    agents
                        .push(AgentCgroup { path: agents_root.join(entry.file_name()), id: metadata.ino() });
                }
                Ok(_) => {}
                // Removed during the listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed()(error)),
            }
        }
        Ok(agents)
    }

    /// Returns the path of an agent's cgroup by its id; `None` if there is none, or no longer.
    ///
    /// Searches only the direct children of the agents root: cgroups that an agent nests below are its own, and
    /// unbounded.
    pub fn path_of_id(&self, agents_root: &Path, id: u64) -> Result<Option<PathBuf>, KernelError> {
        let agents = self.agents(agents_root)?;
        Ok(agents.into_iter().find(|agent| agent.id == id).map(|agent| agent.path))
    }

    /// Whether any cgroup of the hierarchy has this id. Walks over all of them.
    pub(super) fn contains(&self, id: u64) -> Result<bool, KernelError> {
        let mut pending = vec![self.mount.clone()];
        while let Some(directory) = pending.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(KernelError::cgroup("list cgroup", directory)(error)),
            };
            for entry in entries.flatten() {
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                if metadata.is_dir() {
                    if metadata.ino() == id {
                        return Ok(true);
                    }
                    pending.push(entry.path());
                }
            }
        }
        Ok(false)
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match unlinkat(AT_FDCWD, directory, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The id of the cgroup with this directory.
pub(super) fn id_of_directory(path: &Path) -> Result<u64, KernelError> {
    const { assert!(usize::BITS == 64, "cgroup ids are inode numbers on 64-bit kernels only") };
    let metadata = fs::metadata(path).map_err(KernelError::cgroup("look up cgroup", path))?;
    Ok(metadata.ino())
}

/// The level of a cgroup in the hierarchy, whose root is 0.
pub(super) fn level(cgroup: &Path) -> Result<u32, KernelError> {
    let mut level = 0;
    for component in cgroup.components() {
        let Component::Normal(_) = component else {
            level = 0;
            break;
        };
        level += 1;
    }
    if level == 0 {
        return Err(KernelError::CgroupPath { path: cgroup.to_owned() });
    }
    Ok(level)
}

/// Returns the name of an agent's cgroup below the agents root, with systemd and without.
///
/// systemd nests a slice below the one whose name it extends by a dash: `onecli-agents-NAME.slice` is in
/// `onecli-agents.slice`. So a dash in NAME is escaped as `systemd-escape` does it, and so is every byte that is
/// invalid in a unit name (systemd.unit(5)).
///
/// ```
/// # use std::path::Path;
/// # use onecli_sys::kernel::agent_directory;
/// let root = Path::new("onecli.slice/onecli-agents.slice");
/// assert_eq!(agent_directory(root, "build-bot")?, r"onecli-agents-build\x2dbot.slice");
/// # Ok::<(), onecli_sys::kernel::KernelError>(())
/// ```
pub fn agent_directory(agents_root: &Path, agent: &str) -> Result<String, KernelError> {
    let mut name = String::new();
    if let Some(prefix) =
        agents_root.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".slice"))
    {
        name.push_str(prefix);
        name.push('-');
    }
    for (index, byte) in agent.bytes().enumerate() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'_' => name.push(char::from(byte)),
            b'.' if index > 0 => name.push('.'),
            // Writing to a String does not fail.
            _ => _ = write!(name, "\\x{byte:02x}"),
        }
    }
    name.push_str(".slice");
    if agent.is_empty() || name.len() > NAME_MAX {
        return Err(KernelError::AgentName { name: agent.to_owned() });
    }
    Ok(name)
}

/// Returns the first mount point of type cgroup2 in a mountinfo file (`proc_pid_mountinfo(5)`).
pub(super) fn mount_point(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let path = fields.nth(4)?;
        // Any number of optional fields, then a separator, then the type.
        fields.find(|&field| field == b"-")?;
        (fields.next()? == b"cgroup2").then(|| PathBuf::from(OsString::from_vec(unescape(path))))
    })
}

/// Undoes the octal escapes that mountinfo uses for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (byte, tail) {
            path.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            path.push(byte);
            rest = tail;
        }
    }
    path
}
