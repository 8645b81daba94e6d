//! The ways in which common clients trust the CA in an agent's environment.

use std::path::{Path, PathBuf};

/// The way a client learns of the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It reads a variable that names the bundle.
    Variable(&'static str),
    /// It reads the system's bundle, over which the agent's own view mounts another.
    SystemBundle,
    /// Java's trust store.
    JavaStore,
    /// It has its own certificates, which OneCLI does not change.
    Own,
}

/// Programs, and how they trust the CA. Those with a test are in the system tests (`launch::clients`).
const CLIENTS: &[(&str, Trust)] = &[
    ("aws", Trust::Variable("AWS_CA_BUNDLE")),
    ("bun", Trust::Variable("NODE_EXTRA_CA_CERTS")),
    ("cargo", Trust::Variable("CARGO_HTTP_CAINFO")),
    ("curl", Trust::Variable("CURL_CA_BUNDLE")),
    ("deno", Trust::Variable("DENO_CERT")),
    ("gcloud", Trust::Variable("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE")),
    ("gh", Trust::Variable("SSL_CERT_FILE")),
    ("git", Trust::Variable("GIT_SSL_CAINFO")),
    ("go", Trust::Variable("SSL_CERT_FILE")),
    ("node", Trust::Variable("NODE_EXTRA_CA_CERTS")),
    ("npm", Trust::Variable("NODE_EXTRA_CA_CERTS")),
    ("openssl", Trust::Variable("SSL_CERT_FILE")),
    ("pip", Trust::Variable("PIP_CERT")),
    ("python3", Trust::Variable("SSL_CERT_FILE")),
    ("uv", Trust::Variable("SSL_CERT_FILE")),
    ("wget", Trust::SystemBundle),
    ("java", Trust::JavaStore),
    ("chromium", Trust::Own),
    ("firefox", Trust::Own),
    ("google-chrome", Trust::Own),
];

/// Directories in which agents' programs are looked up.
const PLACES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Returns the clients that are installed on this host, by name.
pub fn installed_clients() -> Vec<(&'static str, Trust)> {
    let places = PLACES.map(PathBuf::from);
    let is_installed = |name: &str| places.iter().any(|place| is_program(&place.join(name)));
    CLIENTS.iter().copied().filter(|(name, _)| is_installed(name)).collect()
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::env::CA_VARIABLES;

    /// Guards against a doctor report that names a variable which agents do not get.
    #[test]
    fn every_client_variable_is_set_for_agents() {
        for (client, trust) in CLIENTS {
            if let Trust::Variable(name) = trust {
                assert!(CA_VARIABLES.contains(name), "{client}: {name}");
            }
        }
    }
}
