//! Sessions at a service (cookies and session headers), as sealed stand-ins that agents hold.
//!
//! A stand-in is `onecli_ss_` and base64url (RFC 4648 section 5, no padding) over the output of
//! [`super::envelope`]. Nothing about it is stored: everything that decides where the session may go is sealed with
//! it (integers big-endian):
//!
//! ```text
//! kind, 1 | agent id, 16 | generation of the agent, 4 | count of secrets, 1 | secret ids, 16 each
//!      | length of the host, 1 | host | length of the name, 2 | name | value
//! ```
//!
//! The kind is 1 for a cookie of one host, 2 for a cookie of a domain (RFC 6265 section 5.3), 3 for a header.

use std::fmt;

use onecli_model::{AgentId, Host, SecretId};
use onecli_policy::Grant;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::envelope;
use super::error::VaultError;
use super::vault::Vault;

/// The most secrets that one session can be bound to. A request carries one for each location that a credential can
/// have.
const MOST_SECRETS: usize = 255;

/// The location of a session in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// The value of a cookie.
    Cookie,
    /// The value of a header.
    Header,
}

/// The hosts that a session may be sent to. The secrets that it is bound to limit the hosts further, and the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionScope {
    /// A cookie of this host.
    Host(String),
    /// A cookie of this domain and its subdomains.
    Domain(String),
    /// A header: every host that its secrets are for.
    Secret,
}

impl SessionScope {
    /// Reports whether the session may be sent to this host.
    pub fn covers(&self, host: &Host) -> bool {
        match self {
            SessionScope::Host(own) => host.to_string() == *own,
            SessionScope::Domain(domain) => {
                let host = host.to_string();
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            SessionScope::Secret => true,
        }
    }
}

/// A session that a service issued for an agent's request, in the clear. The value is available only with the
/// grants of all secrets that the request carried.
pub struct Session {
    agent: AgentId,
    generation: u32,
    secrets: Vec<SecretId>,
    scope: SessionScope,
    name: Vec<u8>,
    value: Zeroizing<Vec<u8>>,
}

/// The value stays hidden.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("agent", &self.agent)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The prefix of stand-ins. Tokens and placeholders have other prefixes.
    pub const PREFIX: &'static str = "onecli_ss_";

    /// A session that the service issued in the response to a request with `grants`. Returns `None` if it cannot be
    /// sealed: without a grant, or with a name or host beyond the format's bounds.
    pub fn issued(grants: &[Grant], scope: SessionScope, name: &[u8], value: &[u8]) -> Option<Session> {
        let agent = grants.first()?.agent();
        let host_fits = match &scope {
            SessionScope::Host(host) | SessionScope::Domain(host) => u8::try_from(host.len()).is_ok(),
            SessionScope::Secret => true,
        };
        let fits = host_fits && u16::try_from(name.len()).is_ok() && grants.len() <= MOST_SECRETS;
        fits.then(|| Session {
            agent: agent.id,
            generation: agent.generation,
            secrets: grants.iter().map(|grant| grant.secret().id).collect(),
            scope,
            name: name.to_vec(),
            value: Zeroizing::new(value.to_vec()),
        })
    }

    /// The agent that received it.
    pub fn agent(&self) -> AgentId {
        self.agent
    }

    /// That agent's generation at the time.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The secrets that the request carried.
    pub fn secrets(&self) -> &[SecretId] {
        &self.secrets
    }

    /// Whether it is a cookie or a header.
    pub fn kind(&self) -> SessionKind {
        match self.scope {
            SessionScope::Secret => SessionKind::Header,
            SessionScope::Host(_) | SessionScope::Domain(_) => SessionKind::Cookie,
        }
    }

    /// The hosts that it may be sent to.
    pub fn scope(&self) -> &SessionScope {
        &self.scope
    }

    /// The name of the cookie or header.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The value itself, if `grants` belong to this agent and cover every secret that it is bound to. Review every
    /// call of this.
    pub fn expose(&self, grants: &[Grant]) -> Option<&[u8]> {
        let covers = |secret: &SecretId| {
            grants.iter().any(|grant| {
                let agent = grant.agent();
                grant.secret().id == *secret && agent.id == self.agent && agent.generation == self.generation
            })
        };
        (!self.secrets.is_empty() && self.secrets.iter().all(covers)).then_some(self.value.as_slice())
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (kind, host) = match &self.scope {
            SessionScope::Host(host) => (1, host.as_str()),
            SessionScope::Domain(host) => (2, host.as_str()),
            SessionScope::Secret => (3, ""),
        };
        let length = 24 + 16 * self.secrets.len() + host.len() + self.name.len() + self.value.len();
        let mut out = Zeroizing::new(Vec::with_capacity(length));
        out.push(kind);
        out.extend_from_slice(self.agent.0.as_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        // `issued` and the format bound all three.
        out.push(u8::try_from(self.secrets.len()).unwrap_or(u8::MAX));
        self.secrets.iter().for_each(|secret| out.extend_from_slice(secret.0.as_bytes()));
        out.push(u8::try_from(host.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(host.as_bytes());
        out.extend_from_slice(&u16::try_from(self.name.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&self.value);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Session> {
        let (&kind, rest) = bytes.split_first()?;
        let (agent, rest) = rest.split_first_chunk::<16>()?;
        let (generation, rest) = rest.split_first_chunk::<4>()?;
        let (&count, rest) = rest.split_first()?;
        let (ids, rest) = rest.split_at_checked(16 * usize::from(count))?;
        let (&length, rest) = rest.split_first()?;
        let (host, rest) = rest.split_at_checked(usize::from(length))?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (name, value) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let host = String::from_utf8(host.to_vec()).ok()?;
        let scope = match kind {
            1 => SessionScope::Host(host),
            2 => SessionScope::Domain(host),
            3 => SessionScope::Secret,
            _ => return None,
        };
        Some(Session {
            agent: AgentId(Uuid::from_bytes(*agent)),
            generation: u32::from_be_bytes(*generation),
            secrets: ids.chunks_exact(16).filter_map(|id| Uuid::from_slice(id).ok().map(SecretId)).collect(),
            scope,
            name: name.to_vec(),
            value: Zeroizing::new(value.to_vec()),
        })
    }
}

impl Vault {
    /// Returns the stand-in for a session, for its agent. Its length depends only on the lengths of name, host and
    /// value.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal_session(&self, session: &Session) -> Result<String, VaultError> {
        let sealed =
            envelope::seal_session(self.id, self.derived.session(), &session.encode(), self.random.as_ref())?;
        let mut text = Session::PREFIX.to_owned();
        data_encoding::BASE64URL_NOPAD.encode_append(&sealed, &mut text);
        Ok(text)
    }

    /// Opens the session behind a stand-in. Returns `None` for any text that this vault did not seal.
    pub fn open_session(&self, text: &[u8]) -> Option<Session> {
        let sealed =
            data_encoding::BASE64URL_NOPAD.decode(text.strip_prefix(Session::PREFIX.as_bytes())?).ok()?;
        Session::decode(&envelope::open_session(self.id, self.derived.session(), &sealed)?)
    }
}
