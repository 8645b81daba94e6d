//! Credentials that are made out of others: what is stored buys a token that lives for a while.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::authority::Authority;

/// How a stored value becomes the token that is placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mint {
    /// OAuth 2.0 client credentials (RFC 6749 section 4.4); the value is the client's secret.
    ClientCredentials {
        /// The token endpoint.
        token_url: TokenUrl,
        /// The client.
        client_id: String,
        /// What the token is for, in the server's words.
        #[serde(default)]
        scope: Option<String>,
        /// The API it is for, where the server wants that told.
        #[serde(default)]
        audience: Option<String>,
    },
    /// OAuth 2.0 refresh (RFC 6749 section 6); the value is the refresh token, or JSON with `refresh_token` and
    /// `client_secret`. A new refresh token in an answer takes the old one's place.
    RefreshToken {
        /// The token endpoint.
        token_url: TokenUrl,
        /// The client.
        client_id: String,
        /// What the token is for, in the server's words.
        #[serde(default)]
        scope: Option<String>,
    },
    /// A GitHub App's installation token; the value is the app's private key.
    GithubApp {
        /// The API, `https://api.github.com/` or an enterprise server's.
        api: TokenUrl,
        /// The app's id or client id: the JWT's issuer.
        app: String,
        /// The installation.
        installation: u64,
    },
    /// A Google service account's access token (RFC 7523); the value is the account's key file.
    GcpServiceAccount {
        /// What the token is for, separated by spaces.
        scope: String,
    },
}

impl Mint {
    /// The token endpoint that the stored value itself is sent to. Keys that sign are sent nowhere.
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

/// A URL that no credential is sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no https URL of a host and a path, without user information or fragment")]
pub struct TokenUrlError(String);

impl TokenUrl {
    /// Host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Path and query.
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
