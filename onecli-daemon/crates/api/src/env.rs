//! Names of environment variables that may hold a placeholder.

use serde::{Deserialize, Serialize};

/// The name of an environment variable: `[A-Z_][A-Z0-9_]*`, at most 128 bytes. Names that control how programs are
/// found or loaded are not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvName(String);

/// Why a name is not allowed for an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvNameError {
    /// The name has the wrong form.
    #[error(
        "'{0}' is not a valid environment variable: use A-Z, 0-9 and '_', no digit first, at most 128 characters"
    )]
    Form(String),
    /// `onecli run` sets the variable itself, or the variable changes how programs start.
    #[error(
        "'{0}' cannot hold a credential, because it controls how programs start; name the variable your \
         program reads its key from"
    )]
    Reserved(String),
}

/// Variables that a placeholder would break: the system finds, loads or runs programs with them, or `run` sets them
/// itself.
const RESERVED_ENV: &[&str] = &[
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "LOGNAME",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_ENV_PROXY",
    "NO_PROXY",
    "PATH",
    "PERL_LWP_SSL_CA_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "USER",
    "XDG_RUNTIME_DIR",
    "YARN_HTTPS_PROXY",
    "YARN_HTTP_PROXY",
];

impl std::str::FromStr for EnvName {
    type Err = EnvNameError;

    fn from_str(text: &str) -> Result<EnvName, EnvNameError> {
        let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_uppercase() || b == b'_');
        let rest_ok = text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !first_ok || !rest_ok || text.len() > 128 {
            return Err(EnvNameError::Form(text.chars().take(80).flat_map(char::escape_default).collect()));
        }
        if RESERVED_ENV.contains(&text) || text.starts_with("LD_") {
            return Err(EnvNameError::Reserved(text.to_owned()));
        }
        Ok(EnvName(text.to_owned()))
    }
}

impl TryFrom<String> for EnvName {
    type Error = EnvNameError;

    fn try_from(text: String) -> Result<EnvName, EnvNameError> {
        text.parse()
    }
}

impl From<EnvName> for String {
    fn from(name: EnvName) -> String {
        name.0
    }
}

/// One to eight variables, separated by commas. Some programs need one value under two names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvNames(Vec<EnvName>);

impl EnvNames {
    /// Returns the names of a stored secret's variables.
    pub fn split(text: &str) -> impl Iterator<Item = &str> {
        text.split(',')
    }
}

impl std::str::FromStr for EnvNames {
    type Err = EnvNameError;

    fn from_str(text: &str) -> Result<EnvNames, EnvNameError> {
        let names: Vec<EnvName> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if names.len() > 8 {
            return Err(EnvNameError::Form("more than eight variables".to_owned()));
        }
        Ok(EnvNames(names))
    }
}

impl TryFrom<String> for EnvNames {
    type Error = EnvNameError;

    fn try_from(text: String) -> Result<EnvNames, EnvNameError> {
        text.parse()
    }
}

impl From<EnvNames> for String {
    fn from(names: EnvNames) -> String {
        names.0.into_iter().map(String::from).collect::<Vec<_>>().join(",")
    }
}
