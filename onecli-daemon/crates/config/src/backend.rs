//! `[backend]`: external sources of secret values.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::parse::check_absolute;

/// `[backend]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backend {
    /// `[backend.vault]`: HashiCorp Vault or OpenBao. Default none.
    pub vault: Option<VaultServer>,
    /// `[backend.exec]`: commands that print values.
    pub exec: Exec,
}

/// `[backend.exec]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exec {
    /// The user that commands run as if root starts the daemon; under systemd the unit names it. No other service
    /// should run as this user, because it could read the values. Default `onecli-executor`.
    pub user: String,
}

impl Default for Exec {
    fn default() -> Exec {
        Exec { user: "onecli-executor".to_owned() }
    }
}

/// `[backend.vault]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultServer {
    /// `https://HOST[:PORT]`; `http://` only for a loopback address. The default port is 8200.
    pub address: String,
    /// The namespace of every path. Default none.
    #[serde(default)]
    pub namespace: Option<String>,
    /// A PEM file with the CA certificates that verify the server's certificate, instead of the system's. Default none.
    #[serde(default, deserialize_with = "maybe_absolute")]
    pub ca_file: Option<PathBuf>,
    /// The login method.
    pub auth: VaultAuth,
    /// The time limit for one fetch, including retries: 1 ms to 1 min. Default `5s`.
    #[serde(default = "five_seconds", deserialize_with = "up_to_a_minute")]
    pub timeout: Duration,
    /// How long a static value is cached: 0 s to 1 h. Default `30s`.
    #[serde(default = "half_a_minute", deserialize_with = "up_to_an_hour")]
    pub cache_ttl: Duration,
    /// How much longer a cached value may be used while the server fails: 0 s to 1 day. Default `0s`: not at all.
    #[serde(default, deserialize_with = "up_to_a_day")]
    pub stale_for: Duration,
}

/// `[backend.vault.auth]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum VaultAuth {
    /// A token from a file.
    Token {
        /// The file with the token.
        #[serde(deserialize_with = "must_be_absolute")]
        token_file: PathBuf,
    },
    /// `AppRole`.
    AppRole {
        /// The mount path of the method. Default `approle`.
        #[serde(default = "approle")]
        mount: String,
        /// The role's id.
        role_id: String,
        /// The file with the secret id, or with a wrapping token for it.
        #[serde(deserialize_with = "must_be_absolute")]
        secret_id_file: PathBuf,
        /// Whether the file contains a wrapping token. Default `false`.
        #[serde(default)]
        wrapped: bool,
    },
    /// The service account token of a Kubernetes pod.
    Kubernetes {
        /// The mount path of the method. Default `kubernetes`.
        #[serde(default = "kubernetes")]
        mount: String,
        /// The role.
        role: String,
        /// The file with the JWT. Default `/var/run/secrets/kubernetes.io/serviceaccount/token`.
        #[serde(default = "service_account", deserialize_with = "must_be_absolute")]
        jwt_file: PathBuf,
    },
    /// Any other JWT.
    Jwt {
        /// The mount path of the method. Default `jwt`.
        #[serde(default = "jwt")]
        mount: String,
        /// The role.
        role: String,
        /// The file with the JWT.
        #[serde(deserialize_with = "must_be_absolute")]
        jwt_file: PathBuf,
    },
}

fn approle() -> String {
    "approle".to_owned()
}

fn kubernetes() -> String {
    "kubernetes".to_owned()
}

fn jwt() -> String {
    "jwt".to_owned()
}

fn service_account() -> PathBuf {
    PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token")
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

fn must_be_absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    check_absolute(PathBuf::deserialize(from)?)
}

fn maybe_absolute<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    must_be_absolute(from).map(Some)
}

fn up_to_a_minute<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match time(from, "1min", Duration::from_mins(1))? {
        Duration::ZERO => Err(D::Error::custom("the time must be at least 1ms")),
        time => Ok(time),
    }
}

fn up_to_an_hour<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    time(from, "1h", Duration::from_hours(1))
}

fn up_to_a_day<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    time(from, "1day", Duration::from_hours(24))
}

fn time<'de, D: Deserializer<'de>>(from: D, most: &str, bound: Duration) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let parsed = humantime::parse_duration(&text).ok().filter(|time| *time <= bound);
    parsed.ok_or_else(|| {
        D::Error::custom(format!("'{text}' is not a time up to {most}; use 500ms, 30s or 1min"))
    })
}
