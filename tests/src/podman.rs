//! Podman with a store of a test's own: it runs manifests of Kubernetes (`podman kube play`).

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::client::Run;
use crate::image;
use crate::{cgroup, need};

/// The cgroup that Podman puts pods in where it is not told otherwise.
const CGROUP: &str = "libpod_parent";

/// A store and what runs from it. Dropping it ends and removes all of it.
pub struct Podman {
    dir: TempDir,
}

impl Podman {
    /// An empty store; `None`, and said so, where the machine cannot run it.
    #[must_use]
    pub fn new(part: &str) -> Option<Self> {
        let here = need::root(part)
            && need::program(part, "podman", "podman")
            && need::program(part, "catatonit", "catatonit")
            && need::program(part, "runc", "runc");
        here.then(Self::make)
    }

    fn make() -> Self {
        // The host's limits may be above what may be set here.
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

    /// Makes an image `name` of the host's curl and shell, run by nobody, whose command is `command`.
    pub fn import(&self, name: &str, command: &[&str]) {
        let archive = image::archive(self.dir.path()).expect("an archive");
        let command = format!("CMD {}", serde_json::json!(command));
        let import = ["import", "--change=USER 65534", "--change", &command];
        self.podman(&import).arg(archive).arg(name).outcome().ok("podman import");
    }

    /// Where a test may put files for it.
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
                eprintln!("cgroup {} stays behind: {e}", left.display());
            }
        }
    }
}
