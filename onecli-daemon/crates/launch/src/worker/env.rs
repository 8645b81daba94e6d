//! The environment with which an agent starts. A pure function: the input is the caller's environment, the output is
//! the agent's complete one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::LaunchError;
use crate::host::user::LaunchUser;
use crate::view::place::{JAVA_TRUST_STORE, runtime_dir};

/// The part of the agent's environment that the daemon determines.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentEnvironment {
    /// A PEM file: the system's roots and OneCLI's CA.
    pub ca_bundle: PathBuf,
    /// Placeholders by variable.
    pub placeholders: BTreeMap<String, String>,
    /// Whether the command has its own view of the files, with the files that OneCLI places there for programs.
    pub own_view: bool,
    /// The explicit proxy's URL with its session token, if connections are not redirected.
    pub proxy: Option<String>,
}

impl std::fmt::Debug for AgentEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentEnvironment").field("ca_bundle", &self.ca_bundle).finish_non_exhaustive()
    }
}

/// Variables copied from the caller, in addition to `LC_*`. Any other variable may hold a credential.
const PASSED_VARIABLES: &[&str] = &["COLORTERM", "LANG", "PATH", "TERM", "TZ"];

/// Variables that name a PEM bundle. The list is the result of tests with the clients, not of their documentation.
pub const CA_VARIABLES: &[&str] = &[
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "PERL_LWP_SSL_CA_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];

/// Curl reads `SSL_CERT_FILE` only if this variable is not set.
const REMOVED: &[&str] = &["SSL_CERT_DIR"];

/// The variables that name the proxy, in both spellings: curl reads `http_proxy` only in lower case, some clients only
/// upper case. Yarn reads neither from version 2 on.
const PROXY_VARIABLES: &[&str] =
    &["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "YARN_HTTPS_PROXY", "YARN_HTTP_PROXY"];
/// Node's `fetch` and `http` use a proxy from the environment only with this variable (22.21 and 24.5).
const NODE_SETTING: (&str, &str) = ("NODE_USE_ENV_PROXY", "1");

/// Returns the variables that make programs use `proxy`, a URL.
pub fn proxy_environment(proxy: &str) -> impl Iterator<Item = (&'static str, &str)> {
    PROXY_VARIABLES.iter().map(move |name| (*name, proxy)).chain([NODE_SETTING])
}

/// The PATH if the caller has none.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Returns the agent's complete environment, sorted by name.
///
/// Of `caller`, only an allow-list and the variables named in `keep` are copied. The daemon's variables override those
/// of `keep`. Otherwise the caller's `OPENAI_API_KEY` would pass the agent the very credential that the placeholder
/// replaces.
///
/// # Errors
/// [`LaunchError::EnvName`] for a name in `keep` that is empty or contains `=` or NUL.
pub fn environment(
    caller: impl IntoIterator<Item = (OsString, OsString)>,
    keep: &[OsString],
    user: &LaunchUser,
    agent: &AgentEnvironment,
) -> Result<Vec<(OsString, OsString)>, LaunchError> {
    if let Some(bad) = keep.iter().find(|name| !is_name(name)) {
        return Err(LaunchError::EnvName(bad.to_string_lossy().into_owned()));
    }
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::from([("PATH".into(), DEFAULT_PATH.into())]);

    env.extend(caller.into_iter().filter(|(name, _)| is_kept(name) || keep.contains(name)));
    for name in REMOVED {
        env.remove(OsStr::new(name));
    }
    let mut set = |name: &str, value: &OsStr| env.insert(name.into(), value.to_owned());
    if !keep.iter().any(|name| name == "HOME") {
        set("HOME", user.home.as_os_str());
    }
    set("USER", OsStr::new(&user.name));
    set("LOGNAME", OsStr::new(&user.name));
    set("SHELL", user.command_shell().as_os_str());
    for name in CA_VARIABLES {
        set(name, agent.ca_bundle.as_os_str());
    }
    if agent.own_view {
        set("XDG_RUNTIME_DIR", runtime_dir(user).as_os_str());
        // A JVM from another source than the system has its own store; Java reads no variable of other programs.
        set("JAVA_TOOL_OPTIONS", OsStr::new(&format!("-Djavax.net.ssl.trustStore={JAVA_TRUST_STORE}")));
    }
    if let Some(proxy) = &agent.proxy {
        for (name, value) in proxy_environment(proxy) {
            set(name, OsStr::new(value));
        }
    }
    for (name, placeholder) in &agent.placeholders {
        set(name, OsStr::new(placeholder));
    }
    Ok(env.into_iter().collect())
}

/// Returns the part of a caller's environment that the client sends to the launcher: the variables that [`environment`]
/// may copy.
pub fn taken_over(
    caller: impl IntoIterator<Item = (OsString, OsString)>,
    keep: &[OsString],
) -> Vec<(OsString, OsString)> {
    caller.into_iter().filter(|(name, _)| is_kept(name) || keep.contains(name)).collect()
}

fn is_kept(name: &OsStr) -> bool {
    PASSED_VARIABLES.iter().any(|kept| name == *kept) || name.as_bytes().starts_with(b"LC_")
}

fn is_name(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().iter().any(|byte| matches!(byte, b'=' | 0))
}
