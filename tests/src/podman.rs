//! Podman with a private store: it runs manifests of Kubernetes (`podman kube play`).

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::client::Run;
use crate::image;
use crate::{cgroup, need};

/// The default cgroup of Podman's pods.
const CGROUP: &str = "libpod_parent";

/// A store and the containers that run from it. Drop ends and removes all of them.
pub struct Podman {
    dir: TempDir,
}

impl Podman {
    /// An empty store. Returns `None` and notes it if the machine cannot run Podman.
    #[must_use]
    pub fn new(part: &str) -> Option<Self> {
        let here = need::root(part)
            && need::program(part, "podman", "podman")
            && need::program(part, "catatonit", "catatonit")
            && need::program(part, "runc", "runc");
        here.then(Self::make)
    }

    fn make() -> Self {
        // The limits of the host may exceed those that this process may set.
        const SETTINGS: &str =
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        let dir = tempfile::Builder::new().prefix("onecli-podman-").tempdir().expect("a directory");
        fs::write(dir.path().join("containers.conf"), SETTINGS).expect("write settings");
        Self { dir }
    }

    /// `podman` with `args`.
    #[must_use]
    pub fn podman(&self, args: &[&str]) -> Run {
        let file = |name: &str| self.dir.path().join(name);
        Run::new("podman")
            .env("CONTAINERS_CONF", file("containers.conf"))
            .arg("--root")
            .arg(file("store"))
            .arg("--runroot")
            .arg(file("run"))
            .args([
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "--runtime=runc",
                "--log-level=error",
            ])
            .args(args)
    }

    /// Creates an image `name` with the host's curl and shell. It runs `command` as an unprivileged user.
    pub fn import(&self, name: &str, command: &[&str]) {
        let archive = image::archive(self.dir.path()).expect("an archive");
        let command = format!("CMD {}", serde_json::json!(command));
        let import = ["import", "--change=USER 65534", "--change", &command];
        self.podman(&import).arg(archive).arg(name).outcome().ok("podman import");
    }

    /// A directory for the files of a test.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for all in [["pod", "rm", "--all", "--force"], ["rm", "--all", "--force", "--time=0"]] {
            let ended = self.podman(&all).outcome();
            if !ended.status.success() {
                eprintln!("podman {}: {}", all.join(" "), ended.err());
            }
        }
        image::unmount_below(self.dir.path());
        for left in cgroup::everywhere(CGROUP) {
            if let Err(e) = cgroup::remove_empty(&left) {
                eprintln!("cgroup {} was not removed: {e}", left.display());
            }
        }
    }
}
