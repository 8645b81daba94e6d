//! Places in the agent's view, and the operations that fill one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::error::LaunchError;
use crate::host::user::LaunchUser;

/// The CA's bundle in the agent's view.
pub const BUNDLE: &str = "/run/onecli/ca-bundle.pem";
/// The CA's bundle for Java in the agent's view.
pub const JAVA_TRUST_STORE: &str = "/run/onecli/cacerts.jks";

/// Directories with sockets outside /run: container engines that do not use /run. Sockets of display servers are in
/// /tmp, of which the agent has its own.
pub(crate) const HIDDEN: &[&str] = &["/var/lib/lxd", "/var/lib/incus", "/var/snap/lxd/common/lxd"];

/// The user's directory for sockets and runtime files in the view (`XDG_RUNTIME_DIR`).
pub(crate) fn runtime_dir(user: &LaunchUser) -> PathBuf {
    PathBuf::from(format!("/run/user/{}", user.uid))
}

/// Mounts an empty file system of the agent's view.
pub(crate) fn tmpfs(place: &Path, options: &str) -> Result<(), LaunchError> {
    if !place.is_dir() {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("onecli"), place, Some("tmpfs"), flags, Some(options))
        .map_err(errno("mounting a tmpfs on", place))
}

pub(crate) fn bind(what: &Path, place: &Path) -> Result<(), LaunchError> {
    mount(Some(what), place, None::<&OsStr>, MsFlags::MS_BIND, None::<&OsStr>)
        .map_err(errno("mounting the agent's own", place))
}

pub(crate) fn directory(path: &Path, mode: u32) -> Result<(), LaunchError> {
    DirBuilder::new().mode(mode).create(path).map_err(failed("making", path))?;
    // The umask reduced the mode.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("making", path))
}

pub(crate) fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LaunchError {
    let path = path.to_owned();
    move |source| LaunchError::View { step, path, source }
}

pub(crate) fn errno(step: &'static str, path: &Path) -> impl FnOnce(nix::Error) -> LaunchError {
    let failed = failed(step, path);
    move |errno| failed(errno.into())
}
