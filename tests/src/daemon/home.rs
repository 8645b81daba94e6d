//! The directory, configuration and names of one daemon.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use toml::Table;

use crate::client::Run;
use crate::netns::Netns;
use crate::scripted::ScriptedUpstream;
use crate::upstream::Upstream;
use crate::{bins, cgroup, free_port, unique};

/// The variable that holds the directory of the agents' homes.
pub const AGENTS_DIR: &str = "ONECLI_AGENTS_DIR";

/// Options of a daemon.
pub struct Builder {
    hosts: Table,
    ca_files: Vec<PathBuf>,
    ebpf: bool,
    descriptors: Option<u32>,
    netns: Option<PathBuf>,
    unprivileged: bool,
    journal: Option<PathBuf>,
    extra: Table,
}

impl Builder {
    pub(super) fn new(ebpf: bool) -> Self {
        Self {
            hosts: Table::new(),
            ca_files: Vec::new(),
            ebpf,
            descriptors: None,
            netns: None,
            unprivileged: false,
            journal: None,
            extra: Table::new(),
        }
    }

    /// Makes the daemon resolve `name` to `addresses` instead of asking DNS.
    #[must_use]
    pub fn host(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses: Vec<_> = addresses.iter().map(|&a| toml::Value::from(a)).collect();
        self.hosts.insert(name.to_owned(), addresses.into());
        self
    }

    /// Makes the daemon trust `upstream` and resolve its names to 127.0.0.1.
    #[must_use]
    pub fn upstream(mut self, upstream: &Upstream) -> Self {
        self.ca_files.push(upstream.ca_file().to_owned());
        upstream.names().iter().fold(self, |all, name| all.host(name, &["127.0.0.1"]))
    }

    /// Like [`Builder::upstream`], for an upstream whose bytes the test writes.
    #[must_use]
    pub fn scripted(mut self, upstream: &ScriptedUpstream) -> Self {
        self.ca_files.push(upstream.ca_file().to_owned());
        self.host(upstream.name(), &["127.0.0.1"])
    }

    /// Starts the daemon with `--no-ebpf`.
    #[must_use]
    pub fn no_ebpf(mut self) -> Self {
        self.ebpf = false;
        self
    }

    /// Limits the daemon to this many file descriptors.
    #[must_use]
    pub fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// Makes `netns` the network namespace of the daemon and its agents.
    #[must_use]
    pub fn inside(mut self, netns: &Netns) -> Self {
        self.netns = Some(netns.path());
        self
    }

    /// Starts the daemon as its unit does: under its own user, with a helper that holds the privileges.
    #[must_use]
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    /// Connects the daemon's standard error to a journal that receives at `socket` in this directory.
    #[must_use]
    pub fn journal(mut self, directory: &Path) -> Self {
        self.journal = Some(directory.to_owned());
        self
    }

    /// Merges `toml` into the generated configuration, key by key.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        merge(&mut self.extra, toml.parse().expect("the test's configuration is TOML"));
        self
    }

    /// Creates the directory and the configuration without starting the daemon.
    #[must_use]
    pub fn prepare(self) -> Home {
        let dir = tempfile::Builder::new().prefix("onecli-test-").tempdir_in(base_dir()).expect("temp dir");
        // Agents run under other users and need access to the files below.
        set_mode(dir.path(), 0o755);
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        set_mode(&data, 0o700);
        let name = format!("onecli-test-{}-{}", std::process::id(), unique());
        let (explicit, transparent_port) = (free_port(), free_port());
        let socket = dir.path().join("admin.sock");
        let generated = json!({
            "data_dir": data,
            "store": format!("sqlite://{}", data.join("onecli.db").display()),
            "kernel": {
                "agents_root": format!("{name}.slice/agents.slice"),
                "daemon_cgroup": format!("{name}.slice/daemon.slice"),
                "bpffs_dir": format!("/sys/fs/bpf/{name}"),
            },
            "listen": {
                "explicit": [format!("127.0.0.1:{explicit}")],
                "transparent_port": transparent_port,
                "admin_socket": socket,
            },
            "upstream": { "extra_ca_files": self.ca_files },
            // Tests look for the record of each refusal.
            "audit": { "fold_refusals": false },
            "egress": { "allow_addresses": ["127.0.0.1/32", "::1/128"] },
        });
        let mut config = Table::try_from(&generated).expect("a table");
        let hosts = Table::from_iter([("hosts".to_owned(), self.hosts.clone().into())]);
        config.insert("resolver".to_owned(), hosts.into());
        merge(&mut config, self.extra);
        let config_file = dir.path().join("config.toml");
        std::fs::write(&config_file, toml::to_string(&config).expect("TOML")).unwrap();
        let hosts_file = dir.path().join("hosts");
        std::fs::write(&hosts_file, hosts_text(&self.hosts)).unwrap();
        set_mode(&hosts_file, 0o644);
        std::fs::create_dir(dir.path().join("tools")).unwrap();
        Home {
            dir,
            name,
            explicit,
            transparent_port,
            ebpf: self.ebpf,
            descriptors: self.descriptors,
            netns: self.netns,
            unprivileged: self.unprivileged,
            journal: self.journal,
        }
    }
}

