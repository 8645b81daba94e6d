//! The bpf file system, where maps and links are kept while no process holds them.

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

/// Where the kernel wants bpffs mounted, and makes a directory for it.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// For the owner alone, which is [`NOBODY`].
const PRIVATE: u32 = 0o700;

/// A user id that no process has; systemd lists it among those never to be assigned (UIDS-GIDS.md).
///
/// Root's directories are open to uid 0 without any capability, which is what the serving process is. This one opens to
/// `CAP_DAC_OVERRIDE` alone: nobody else removes a pin, or finds one to open.
const NOBODY: u32 = u32::MAX - 2;

/// Directory of the links' pins below a version's.
const LINKS: &str = "links";
/// Directory whose presence says that programs of the BPF LSM were attached with the others.
const SECURED: &str = "secured";

/// The pins of this ABI version.
///
/// Maps and links are apart, so that no program can be named like a map; the version keeps a daemon of another one from
/// reusing maps whose layout it does not know.
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

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.version.join("maps").join(name)
    }

    /// Where the link of a program is pinned.
    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.version.join(LINKS).join(program)
    }

    /// Whether programs of the BPF LSM belong to these.
    pub(super) fn are_secured(&self) -> bool {
        self.version.join(SECURED).exists()
    }

    /// Notes whether they do.
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

    /// Refuses pinned maps whose values have another size: aya and the kernel reuse them unseen.
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

    /// Makes the directories, accessible to nobody without privilege, and mounts bpffs if it is not.
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
        // The umask took nothing away, but a former version or a person may have opened it.
        let found = fs::metadata(&self.base).map_err(KernelError::bpffs("examine", &self.base))?;
        if found.mode() & 0o7777 != PRIVATE {
            fs::set_permissions(&self.base, fs::Permissions::from_mode(PRIVATE))
                .map_err(KernelError::bpffs("restrict", &self.base))?;
        }
        if found.uid() == NOBODY {
            return Ok(());
        }
        match chown(&self.base, Some(NOBODY), None) {
            // A helper that is a service has no CAP_CHOWN. Its daemon is not uid 0: what is root's is closed to it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && found.uid() == 0 => Ok(()),
            done => done.map_err(KernelError::bpffs("restrict", &self.base)),
        }
    }

    /// Removes what daemons of other ABI versions pinned; called when this version enforces.
    pub(super) fn remove_other_versions(&self) -> Result<(), KernelError> {
        for path in self.other_versions()? {
            // At once: both versions' programs in a row would take the redirected destination for the one asked for.
            detach_all(&path.join(LINKS));
            fs::remove_dir_all(&path).map_err(KernelError::bpffs("remove", path))?;
        }
        Ok(())
    }

    /// What daemons of other ABI versions pinned.
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

    /// The directory of this version's pins.
    pub(super) fn version(&self) -> String {
        self.version.display().to_string()
    }

    /// Whether the directory is on a bpf file system, or will be when it is made.
    pub(super) fn is_on_bpffs(&self) -> Result<bool, KernelError> {
        let existing = self.base.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        // The daemon mounts it where the kernel has the directory for it.
        let is_mountable = Path::new(MOUNT_POINT).is_dir() && self.base.starts_with(MOUNT_POINT);
        Ok(is_bpffs(existing)? || (is_mountable && !self.base.exists()))
    }

    /// Whether there is certainly nothing: the directory, or one above it, does not exist.
    pub(super) fn are_absent(&self) -> bool {
        self.base.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Removes everything. Links go first: a link without its maps would still run.
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

/// Detaches every link pinned in a directory. What cannot be detached so goes with its pin, a moment later.
fn detach_all(links: &Path) {
    let Ok(entries) = fs::read_dir(links) else { return };
    for entry in entries.flatten() {
        let _with_its_pin = link::open(&entry.path()).and_then(|link| link::detach(&link));
    }
}

/// Mounts bpffs at its usual place when `directory` is to be there and is not on one.
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
