//! `onecli agent env`

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use onecli_api::{AgentEnv, AgentEnvRequest, routes};
use onecli_launch::{CA_VARIABLES, JAVA_TRUST_STORE, java_trust_store, proxy_environment};

use super::env_args::{EnvArgs, EnvFor};
use crate::client::Client;
use crate::error::{CliError, EnvError};
use crate::output::Output;
use crate::output::note;

/// The path of the bundle in a container.
const BUNDLE: &str = onecli_launch::BUNDLE;
/// The directory exists if systemd manages cgroups; container engines then name slices.
const SYSTEMD: &str = "/run/systemd/system";

/// Variables with hosts to reach without the proxy. Values from a shell or an image would bypass it.
const NOT_PROXIED: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Services that the agent's own programs start.
const LOCAL: &str = "localhost,127.0.0.1,::1";

/// One address of the proxy, with its scheme.
#[derive(Debug, Clone, Copy)]
struct Proxy {
    address: SocketAddr,
    scheme: &'static str,
}

/// The files of an agent that runs in a container.
struct Files {
    env: PathBuf,
    bundle: PathBuf,
    java: PathBuf,
}

pub(crate) fn env(client: &Client, args: &EnvArgs, output: &mut Output) -> Result<(), CliError> {
    let path = routes::agent_action(&args.name, "env");
    let env: AgentEnv = client.post(&path, &AgentEnvRequest { hours: args.hours })?;
    if output.is_json() {
        return Ok(output.document(&env)?);
    }
    let proxy = address(args, &env)?;
    if args.kind == EnvFor::Shell {
        let variables = variables(&env, proxy, &env.ca_bundle.display().to_string(), None);
        for (name, value) in variables {
            output.line(&format!("export {name}={}", quoted(&value)))?;
        }
        return Ok(());
    }
    if proxy.address.ip().is_loopback() && env.cgroup.is_none() {
        note(&format!(
            "the proxy listens on loopback only ({}), which a container reaches only with --network=host: add \
             the bridge's address to listen.explicit",
            proxy.address
        ));
    }
    let files = write(args, &env, proxy)?;
    let cgroup = env.cgroup.as_deref().map(|cgroup| cgroup_parent(cgroup, Path::new(SYSTEMD).exists()));
    match args.kind {
        EnvFor::Compose => Ok(output.line(compose(&args.service, &files, cgroup).trim_end())?),
        _ => Ok(output.line(&docker(&files, cgroup))?),
    }
}

/// Returns the proxy's address and scheme. Not every client supports TLS to a proxy, so plain HTTP is the default if
/// both are available.
fn address(args: &EnvArgs, env: &AgentEnv) -> Result<Proxy, EnvError> {
    let plain = env.addresses.iter().map(|&address| Proxy { address, scheme: "http" });
    let tls = env.tls_addresses.iter().map(|&address| Proxy { address, scheme: "https" });
    let all: Vec<Proxy> = plain.chain(tls).collect();
    if let Some(wanted) = args.proxy {
        if let Some(proxy) = all.iter().find(|proxy| proxy.address == wanted) {
            return Ok(*proxy);
        }
        let listening = all.iter().map(|proxy| proxy.address.to_string()).collect::<Vec<_>>().join(", ");
        return Err(EnvError::Address(wanted, listening));
    }
    let local = args.kind == EnvFor::Shell;
    let fitting = all.iter().find(|proxy| proxy.address.ip().is_loopback() == local);
    // The daemon responds only if the proxy listens.
    let nowhere = Proxy { address: SocketAddr::from(([127, 0, 0, 1], 0)), scheme: "http" };
    Ok(*fitting.or(all.first()).unwrap_or(&nowhere))
}

/// Returns all variables, by name.
fn variables(env: &AgentEnv, proxy: Proxy, bundle: &str, java: Option<&str>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let proxy = format!("{}://{}:{}@{}", proxy.scheme, env.agent, env.token, proxy.address);
    all.extend(proxy_environment(&proxy).map(|(name, value)| (name.to_owned(), value.to_owned())));
    all.extend(NOT_PROXIED.map(|name| (name.to_owned(), LOCAL.to_owned())));
    all.extend(CA_VARIABLES.iter().map(|name| ((*name).to_owned(), bundle.to_owned())));
    if let Some(java) = java {
        all.insert("JAVA_TOOL_OPTIONS".to_owned(), format!("-Djavax.net.ssl.trustStore={java}"));
    }
    all.extend(env.placeholders.clone());
    all
}

