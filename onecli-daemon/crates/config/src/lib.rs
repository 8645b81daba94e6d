//! The daemon's configuration: a TOML file, overridden by command-line flags.
//!
//! Every key has a default. An unknown key is an error that names file, line and key.

#![forbid(unsafe_code)]

mod backend;
mod layout;
mod listen;
mod overrides;
mod parse;

pub use backend::{Backend, Exec, VaultAuth, VaultServer};
pub use layout::DaemonLayout;
pub use listen::Listen;
pub use overrides::Overrides;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use onecli_model::{Host, NoProxy, ProxyUrl};
use serde::Deserialize;

use parse::{
    absolute, absolute_if_any, absolute_or_none, absolutes, approval_timeout, cgroup_path, check_cgroup_path,
    head_timeout, hosts, idle_timeout, keep_replaced, networks, no_proxy, proxy_url, rate, refused_range,
    size, timeout,
};

/// The configuration file if `--config` is not given. It need not exist.
pub const DEFAULT_FILE: &str = "/etc/onecli/config.toml";

/// The complete configuration of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The directory of key, database, CA and audit segments; mode 0700, owned by the daemon. Default
    /// `/var/lib/onecli`.
    #[serde(deserialize_with = "absolute")]
    pub data_dir: PathBuf,
    /// Database URL. Default: `sqlite://DATA_DIR/onecli.db`; see [`Config::store_url`].
    pub store: Option<String>,
    /// Socket of a helper that runs as a separate service; set only by a flag. `None`: the daemon forks a helper.
    #[serde(skip)]
    pub helper_socket: Option<PathBuf>,
    /// Socket of an executor that runs as a separate service; set only by a flag. `None`: a daemon started by root
    /// forks one.
    #[serde(skip)]
    pub executor_socket: Option<PathBuf>,
    /// `[kernel]`.
    pub kernel: Kernel,
    /// `[listen]`.
    pub listen: Listen,
    /// `[upstream]`.
    pub upstream: Upstream,
    /// `[resolver]`.
    pub resolver: Resolver,
    /// `[dns]`.
    pub dns: Dns,
    /// `[egress]`.
    pub egress: Egress,
    /// `[policy]`.
    pub policy: Policy,
    /// `[audit]`.
    pub audit: Audit,
    /// `[backend]`.
    pub backend: Backend,
    /// `[vault]`.
    pub vault: Vault,
}

/// `[kernel]`: the redirect's cgroups and pins on this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// Whether to redirect connections with eBPF; `--no-ebpf` turns it off. Default `true`.
    pub ebpf: bool,
    /// The cgroup whose direct children are the agents' cgroups, below the cgroup2 mount.
    /// Default `onecli.slice/onecli-agents.slice`.
    #[serde(deserialize_with = "cgroup_path")]
    pub agents_root: String,
    /// The cgroup of the daemon and its helper, below the cgroup2 mount and outside the agents root.
    /// Default `onecli.slice/onecli-daemon.slice`.
    #[serde(deserialize_with = "cgroup_path")]
    pub daemon_cgroup: String,
    /// The directory in which programs, links and maps are pinned. The daemon mounts a bpffs there if none is mounted.
    /// Default `/sys/fs/bpf/onecli`.
    #[serde(deserialize_with = "absolute")]
    pub bpffs_dir: PathBuf,
}