/// The directory for the files of tests. As root this is not /tmp, because agents have a private /tmp.
fn base_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() { "/var/lib".into() } else { std::env::temp_dir() }
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// A hosts(5) file for the agents, which resolve the names of the upstream like any program.
fn hosts_text(hosts: &Table) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (name, addresses) in hosts {
        for address in addresses.as_array().into_iter().flatten().filter_map(toml::Value::as_str) {
            writeln!(text, "{address} {name}").expect("writing to a String succeeds");
        }
    }
    text
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The directory, configuration and names of one daemon. Drop removes all that a daemon left on the machine.
pub struct Home {
    dir: TempDir,
    name: String,
    pub(super) explicit: u16,
    pub(super) transparent_port: u16,
    pub(super) ebpf: bool,
    pub(super) descriptors: Option<u32>,
    pub(super) netns: Option<PathBuf>,
    pub(super) unprivileged: bool,
    pub(super) journal: Option<PathBuf>,
}

impl Home {
    /// The directory with the configuration, data, log and socket.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The daemon's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("config.toml")
    }

    /// Its admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("admin.sock")
    }

    /// Its complete log so far.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.dir().join("daemon.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// `onecli-daemon` with this configuration and `args`, to be run until it exits.
    #[must_use]
    pub fn daemon(&self, args: &[&str]) -> Run {
        Run::new(bins::path("onecli-daemon")).arg("--config").arg(self.config_file()).args(args)
    }

    /// The directory of its agents' homes.
    #[must_use]
    pub fn agents_dir(&self) -> PathBuf {
        self.dir().join("agents")
    }

    /// `onecli` with this daemon's socket and `args`.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Run {
        let run = Run::new(bins::path("onecli")).arg("--socket").arg(self.socket()).args(args);
        run.env(AGENTS_DIR, self.agents_dir())
    }

    /// The directory of the daemon's own cgroup.
    pub(super) fn daemon_cgroup(&self) -> Option<PathBuf> {
        Some(self.slice()?.join("daemon.slice"))
    }

    /// The cgroup that contains the agents root and the daemon's own cgroup.
    fn slice(&self) -> Option<PathBuf> {
        Some(cgroup::mount()?.join(format!("{}.slice", self.name)))
    }

    /// The directory of the agents root cgroup.
    #[must_use]
    pub fn agents_root(&self) -> Option<PathBuf> {
        Some(self.slice()?.join("agents.slice"))
    }

    /// The directory where its kernel programs are pinned.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.name)
    }

    /// The directory of an agent's cgroup.
    ///
    /// # Panics
    /// cgroup2 is not mounted.
    #[must_use]
    pub fn agent_cgroup(&self, name: &str) -> PathBuf {
        self.slice().expect("cgroup2 is mounted").join("agents.slice").join(name)
    }

    /// Paths outside its directory that a daemon of this home left on the machine.
    #[must_use]
    pub fn leftovers(&self) -> Vec<PathBuf> {
        [self.slice(), Some(self.pins())].into_iter().flatten().filter(|p| p.exists()).collect()
    }

    /// Removes pinned programs and cgroups, if any. Returns the paths that remain, so that the caller can check them.
    pub fn clean(&self) -> Vec<PathBuf> {
        if self.pins().exists() {
            let outcome = self.daemon(&["--detach"]).outcome();
            if !outcome.status.success() || self.pins().exists() {
                eprintln!("onecli-daemon --detach did not remove {}: {outcome:?}", self.pins().display());
                // Removing the file drops the last reference to a pinned link, which detaches the link.
                std::fs::remove_dir_all(self.pins()).ok();
            }
        }
        if let Some(slice) = self.slice()
            && let Err(e) = cgroup::remove_tree(&slice)
        {
            eprintln!("cgroup {} was not removed: {e}", slice.display());
        }
        // The other hierarchies, if a container engine used the agents' cgroups.
        for left in cgroup::everywhere(&format!("{}.slice", self.name)) {
            if let Err(e) = cgroup::remove_empty(&left) {
                eprintln!("cgroup {} was not removed: {e}", left.display());
            }
        }
        self.leftovers()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.clean();
        if std::env::var_os("ONECLI_TEST_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}", self.dir().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_configuration_has_documented_keys_that_overrides_replace() {
        let mut builder = Builder::new(false);
        builder.ca_files.push("/x/ca.pem".into());
        let home = builder
            .host("api.test", &["127.0.0.1"])
            .config("[upstream]\nconnect_timeout = \"1s\"\n[egress]\nallow_addresses = []\n")
            .prepare();
        let config: Table = std::fs::read_to_string(home.config_file()).unwrap().parse().unwrap();
        assert_eq!(config["data_dir"].as_str(), home.data_dir().to_str());
        assert_eq!(config["upstream"]["extra_ca_files"][0].as_str(), Some("/x/ca.pem"));
        assert_eq!(config["upstream"]["connect_timeout"].as_str(), Some("1s"));
        assert_eq!(config["egress"]["allow_addresses"].as_array().map(Vec::len), Some(0));
        assert_eq!(config["resolver"]["hosts"]["api.test"][0].as_str(), Some("127.0.0.1"));
        assert!(config["kernel"]["agents_root"].as_str().unwrap().ends_with(".slice/agents.slice"));
        let hosts = std::fs::read_to_string(home.dir().join("hosts")).unwrap();
        assert!(hosts.contains("127.0.0.1 api.test\n"), "{hosts}");
        let dir = home.dir().to_owned();
        drop(home);
        assert!(!dir.exists());
    }
}
