//! The bpf file system, in which maps and links persist while no process holds them.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use onecli_common::{ABI_VERSION, AgentEntry, Ident, Waiting, names};

use super::{KernelError, link};

/// The mount point of bpffs, for which the kernel makes a directory.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// Access for the owner only, which is the unused user id below.
const PRIVATE: u32 = 0o700;

/// A user id that no process has; systemd lists it among those never to be assigned (UIDS-GIDS.md).
///
/// Directories of root are open to uid 0 without any capability, which is how the serving process runs. This directory
/// opens only to `CAP_DAC_OVERRIDE`: no other process can remove a pin, or open one.
const NOBODY: u32 = u32::MAX - 2;

/// Directory of the links' pins in a version's directory.
const LINKS: &str = "links";
/// Directory whose presence means that programs of the BPF LSM were attached with the others.
const SECURED: &str = "secured";

/// The pins of this ABI version.
///
/// Maps and links are separate, so that no program has the name of a map. The version prevents a daemon of another one
/// from reusing maps with a different layout.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    base: PathBuf,
    version: PathBuf,
}

impl Pins {
    /// The pins below `base`, which need not exist.
    pub(super) fn below(base: &Path) -> Self {
        Self { base: base.to_owned(), version: base.join(format!("v{ABI_VERSION}")) }
    }

