//! The agent's own view of the files, without the sockets of the host's services.
//!
//! A mount namespace in which `/run` is new and empty. It contains no bus, resolver, name service cache, container
//! engine or admin socket, through which a service could act for the agent. The CA's bundle covers the system's. The
//! agent cannot undo these mounts: it has no capability, and in its own user namespace they are locked
//! (`mount_namespaces(7)`).

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::devices;
use super::mount_path::{self, MountPaths};
use super::place::{BUNDLE, HIDDEN, JAVA_TRUST_STORE, bind, directory, errno, failed, runtime_dir, tmpfs};
use super::project::Mapped;
use super::truststore::java_trust_store;
use crate::error::LaunchError;
use crate::host::homes::Homes;
use crate::host::user::LaunchUser;

/// Paths of the bundle that a system's programs read: Debian, Alpine and Arch; Fedora and RHEL; openSUSE; the path of
/// BSD, which some systems link to theirs.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Paths of the bundle for Java.
const JAVA_BUNDLES: &[&str] =
    &["/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts"];

/// The `resolv.conf(5)` of the view if the host's names servers that an agent cannot reach.
const RESOLVER: &str = "/run/onecli/resolv.conf";
/// Pinned programs and maps, OneCLI's and others'.
const BPFFS: &str = "/sys/fs/bpf";

/// Directories for temporary files. Each agent has its own.
const TMP: [&str; 2] = ["/tmp", "/var/tmp"];
/// Size limit of the private `/run`.
const RUN_SIZE: &str = "size=64m";

/// The parts of the view.
#[derive(Debug, Clone)]
pub struct View {
    /// The PEM bundle on the host: system roots and OneCLI's CA.
    pub ca_bundle: PathBuf,
    /// Directories that are empty in the view.
    pub hidden: Vec<PathBuf>,
    /// Home directories, which are empty too, except the agent's own.
    pub homes: Homes,
    /// The directory with the files of the agent's home, if it differs from the home of passwd(5).
    pub own_home: Option<PathBuf>,
    /// The agent's own `/tmp` and `/var/tmp`.
    pub tmp: [PathBuf; 2],
    /// Whether DNS goes to the agent's resolver, for any configured server.
    pub resolver: bool,
}

impl View {
    /// Moves this process into its own view, with `directories` in it. The process runs as root and has one thread.
    pub(crate) fn enter(
        &self,
        user: &LaunchUser,
        directories: Vec<Mapped<'_>>,
        notice: &mut dyn FnMut(&str),
    ) -> Result<(), LaunchError> {
        let bundle = fs::read_to_string(&self.ca_bundle).map_err(failed("reading", &self.ca_bundle))?;
        let resolver = resolver(self.resolver);

        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| LaunchError::Confine { step: "unshare(CLONE_NEWNS)", source: errno.into() })?;
        // Unmounts of the host reach the view; mounts of the view do not reach the host.
        let propagation = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(None::<&str>, "/", None::<&str>, propagation, None::<&str>)
            .map_err(errno("changing the propagation of", Path::new("/")))?;

        devices::forbid()?;
        // Before other directories are hidden.
        let own = self.own(user)?;
        make_run(user, &bundle, resolver)?;
        devices::make_dev()?;
        // The kernel's file systems stay as they are, except the pins.
        for place in
            HIDDEN.iter().chain([&BPFFS]).map(Path::new).chain(self.hidden.iter().map(PathBuf::as_path))
        {
            hide(place)?;
        }
        let home = fs::canonicalize(&user.home).ok();
        for place in self.homes.paths().filter(|place| Some(*place) != home.as_deref()) {
            hide(place)?;
        }
        replace(SYSTEM_BUNDLES, Path::new(BUNDLE))?;
        replace(JAVA_BUNDLES, Path::new(JAVA_TRUST_STORE))?;
        self.fill(own.into_iter().chain(directories).collect(), user, notice)
    }

    /// Mounts directories in the view, parents before their children. Homes that become visible with one are hidden
    /// again, unless they are shared themselves.
    fn fill(
        &self,
        mut all: Vec<Mapped<'_>>,
        user: &LaunchUser,
        notice: &mut dyn FnMut(&str),
    ) -> Result<(), LaunchError> {
        // Stable: the caller's directories win over the agent's own.
        all.sort_by(|one, other| one.path().cmp(other.path()));
        let named: Vec<PathBuf> = all.iter().map(|mapped| mapped.path().to_owned()).collect();
        let own = fs::canonicalize(&user.home).ok();
        let others = || self.homes.paths().filter(|home| Some(*home) != own.as_deref());
        let unnamed: Vec<&Path> = others().filter(|home| !named.iter().any(|named| named == home)).collect();
        let mut paths = MountPaths::default();
        for (mapped, place) in all.into_iter().zip(&named) {
            mapped.attach(user, &mut paths, notice)?;
            for home in unnamed.iter().filter(|home| home.starts_with(place)) {
                mount_path::hide(home).map_err(failed("hiding", home))?;
            }
        }
        Ok(())
    }

    /// Opens the agent's own directories for the view: `/tmp`, `/var/tmp`, its home.
    fn own(&self, user: &LaunchUser) -> Result<Vec<Mapped<'static>>, LaunchError> {
        const TAKING: &str = "opening the agent's own";
        let mut own: Vec<(PathBuf, PathBuf)> = Vec::new();
        for (source, place) in self.tmp.iter().zip(TMP) {
            // One may be a link to the other.
            if let Ok(place) = fs::canonicalize(place)
                && !own.iter().any(|(_, other)| *other == place)
            {
                own.push((source.clone(), place));
            }
        }
        let mut mapped: Vec<Mapped> = own
            .into_iter()
            .map(|(source, place)| Mapped::own(&source, &place).map_err(failed(TAKING, &source)))
            .collect::<Result<_, _>>()?;
        if let Ok(place) = fs::canonicalize(&user.home) {
            let is_hidden = || place.parent().is_some_and(|parent| self.homes.around(parent).is_some());
            if let Some(source) = self.own_home.clone().or_else(|| is_hidden().then(|| place.clone())) {
                mapped.push(Mapped::home(&source, &place).map_err(failed(TAKING, &source))?);
            }
        }
        Ok(mapped)
    }
}