/// `[upstream]`: connections to the services that use the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// PEM files with CA certificates to trust in addition to the system's roots. Default none.
    #[serde(deserialize_with = "absolutes")]
    pub extra_ca_files: Vec<PathBuf>,
    /// The network's proxy, `http://[USER:PASSWORD@]HOST:PORT` or `https://...`. The daemon reaches upstreams through
    /// it, and the proxy resolves their names. Default none.
    #[serde(deserialize_with = "proxy_url")]
    pub proxy: Option<ProxyUrl>,
    /// A file with the password of the user in `proxy`. Default none.
    #[serde(deserialize_with = "absolute_if_any")]
    pub proxy_password_file: Option<PathBuf>,
    /// Names (including all subdomains), addresses and networks that are reached without the proxy. Default none.
    #[serde(deserialize_with = "no_proxy")]
    pub no_proxy: Vec<NoProxy>,
    /// The time limit for an upstream to accept a connection, 1 ms to 5 min. Default `5s`.
    #[serde(deserialize_with = "timeout")]
    pub connect_timeout: Duration,
    /// The time limit for an upstream's response to begin, measured from the last part of the request that it accepted,
    /// 1 ms to 1 h. Language models take minutes. Default `10m`.
    #[serde(deserialize_with = "head_timeout")]
    pub head_timeout: Duration,
    /// The longest pause of an upstream within a response, 1 ms to 24 h. Tunnels, including WebSocket, may be silent
    /// for longer. Default `1h`.
    #[serde(deserialize_with = "idle_timeout")]
    pub idle_timeout: Duration,
}

/// `[resolver]`: name resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resolver {
    /// Names with fixed addresses, which take precedence over DNS. Default none.
    #[serde(deserialize_with = "hosts")]
    pub hosts: BTreeMap<Host, Vec<IpAddr>>,
}

/// `[dns]`: answers to agents' queries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// An IPv4 network, /4 to /20, that is not routed anywhere. The daemon answers with an address of this network if
    /// an agent may not resolve a name, or if only the upstream proxy can resolve it. `""` turns this off: such queries
    /// are REFUSED. Default `"198.18.0.0/15"`.
    #[serde(deserialize_with = "refused_range")]
    pub refused_range: Option<Ipv4Net>,
}

/// `[egress]`: reachable addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Networks that are reachable although they are in a blocked range. Default none.
    #[serde(deserialize_with = "networks")]
    pub allow_addresses: Vec<IpNet>,
}

/// `[policy]`: how rules are applied.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// How long a request waits for an approval before the daemon refuses it, 1 s to 1 h. Default `2m`.
    #[serde(deserialize_with = "approval_timeout")]
    pub approval_timeout: Duration,
}

/// `[audit]`: the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The point at which a decision record counts as written, so that the credential may be sent. Default `strict`.
    pub durability: Durability,
    /// Segments are removed if all of their records are older than this number of days; 0 retains them for ever.
    /// Default 0.
    pub keep_days: u32,
    /// The oldest segments, of any daemon, are removed while all exceed this size; `"0"` retains all. Default `"0"`.
    #[serde(deserialize_with = "size")]
    pub keep_bytes: u64,
    /// Space on the log's file system that is reserved for other agents when one agent has used up the rest. Default
    /// `"256MiB"`.
    #[serde(deserialize_with = "size")]
    pub reserve_bytes: u64,
    /// The sustained number of records per second that one agent may cause; bursts may be ten times as large. Default
    /// 5000.
    #[serde(deserialize_with = "rate")]
    pub agent_rate: u32,
    /// Disk space in bytes that one agent's records may use per day. Each byte of a record line counts as three.
    /// Default `"4GiB"`.
    #[serde(deserialize_with = "size")]
    pub agent_bytes: u64,
    /// Whether refusals of one agent that repeat within ten seconds become one record with a count. Default `true`.
    pub fold_refusals: bool,
    /// Destinations for signed checkpoints in addition to the data directory: `"file:/PATH"` (appended to), `"syslog"`,
    /// `"syslog:/SOCKET"`, `"https://HOST/PATH"` or `"http://..."` (POST). Default none.
    pub witnesses: Vec<Witness>,
}

/// A destination that retains checkpoints, so that the log and its checkpoints cannot be rolled back together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Witness {
    /// A file that checkpoints are appended to: on another disk, or append-only.
    File(PathBuf),
    /// The datagram socket of a syslog service; the host's is `/dev/log`.
    Syslog(PathBuf),
    /// A server that accepts checkpoints by POST.
    Url(String),
}

