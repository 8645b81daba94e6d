//! The devices of the agent's view: only those that programs need.
//!
//! A device gives access to the kernel past the system call filter. The most dangerous is `/dev/fuse`: its file system
//! presents files with any mode, and overlayfs in a user namespace copies one with its set-user-ID bit into a project.

use std::fs::{self, File, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::place::{bind, directory, errno, failed, tmpfs};
use crate::error::LaunchError;
use crate::files::mount::forbid_devices;

/// The directory in which the new one is made before it covers the host's.
const NEW: &str = "/run/onecli/dev";
/// Character devices that programs expect (OCI runtime specification, "Default Devices").
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Major and minor number of `ptmx` (Linux allocated devices).
const PTMX: (u64, u64) = (5, 2);
/// Links that udev also makes.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes device files in the whole view unusable: there may be one in a chroot or among a container's files.
pub(crate) fn forbid() -> Result<(), LaunchError> {
    let root = Path::new("/");
    let opened = File::open(root).map_err(failed("opening", root))?;
    forbid_devices(opened.as_fd()).map_err(failed("forbidding devices below", root))
}

/// Mounts a new `/dev` over the host's. The terminals are the host's: the caller's may be among them, and programs look
/// up their terminal by name (ttyname(3)). Runs after [`forbid`], and after the view has its own `/run`.
pub(crate) fn make_dev() -> Result<(), LaunchError> {
    let (dev, new) = (Path::new("/dev"), Path::new(NEW));
    directory(new, 0o755)?;
    // Without MS_NODEV, for `ptmx`. Only root makes files in it.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("onecli"), new, Some("tmpfs"), flags, Some("mode=755,size=64k"))
        .map_err(errno("mounting a tmpfs on", new))?;
    for name in DEVICES {
        let (host, place) = (dev.join(name), new.join(name));
        if host.exists() {
            File::create(&place).map_err(failed("making", &place))?;
            bind_device(&host, &place)?;
        }
    }
    for (name, target) in LINKS {
        let link = new.join(name);
        symlink(target, &link).map_err(failed("making", &link))?;
    }
    make_ptmx(&new.join("ptmx"))?;
    let (pts, shm) = (new.join("pts"), new.join("shm"));
    directory(&pts, 0o755)?;
    bind_device(&dev.join("pts"), &pts)?;
    directory(&shm, 0o1777)?;
    tmpfs(&shm, "mode=1777")?;
    mount(Some(new), dev, None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(errno("moving", new))?;
    fs::remove_dir(new).map_err(failed("removing", new))
}

/// Makes `ptmx`. The kernel looks for `pts` in the directory that contains `ptmx`, and refuses a bind mount of that
/// file alone. The file in `pts` is closed on most hosts (`ptmxmode=000`). It is the fallback if devices cannot be
/// made, as in some containers.
fn make_ptmx(place: &Path) -> Result<(), LaunchError> {
    let everybody = Mode::from_bits_truncate(0o666);
    match mknod(place, SFlag::S_IFCHR, everybody, makedev(PTMX.0, PTMX.1)) {
        // The umask reduced the mode.
        Ok(()) => fs::set_permissions(place, Permissions::from_mode(0o666)),
        Err(_) => symlink("pts/ptmx", place),
    }
    .map_err(failed("making", place))
}

/// Binds a device, or a directory of devices, so that they work there.
fn bind_device(host: &Path, place: &Path) -> Result<(), LaunchError> {
    bind(host, place)?;
    // Without MS_NODEV, which the mount inherited from `forbid`.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID;
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
        .map_err(errno("permitting devices at", place))
}