fn make_run(user: &LaunchUser, bundle: &str, resolver: Option<(PathBuf, String)>) -> Result<(), LaunchError> {
    let run = Path::new("/run");
    tmpfs(run, &format!("mode=755,{RUN_SIZE}"))?;
    let var_run = Path::new("/var/run");
    if fs::symlink_metadata(var_run).is_ok_and(|found| found.is_dir()) {
        bind(run, var_run)?;
    }
    directory(&run.join("onecli"), 0o755)?;
    file(Path::new(BUNDLE), bundle.as_bytes())?;
    file(Path::new(JAVA_TRUST_STORE), &java_trust_store(bundle))?;
    directory(&run.join("lock"), 0o1777)?;
    directory(&run.join("user"), 0o755)?;
    let own = runtime_dir(user);
    directory(&own, 0o700)?;
    chown(&own, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .map_err(failed("changing the owner of", &own))?;
    match resolver {
        Some((path, text)) if path.starts_with(run) => {
            path.parent().map_or(Ok(()), directories)?;
            file(&path, text.as_bytes())
        }
        Some((path, text)) => {
            file(Path::new(RESOLVER), text.as_bytes())?;
            bind(Path::new(RESOLVER), &path)
        }
        None => Ok(()),
    }
}

/// Returns path and text of `/etc/resolv.conf` in the view. `None` if the host's file fits.
///
/// With systemd-resolved it is a link into /run, and must be made in any case.
fn resolver(own: bool) -> Option<(PathBuf, String)> {
    let place = fs::canonicalize("/etc/resolv.conf").ok()?;
    let hosts = fs::read_to_string(&place).ok()?;
    let text = if own { reachable(&hosts) } else { hosts.clone() };
    (place.starts_with("/run") || !text.lines().eq(hosts.lines())).then_some((place, text))
}

/// Returns resolv.conf(5) without servers that an agent cannot reach. Its resolver answers for any IPv4 server.
fn reachable(text: &str) -> String {
    let is_ipv6 = |line: &&str| line.trim_start().starts_with("nameserver") && line.contains(':');
    let mut kept: Vec<&str> = text.lines().filter(|line| !is_ipv6(line)).collect();
    if !kept.iter().any(|line| line.trim_start().starts_with("nameserver")) {
        kept.push("nameserver 127.0.0.53");
    }
    kept.join("\n") + "\n"
}

/// Mounts `file` over those of `places` that exist.
fn replace(places: &[&str], file: &Path) -> Result<(), LaunchError> {
    let mut done: Vec<PathBuf> = Vec::new();
    for place in places.iter().filter_map(|place| fs::canonicalize(place).ok()) {
        if !done.contains(&place) {
            bind(file, &place)?;
            done.push(place);
        }
    }
    Ok(())
}

/// Covers a directory, if it exists, with one that no user can read.
fn hide(place: &Path) -> Result<(), LaunchError> {
    if !fs::symlink_metadata(place).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("onecli"), place, Some("tmpfs"), flags, Some("mode=000,size=4k"))
        .map_err(errno("hiding", place))
}

/// Makes a directory and its parents, which every user may enter.
fn directories(path: &Path) -> Result<(), LaunchError> {
    for ancestor in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
        if fs::symlink_metadata(ancestor).is_err() {
            directory(ancestor, 0o755)?;
        }
    }
    Ok(())
}

fn file(path: &Path, content: &[u8]) -> Result<(), LaunchError> {
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).and_then(|mut file| {
            file.write_all(content)?;
            file.set_permissions(Permissions::from_mode(0o444))
        });
    written.map_err(failed("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_lists_only_reachable_servers() {
        assert_eq!(
            reachable("nameserver 127.0.0.53\noptions edns0\n"),
            "nameserver 127.0.0.53\noptions edns0\n"
        );
        assert_eq!(
            reachable("search a.test\nnameserver fe80::1%eth0\nnameserver ::1\n"),
            "search a.test\nnameserver 127.0.0.53\n"
        );
        assert_eq!(reachable(""), "nameserver 127.0.0.53\n");
    }
}