impl TryFrom<String> for Witness {
    type Error = String;

    fn try_from(text: String) -> Result<Witness, String> {
        let bad = || {
            format!(
                "'{}' is not a valid witness: use \"file:/PATH\", \"syslog\", \"syslog:/SOCKET\" or \
                 \"https://HOST/PATH\"",
                text.escape_debug()
            )
        };
        if text == "syslog" {
            return Ok(Witness::Syslog("/dev/log".into()));
        }
        if let Some((kind @ ("file" | "syslog"), path)) = text.split_once(':') {
            let path = PathBuf::from(path);
            return match kind {
                _ if !path.is_absolute() => Err(bad()),
                "file" => Ok(Witness::File(path)),
                _ => Ok(Witness::Syslog(path)),
            };
        }
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let plain = |rest: &str| !rest.starts_with('/') && !rest.contains(['@', '#']) && rest.is_ascii();
        if rest.is_some_and(|rest| !rest.is_empty() && plain(rest)) {
            Ok(Witness::Url(text))
        } else {
            Err(bad())
        }
    }
}

/// `[vault]`: additional ways to unlock the vault, besides systemd credentials and the key file, and the retention of
/// replaced values.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vault {
    /// A file with a passphrase or a recovery key; `-`, only as a flag, is standard input. Default none.
    #[serde(deserialize_with = "absolute_or_none")]
    pub passphrase_file: Option<PathBuf>,
    /// Read a base64 key from `ONECLI_ROOT_KEY`; only `--insecure-key-from-env` sets it. Default `false`.
    #[serde(skip)]
    pub insecure_key_from_env: bool,
    /// How long a replaced value is retained for `secret rollback`, 1 s to 30 days; `"0"` retains none. Default
    /// `"24h"`.
    #[serde(deserialize_with = "keep_replaced")]
    pub keep_replaced: Duration,
}

/// The point at which a decision record counts as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After fdatasync(2) has returned.
    #[default]
    Strict,
    /// After write(2) has returned; fdatasync(2) follows within about a second.
    Relaxed,
}

impl Default for Audit {
    fn default() -> Audit {
        Audit {
            durability: Durability::Strict,
            keep_days: 0,
            keep_bytes: 0,
            reserve_bytes: 256 << 20,
            agent_rate: 5000,
            agent_bytes: 4 << 30,
            fold_refusals: true,
            witnesses: Vec::new(),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("/var/lib/onecli"),
            store: None,
            helper_socket: None,
            executor_socket: None,
            kernel: Kernel::default(),
            listen: Listen::default(),
            upstream: Upstream::default(),
            resolver: Resolver::default(),
            dns: Dns::default(),
            egress: Egress::default(),
            policy: Policy::default(),
            audit: Audit::default(),
            backend: Backend::default(),
            vault: Vault::default(),
        }
    }
}

impl Default for Kernel {
    fn default() -> Kernel {
        Kernel {
            ebpf: true,
            agents_root: "onecli.slice/onecli-agents.slice".to_owned(),
            daemon_cgroup: "onecli.slice/onecli-daemon.slice".to_owned(),
            bpffs_dir: PathBuf::from("/sys/fs/bpf/onecli"),
        }
    }
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            extra_ca_files: Vec::new(),
            proxy: None,
            proxy_password_file: None,
            no_proxy: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_mins(10),
            idle_timeout: Duration::from_hours(1),
        }
    }
}

impl Default for Vault {
    fn default() -> Vault {
        Vault { passphrase_file: None, insecure_key_from_env: false, keep_replaced: Duration::from_hours(24) }
    }
}

