//! Credentials that are derived from others: the stored value is exchanged for a token with a limited lifetime.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::host::authority::Authority;

/// The exchange of a stored value for the token that is placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mint {
    /// OAuth 2.0 client credentials (RFC 6749 section 4.4). The value is the client's secret.
    ClientCredentials {
        /// The token endpoint.
        token_url: TokenUrl,
        /// The client id.
        client_id: String,
        /// The scope of the token, in the server's terms.
        #[serde(default)]
        scope: Option<String>,
        /// The API that it is for, if the server requires this.
        #[serde(default)]
        audience: Option<String>,
    },
    /// OAuth 2.0 refresh (RFC 6749 section 6). The value is the refresh token, or JSON with `refresh_token` and
    /// `client_secret`. A new refresh token in a response replaces the old one.
    RefreshToken {
        /// The token endpoint.
        token_url: TokenUrl,
        /// The client id.
        client_id: String,
        /// The scope of the token, in the server's terms.
        #[serde(default)]
        scope: Option<String>,
    },
    /// A GitHub App's installation token. The value is the app's private key.
    GithubApp {
        /// The API: `https://api.github.com/` or that of an enterprise server.
        api: TokenUrl,
        /// The app's id or client id: the JWT's issuer.
        app: String,
        /// The installation id.
        installation: u64,
    },
    /// A Google service account's access token (RFC 7523). The value is the account's key file.
    GcpServiceAccount {
        /// The scopes of the token, separated by spaces.
        scope: String,
    },
}

impl Mint {
    /// Returns the token endpoint that the stored value itself is sent to. `None` for keys that sign, which are never
    /// sent.
    pub fn endpoint(&self) -> Option<&Authority> {
        match self {
            Mint::ClientCredentials { token_url, .. } | Mint::RefreshToken { token_url, .. } => {
                Some(token_url.authority())
            }
            Mint::GithubApp { .. } | Mint::GcpServiceAccount { .. } => None,
        }
    }
}

impl fmt::Display for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mint::ClientCredentials { token_url, .. } => {
                write!(f, "oauth2 client credentials at {token_url}")
            }
            Mint::RefreshToken { token_url, .. } => write!(f, "oauth2 refresh at {token_url}"),
            Mint::GithubApp { app, installation, .. } => {
                write!(f, "github app {app}, installation {installation}")
            }
            Mint::GcpServiceAccount { scope } => write!(f, "gcp service account for {scope}"),
        }
    }
}

/// An `https` URL without user information and fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenUrl {
    authority: Authority,
    target: String,
}

/// The URL cannot be used, because no credential may be sent to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an https URL with a host and a path, without user information or fragment")]
pub struct TokenUrlError(String);

impl TokenUrl {
    /// Returns host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns path and query.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl FromStr for TokenUrl {
    type Err = TokenUrlError;

    fn from_str(text: &str) -> Result<TokenUrl, TokenUrlError> {
        let bad = || TokenUrlError(text.chars().take(80).flat_map(char::escape_default).collect());
        let rest = text.strip_prefix("https://").ok_or_else(bad)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        let authority = Authority::parse(authority, Some(443)).map_err(|_| bad())?;
        let target = if target.is_empty() { "/" } else { target };
        if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') || text.len() > 2048 {
            return Err(bad());
        }
        Ok(TokenUrl { authority, target: target.to_owned() })
    }
}

impl TryFrom<String> for TokenUrl {
    type Error = TokenUrlError;

    fn try_from(text: String) -> Result<TokenUrl, TokenUrlError> {
        text.parse()
    }
}

impl From<TokenUrl> for String {
    fn from(url: TokenUrl) -> String {
        url.to_string()
    }
}

impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority.to_header(443), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_urls() {
        for text in ["https://login.test/oauth/token", "https://login.test:8443/t?x=1", "https://login.test/"]
        {
            assert_eq!(text.parse::<TokenUrl>().unwrap().to_string(), text);
        }
        for bad in
            ["http://login.test/", "https://u:p@login.test/", "https://", "https://a/#b", "https://a/ b", ""]
        {
            assert!(bad.parse::<TokenUrl>().is_err(), "{bad:?}");
        }
    }
}