    /// The pin path of a map.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.version.join("maps").join(name)
    }

    /// The pin path of the link of a program.
    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.version.join(LINKS).join(program)
    }

    /// Whether programs of the BPF LSM belong to these pins.
    pub(super) fn are_secured(&self) -> bool {
        self.version.join(SECURED).exists()
    }

    /// Records whether they do.
    pub(super) fn set_secured(&self, secured: bool) -> Result<(), KernelError> {
        let mark = self.version.join(SECURED);
        let (done, needless) = if secured {
            (fs::create_dir(&mark), io::ErrorKind::AlreadyExists)
        } else {
            (fs::remove_dir(&mark), io::ErrorKind::NotFound)
        };
        match done {
            Err(error) if error.kind() != needless => Err(KernelError::bpffs("make or remove", mark)(error)),
            _ => Ok(()),
        }
    }

    /// Refuses pinned maps whose values have another size, because aya and the kernel reuse them unchecked.
    pub(super) fn check_shapes(&self) -> Result<(), KernelError> {
        let shapes = [
            (names::SOCKETS, size_of::<Ident>()),
            (names::BORN, size_of::<u64>()),
            (names::TUP, size_of::<Ident>()),
            (names::AGENTS, size_of::<AgentEntry>()),
            (names::WAITING, size_of::<Waiting>()),
            (names::TAKEN, size_of::<u64>()),
            (names::STATS, size_of::<u64>()),
            (names::LISTENERS, size_of_val(&names::STAMP)),
        ];
        for (map, wanted) in shapes {
            let path = self.map(map);
            if !path.exists() {
                continue;
            }
            let found = MapInfo::from_pin(&path).map_err(KernelError::map("examine", map))?.value_size();
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            if found != wanted {
                return Err(KernelError::ForeignMap { path, found, wanted });
            }
        }
        Ok(())
    }

    /// Makes the directories, closed to processes without privilege, and mounts bpffs if it is not mounted.
    pub(super) fn create(&self) -> Result<(), KernelError> {
        mount_if_missing(&self.base)?;
        for directory in [&self.base, &self.version, &self.version.join("maps"), &self.version.join(LINKS)] {
            match fs::DirBuilder::new().mode(PRIVATE).create(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(KernelError::bpffs("create directory", directory)(error));
                }
                _ => {}
            }
        }
        // The umask did not matter, but an earlier version or an administrator may have opened it.
        let found = fs::metadata(&self.base).map_err(KernelError::bpffs("examine", &self.base))?;
        if found.mode() & 0o7777 != PRIVATE {
            fs::set_permissions(&self.base, fs::Permissions::from_mode(PRIVATE))
                .map_err(KernelError::bpffs("restrict", &self.base))?;
        }
        if found.uid() == NOBODY {
            return Ok(());
        }
        match chown(&self.base, Some(NOBODY), None) {
            // A helper that runs as a service has no CAP_CHOWN. Its daemon is not uid 0, so directories of root are
            // closed to it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && found.uid() == 0 => Ok(()),
            done => done.map_err(KernelError::bpffs("restrict", &self.base)),
        }
    }

    /// Removes the pins of daemons of other ABI versions. Called once this version enforces.
    pub(super) fn remove_other_versions(&self) -> Result<(), KernelError> {
        for path in self.other_versions()? {
            // Detached at once: with both versions' programs in sequence, the second would record the redirected
            // destination as the requested one.
            detach_all(&path.join(LINKS));
            fs::remove_dir_all(&path).map_err(KernelError::bpffs("remove", path))?;
        }
        Ok(())
    }

    /// Returns the pins of daemons of other ABI versions.
    pub(super) fn other_versions(&self) -> Result<Vec<PathBuf>, KernelError> {
        let list = || KernelError::bpffs("list", &self.base);
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.base).map_err(list())? {
            let path = entry.map_err(list())?.path();
            if path != self.version {
                others.push(path);
            }
        }
        Ok(others)
    }

    /// Returns the directory of this version's pins.
    pub(super) fn version(&self) -> String {
        self.version.display().to_string()
    }

    /// Whether the directory is on a bpf file system, or will be once it is made.
    pub(super) fn is_on_bpffs(&self) -> Result<bool, KernelError> {
        let existing = self.base.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        // The daemon mounts it if the kernel has the directory for it.
        let is_mountable = Path::new(MOUNT_POINT).is_dir() && self.base.starts_with(MOUNT_POINT);
        Ok(is_bpffs(existing)? || (is_mountable && !self.base.exists()))
    }

    /// Whether there are certainly no pins: the directory, or one above it, does not exist.
    pub(super) fn are_absent(&self) -> bool {
        self.base.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Removes all pins. Links go first: a link without its maps would still run.
    pub(super) fn remove(&self) -> Result<(), KernelError> {
        if !self.base.exists() {
            return Ok(());
        }
        if !is_bpffs(&self.base)? {
            return Err(KernelError::NotBpffs { path: self.base.clone() });
        }
        let links = self.version.join(LINKS);
        if links.exists() {
            detach_all(&links);
            fs::remove_dir_all(&links).map_err(KernelError::bpffs("remove", links))?;
        }
        fs::remove_dir_all(&self.base).map_err(KernelError::bpffs("remove", &self.base))
    }
}

/// Detaches every link pinned in a directory. A link that cannot be detached this way ends with its pin, a moment
/// later.
fn detach_all(links: &Path) {
    let Ok(entries) = fs::read_dir(links) else { return };
    for entry in entries.flatten() {
        let _with_its_pin = link::open(&entry.path()).and_then(|link| link::detach(&link));
    }
}

/// Mounts bpffs at its usual path if `directory` is below that and not on a bpf file system.
fn mount_if_missing(directory: &Path) -> Result<(), KernelError> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if is_bpffs(existing)? {
        return Ok(());
    }
    if !directory.starts_with(MOUNT_POINT) {
        return Err(KernelError::NotBpffs { path: directory.to_owned() });
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), MOUNT_POINT, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| KernelError::bpffs("mount bpffs at", MOUNT_POINT)(errno.into()))
}

/// Whether `path` is on a bpf file system.
fn is_bpffs(path: &Path) -> Result<bool, KernelError> {
    let stat = statfs(path).map_err(|errno| KernelError::bpffs("examine", path)(errno.into()))?;
    Ok(stat.filesystem_type() == BPF_FS_MAGIC)
}