impl Default for Dns {
    fn default() -> Dns {
        Dns { refused_range: Some(parse::REFUSED_RANGE) }
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { approval_timeout: Duration::from_mins(2) }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of open(2) or read(2).
        source: std::io::Error,
    },
    /// A key is unknown or its value is invalid.
    #[error("{}:{line}: {}{message}", path.display(), KeyPrefix(key))]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line in the file, from 1.
        line: usize,
        /// The key with its table, such as `listen.explicit`; empty if the text is not TOML.
        key: String,
        /// The error message.
        message: String,
    },
    /// A command-line flag is invalid.
    #[error("{flag}: {message}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// The error message.
        message: String,
    },
    /// Each value is valid, but they conflict with each other.
    #[error("{0}")]
    Together(String),
}

struct KeyPrefix<'k>(&'k str);

impl fmt::Display for KeyPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() || self.0 == "." { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

impl Config {
    /// Reads `file` (or [`DEFAULT_FILE`], if it exists) and applies `overrides`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Config, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let config = match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(path, &text)?,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Config::default(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        config.overridden(overrides)?.checked()
    }

    fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let refused = |key: String, error: &toml::de::Error| ConfigError::Parse {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            key,
            message: error.message().to_owned(),
        };
        let document = toml::Deserializer::parse(text).map_err(|error| refused(String::new(), &error))?;
        serde_path_to_error::deserialize(document)
            .map_err(|error| refused(error.path().to_string(), error.inner()))
    }

    fn overridden(mut self, flags: Overrides) -> Result<Config, ConfigError> {
        let flag_path = |flag, path: PathBuf| {
            std::path::absolute(path).map_err(|error| ConfigError::Flag { flag, message: error.to_string() })
        };
        if let Some(dir) = flags.data_dir {
            self.data_dir = flag_path("--data-dir", dir)?;
        }
        if let Some(socket) = flags.admin_socket {
            self.listen.admin_socket = flag_path("--admin-socket", socket)?;
        }
        if let Some(root) = flags.agents_root {
            self.kernel.agents_root = check_cgroup_path(&root)
                .map_err(|message| ConfigError::Flag { flag: "--agents-root", message })?;
        }
        if !flags.listen.is_empty() {
            self.listen.explicit = flags.listen;
        }
        match flags.passphrase_file {
            Some(file) if file == Path::new("-") => self.vault.passphrase_file = Some(file),
            Some(file) => self.vault.passphrase_file = Some(flag_path("--passphrase-file", file)?),
            None => {}
        }
        self.vault.insecure_key_from_env |= flags.insecure_key_from_env;
        self.store = flags.store.or(self.store);
        self.kernel.ebpf &= !flags.no_ebpf;
        self.helper_socket = flags.helper_socket;
        self.executor_socket = flags.executor_socket;
        Ok(self)
    }

    fn checked(self) -> Result<Config, ConfigError> {
        let (agents, daemon) = (&self.kernel.agents_root, &self.kernel.daemon_cgroup);
        if Path::new(agents).starts_with(daemon) || Path::new(daemon).starts_with(agents) {
            return Err(ConfigError::Together(format!(
                "kernel.agents_root ({agents}) and kernel.daemon_cgroup ({daemon}) must not be inside each \
                 other: the daemon's own connections would be redirected to itself"
            )));
        }
        if self.upstream.proxy.is_none()
            && (self.upstream.proxy_password_file.is_some() || !self.upstream.no_proxy.is_empty())
        {
            return Err(ConfigError::Together(
                "upstream.proxy_password_file and upstream.no_proxy need upstream.proxy".to_owned(),
            ));
        }
        self.listen.check().map_err(ConfigError::Together)?;
        Ok(self)
    }

    /// Returns the database's URL.
    pub fn store_url(&self) -> String {
        match &self.store {
            Some(url) => url.clone(),
            None => format!("sqlite://{}", self.data_dir.join("onecli.db").display()),
        }
    }
}

/// Returns the line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text[..text.floor_char_boundary(offset)].matches('\n').count() + 1
}

#[cfg(test)]
mod tests;
