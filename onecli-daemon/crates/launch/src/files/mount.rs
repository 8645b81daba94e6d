//! System calls on mounts that are not attached yet, and the directories that they are made of.
#![allow(unsafe_code, reason = "open_tree(2), mount_setattr(2) and move_mount(2) have no wrappers")]

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::sys::stat::FileStat;

/// linux/fcntl.h, linux/mount.h; the libc crate does not name them.
const AT_RECURSIVE: libc::c_int = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

/// Opens a directory for use as a place, without following a link.
pub(crate) fn open_directory(path: &Path) -> io::Result<fs::File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    fs::File::options().read(true).custom_flags(flags).open(path)
}

/// Opens the directory at `path` if it is the one that the caller opened.
pub(crate) fn open_same(path: &Path, expected: &FileStat) -> io::Result<fs::File> {
    let opened = open_directory(path)?;
    let found = opened.metadata()?;
    if (found.dev(), found.ino()) == (expected.st_dev, expected.st_ino) {
        Ok(opened)
    } else {
        Err(io::Error::other("the launcher finds another directory at this path"))
    }
}

/// Copies the mount that holds `directory`, with it as the root, and the mounts below.
pub(crate) fn open_tree(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH.cast_unsigned()
        | AT_RECURSIVE.cast_unsigned();
    // SAFETY: the path is a C string that lives as long as the call.
    let opened = unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), c"".as_ptr(), flags) };
    let opened = RawFd::try_from(opened).unwrap_or(-1);
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nothing else refers to it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Forbids set-user-ID bits and devices in a mount, maps its owners by `namespace`, and makes it read-only unless it is
/// `writable`.
pub(crate) fn set_attributes(tree: &OwnedFd, namespace: Option<&OwnedFd>, writable: bool) -> io::Result<()> {
    let mut attributes = adding(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
    if let Some(namespace) = namespace {
        attributes.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = u64::from(namespace.as_raw_fd().cast_unsigned());
    }
    if !writable {
        attributes.attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    mount_setattr(tree.as_fd(), &attributes)
}

/// Makes a mount read-only.
pub(crate) fn set_read_only(tree: &OwnedFd) -> io::Result<()> {
    mount_setattr(tree.as_fd(), &adding(libc::MOUNT_ATTR_RDONLY))
}

/// Makes device files in a mount, and in those below, unusable.
pub(crate) fn forbid_devices(tree: BorrowedFd<'_>) -> io::Result<()> {
    mount_setattr(tree, &adding(libc::MOUNT_ATTR_NODEV))
}

fn adding(attributes: u64) -> libc::mount_attr {
    libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 }
}

/// Changes a mount and those below.
fn mount_setattr(tree: BorrowedFd<'_>, attributes: &libc::mount_attr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | AT_RECURSIVE;
    // SAFETY: path and attributes live as long as the call, and the size is the attributes'.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Attaches a mount at `place`.
pub(crate) fn move_mount(tree: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    // SAFETY: both paths are C strings that live as long as the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            place.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