/// Quotes a value for a shell, without expansion.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn write(args: &EnvArgs, env: &AgentEnv, proxy: Proxy) -> Result<Files, EnvError> {
    let directory = match &args.out {
        Some(directory) => directory.clone(),
        None => runtime_dir()?.join("onecli-env").join(args.name.as_str()),
    };
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| EnvError::File { step, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed("make", &directory))?;
    let directory = fs::canonicalize(&directory).map_err(failed("find", &directory))?;
    let text = directory.display().to_string();
    if text.contains([' ', '\t', '\n', ':', '\'', '"', '\\', '$']) {
        return Err(EnvError::Path(text));
    }
    let pem = fs::read_to_string(&env.ca_bundle).map_err(failed("read", &env.ca_bundle))?;
    let all = variables(env, proxy, BUNDLE, Some(JAVA_TRUST_STORE));
    let lines: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let lines = lines.concat();
    let files = Files {
        env: directory.join("env"),
        bundle: directory.join("ca-bundle.pem"),
        java: directory.join("cacerts.jks"),
    };
    for (path, content, mode) in [
        (&files.env, lines.as_bytes(), 0o600),
        (&files.bundle, pem.as_bytes(), 0o644),
        (&files.java, &java_trust_store(&pem), 0o644),
    ] {
        replace(path, content, mode).map_err(failed("write", path))?;
    }
    Ok(files)
}

/// Writes a temporary file and renames it, so that no reader sees a partial file or an old file's mode.
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    fs::rename(beside, path)
}

/// Returns a directory that only this user can write.
fn runtime_dir() -> Result<PathBuf, EnvError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/run"));
    }
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).ok_or(EnvError::NoDirectory)
}

/// Returns the cgroup in the engine's notation. The systemd driver uses only the slice name.
fn cgroup_parent(cgroup: &str, systemd: bool) -> &str {
    let slice = cgroup.rsplit('/').next().unwrap_or(cgroup);
    let is_slice = Path::new(slice).extension().is_some_and(|extension| extension == "slice");
    if systemd && is_slice { slice } else { cgroup }
}

/// A default capability of container engines that a managed container must not have. Without the BPF LSM in the kernel,
/// its packets would bypass every hook of OneCLI.
const PACKETS: &str = "NET_RAW";

fn docker(files: &Files, cgroup: Option<&str>) -> String {
    let mut options = vec![
        format!("--env-file={}", files.env.display()),
        format!("--volume={}:{BUNDLE}:ro", files.bundle.display()),
        format!("--volume={}:{JAVA_TRUST_STORE}:ro", files.java.display()),
    ];
    if let Some(cgroup) = cgroup {
        options.push(format!("--cgroup-parent={cgroup}"));
        options.push(format!("--cap-drop={PACKETS}"));
    }
    options.join(" ")
}

/// Returns an override for a Compose file that contains the service.
fn compose(service: &str, files: &Files, cgroup: Option<&str>) -> String {
    let cgroup =
        cgroup.map(|cgroup| format!("    cgroup_parent: {cgroup}\n    cap_drop:\n      - {PACKETS}\n"));
    let cgroup = cgroup.unwrap_or_default();
    format!(
        "version: \"2.4\"\nservices:\n  {service}:\n    env_file:\n      - {}\n    volumes:\n      - {}:{BUNDLE}:ro\n      - {}:{JAVA_TRUST_STORE}:ro\n{cgroup}",
        files.env.display(),
        files.bundle.display(),
        files.java.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_value_is_not_expanded_by_a_shell() {
        assert_eq!(quoted("a$b'c`d"), r"'a$b'\''c`d'");
    }

    /// Clients that ignore `HTTPS_PROXY` read these variables, or would bypass the proxy because of them.
    #[test]
    fn variables_cover_clients_that_ignore_the_common_ones() {
        let env = AgentEnv {
            agent: "coder".parse().unwrap(),
            addresses: Vec::new(),
            tls_addresses: Vec::new(),
            token: "onecli_st_x".to_owned(),
            expires: jiff::Timestamp::UNIX_EPOCH,
            ca_bundle: PathBuf::from("/ca.pem"),
            placeholders: BTreeMap::new(),
            cgroup: None,
        };
        let proxy = Proxy { address: SocketAddr::from(([127, 0, 0, 1], 10255)), scheme: "http" };
        let all = variables(&env, proxy, "/ca.pem", None);
        for name in ["HTTPS_PROXY", "http_proxy", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"] {
            assert_eq!(all[name], "http://coder:onecli_st_x@127.0.0.1:10255", "{name}");
        }
        assert_eq!(all["NODE_USE_ENV_PROXY"], "1");
        assert_eq!((&all["NO_PROXY"], &all["no_proxy"]), (&LOCAL.to_owned(), &LOCAL.to_owned()));
        assert!(!LOCAL.contains('*') && !LOCAL.contains(".test"));
    }

    #[test]
    fn cgroup_parent_is_a_slice_name_under_systemd() {
        let cgroup = "/onecli.slice/onecli-agents.slice/onecli-agents-a.slice";
        assert_eq!(cgroup_parent(cgroup, true), "onecli-agents-a.slice");
        assert_eq!(cgroup_parent(cgroup, false), cgroup);
        assert_eq!(cgroup_parent("/x/y", true), "/x/y");
    }
}
