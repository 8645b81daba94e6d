//! A Docker engine for one test, with its own data and bridge. It does not change the host's packet filter.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::Run;
use crate::image::{self, run};
use crate::{cgroup, need, unique, wait_for};

/// The time limit for the engine to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// The only image.
const IMAGE: &str = "onecli-test:latest";

/// A running engine. Drop ends it, its containers, and everything it created.
pub struct Docker {
    /// `None` until the engine is started.
    engine: Option<Child>,
    dir: TempDir,
    /// The name of the bridge, and of the default cgroup of containers.
    name: String,
    address: Ipv4Addr,
}

impl Docker {
    /// Starts an engine with a bridge on which the host has [`address`](Self::address). Returns `None` and notes it if
    /// the machine cannot run one.
    #[must_use]
    pub fn start(part: &str) -> Option<Self> {
        if !need::root(part)
            || !need::program(part, "dockerd", "docker.io")
            || !need::program(part, "docker", "docker.io")
        {
            return None;
        }
        need::fixture(part, Self::try_start())
    }

    fn try_start() -> Result<Self, String> {
        let number = unique();
        let name = format!("onecli{}x{number}", std::process::id() % 1_000_000);
        // One of 32 networks of TEST-NET-2 (RFC 5737), so that tests of other processes do not collide.
        let network = (std::process::id().wrapping_add(number) % 32) * 8 + 1;
        let address = Ipv4Addr::new(198, 51, 100, u8::try_from(network).map_err(|e| e.to_string())?);
        let dir = tempfile::Builder::new().prefix("onecli-docker-").tempdir().map_err(|e| e.to_string())?;
        let mut docker = Self { engine: None, dir, name, address };
        docker.make_bridge()?;
        docker.engine = Some(docker.spawn()?);
        let answers = || docker.docker(&["version"]).outcome().status.success().then_some(());
        wait_for(PATIENCE, answers).ok_or_else(|| format!("dockerd does not start: {}", docker.log()))?;
        docker.import()?;
        // A sandbox around this machine may still refuse to run containers.
        let first = docker.container(&[], &Run::new("/bin/cat").arg("/proc/self/cgroup")).outcome();
        if first.status.success() { Ok(docker) } else { Err(format!("no container starts: {}", first.err())) }
    }

    /// The host's address on the bridge.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// `run` in a new container, with the options of `docker run`. Programs are named by their paths. The container
    /// sees only those host files that `--volume` names.
    #[must_use]
    pub fn container(&self, options: &[&str], run: &Run) -> Run {
        let mut docker = self.docker(&["run", "--rm"]).args(options);
        for (name, value) in run.variables() {
            docker = docker.arg("--env").arg(format!("{name}={}", value.to_string_lossy()));
        }
        docker.arg(IMAGE).arg(run.program()).args(run.arguments())
    }

    /// `docker` with `args`.
    #[must_use]
    pub fn docker(&self, args: &[&str]) -> Run {
        let socket = format!("unix://{}", self.file("docker.sock").display());
        Run::new("docker").arg("--host").arg(socket).args(args)
    }

    /// The option that puts a container below `cgroup`, a directory of cgroup2. On a host with both hierarchies, runc
    /// joins the same path in each.
    #[must_use]
    pub fn below(cgroup: &Path) -> String {
        let mount = cgroup::mount().expect("cgroup2 is mounted");
        let path = cgroup.strip_prefix(mount).expect("a directory of cgroup2");
        format!("--cgroup-parent=/{}", path.display())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        let log = fs::read(self.file("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log[log.ceil_char_boundary(log.len().saturating_sub(2000))..].to_owned()
    }

    fn make_bridge(&self) -> Result<(), String> {
        run("ip", &["link", "add", &self.name, "type", "bridge"])?;
        run("ip", &["address", "add", &format!("{}/29", self.address), "dev", &self.name])?;
        run("ip", &["link", "set", &self.name, "up"])
    }

    fn spawn(&self) -> Result<Child, String> {
        let log = fs::File::create(self.file("log")).map_err(|e| e.to_string())?;
        let mut command = Command::new("dockerd");
        for (option, place) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
            ("--config-file", "no.json"),
        ] {
            command.arg(option).arg(self.file(place));
        }
        fs::write(self.file("no.json"), "{}").map_err(|e| e.to_string())?;
        command
            .arg("--host")
            .arg(format!("unix://{}", self.file("docker.sock").display()))
            .args(["--bridge", &self.name, "--cgroup-parent", &format!("/{}", self.name)])
            .args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"])
            .args([
                "--userland-proxy=false",
                "--storage-driver=vfs",
                "--exec-opt=native.cgroupdriver=cgroupfs",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("dockerd: {e}"))
    }

    fn import(&self) -> Result<(), String> {
        let image = image::archive(self.dir.path())?;
        let imported = self.docker(&["import", &image.display().to_string(), IMAGE]).outcome();
        if imported.status.success() { Ok(()) } else { Err(format!("docker import: {}", imported.err())) }
    }

    fn end(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        let running = self.docker(&["ps", "--quiet"]).outcome().out();
        for container in running.split_whitespace() {
            let _ = self.docker(&["kill", container]).outcome();
        }
        let containerd = fs::read_to_string(self.file("exec/containerd/containerd.pid"));
        kill(Pid::from_raw(i32::try_from(engine.id()).expect("a process id fits")), Signal::SIGTERM).ok();
        if wait_for(PATIENCE, || engine.try_wait().ok().flatten()).is_none() {
            eprintln!("dockerd does not stop: {}", self.log());
            engine.kill().ok();
            engine.wait().ok();
            if let Some(pid) = containerd.ok().and_then(|pid| pid.trim().parse().ok()) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.end();
        image::unmount_below(self.dir.path());
        if let Err(why) = run("ip", &["link", "delete", &self.name]) {
            eprintln!("bridge {} was not removed: {why}", self.name);
        }
        for left in cgroup::everywhere(&self.name) {
            if let Err(e) = cgroup::remove_empty(&left) {
                eprintln!("cgroup {} was not removed: {e}", left.display());
            }
        }
    }
}
