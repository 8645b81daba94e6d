//! Sessions in a request. Stand-ins are removed, and opened after policy has allowed their secrets.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;
use onecli_audit::{Durable, Text};
use onecli_model::{Agent, Code, CookieMode, Host, Placeholder, Refusal, SecretId, SecretValue};
use onecli_policy::{Grant, Identity};
use onecli_vault::{Session, SessionKind, Vault};
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::watched::watched;
use super::{Sessions, Tally, is_csrf, mode, pair};
use crate::http::request::head::Head;
use crate::http::upstream::pool::Upstream;

/// Maximum number of stand-ins that are opened for one request; further ones are removed. The limit on the head
/// limits their bytes.
const MOST_OPENED: usize = 64;

/// The stand-ins of a request that belong to this agent and this host.
#[derive(Debug, Default)]
pub(crate) struct Presented {
    cookies: Vec<Session>,
    headers: Vec<(HeaderName, Session)>,
    /// Number of stand-ins that the request may not use.
    removed: u32,
}

impl Presented {
    /// Removes every stand-in from the head's headers, and notes the secrets of those that may be opened. A stand-in
    /// is dropped if it is damaged, of an earlier generation, or for another host or cookie. The request continues
    /// without it.
    ///
    /// # Errors
    /// [`Code::SessionForeign`]: another agent received the session.
    pub(crate) fn take(vault: &Vault, identity: &Identity, head: &mut Head) -> Result<Presented, Refusal> {
        let host = head.authority.host().clone();
        let mut taking = Taking {
            vault,
            agent: identity.agent(),
            host,
            left: MOST_OPENED,
            presented: Presented::default(),
        };
        taking.cookies(&mut head.headers)?;
        taking.headers(&mut head.headers)?;
        let presented = taking.presented;
        let sessions = presented.cookies.iter().chain(presented.headers.iter().map(|(_, session)| session));
        head.sessions = sessions.flat_map(Session::secrets).copied().collect::<Vec<SecretId>>();
        head.sessions.sort_unstable();
        head.sessions.dedup();
        Ok(presented)
    }

    /// Opens the stand-ins that `grants` allow, and removes raw cookies from a request that carries a credential.
    /// Otherwise the service could bind its session to a cookie that the agent knows (session fixation). Raw cookies
    /// against cross-site request forgery remain, and so do those with a placeholder.
    pub(crate) fn open(self, grants: &[Grant], headers: &mut HeaderMap) -> Opened {
        let mut opened = Opened::default();
        opened.tally.removed = self.removed;
        for session in &self.cookies {
            opened.cookie(session, grants);
        }
        for (name, session) in &self.headers {
            opened.header(name, session, grants);
        }
        opened.mode = mode(grants);
        if !grants.is_empty() && opened.mode != CookieMode::Pass {
            opened.tally.removed += strip_raw(headers);
        }
        opened.needs_tls = !grants.iter().all(|grant| grant.secret().target.allow_plaintext);
        opened
    }
}

/// The state of a pass over a head.
struct Taking<'a> {
    vault: &'a Vault,
    agent: &'a Agent,
    host: Host,
    left: usize,
    presented: Presented,
}

impl Taking<'_> {
    fn cookies(&mut self, headers: &mut HeaderMap) -> Result<(), Refusal> {
        let has_one =
            |value: &HeaderValue| memmem::find(value.as_bytes(), Session::PREFIX.as_bytes()).is_some();
        if !headers.get_all(header::COOKIE).iter().any(has_one) {
            return Ok(());
        }
        let mut raw = Vec::new();
        for text in pairs(headers) {
            let (name, value) = pair(text);
            if !is_stand_in(value) {
                raw.push(text);
                continue;
            }
            match self.open(value)? {
                Some(session) if session.kind() == SessionKind::Cookie && session.name() == name => {
                    self.presented.cookies.push(session);
                }
                _ => self.presented.removed += 1,
            }
        }
        let rest = joined(&raw);
        set_cookies(headers, rest);
        Ok(())
    }

    fn headers(&mut self, headers: &mut HeaderMap) -> Result<(), Refusal> {
        let is_one = |(name, value): (&HeaderName, &HeaderValue)| {
            (*name != header::COOKIE && is_stand_in(value.as_bytes())).then(|| name.clone())
        };
        let named: Vec<HeaderName> = headers.iter().filter_map(is_one).collect();
        for name in named {
            let Some(value) = headers.remove(&name) else { continue };
            let wanted =
                if is_csrf(name.as_str().as_bytes()) { SessionKind::Cookie } else { SessionKind::Header };
            match self.open(value.as_bytes())? {
                Some(session) if session.kind() == wanted => self.presented.headers.push((name, session)),
                _ => self.presented.removed += 1,
            }
        }
        Ok(())
    }

    fn open(&mut self, stand_in: &[u8]) -> Result<Option<Session>, Refusal> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let Some(session) = self.vault.open_session(stand_in) else { return Ok(None) };
        if session.agent() != self.agent.id {
            return Err(Refusal::new(
                Code::SessionForeign,
                format!("the request carries a session that was not issued to agent '{}'", self.agent.name),
                "remove the cookies of the other agent, and log in again",
            ));
        }
        let is_current = session.generation() == self.agent.generation && session.scope().covers(&self.host);
        Ok(is_current.then_some(session))
    }
}

/// The text that a request may send in place of its stand-ins.
#[derive(Default)]
pub(crate) struct Opened {
    /// `name=value; name=value`.
    cookies: Zeroizing<Vec<u8>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    values: Vec<SecretValue>,
    mode: CookieMode,
    needs_tls: bool,
    tally: Tally,
}

impl Opened {
    fn cookie(&mut self, session: &Session, grants: &[Grant]) {
        let Some(value) = session.expose(grants) else {
            self.tally.removed += 1;
            return;
        };
        if !self.cookies.is_empty() {
            self.cookies.extend_from_slice(b"; ");
        }
        if !session.name().is_empty() {
            self.cookies.extend_from_slice(session.name());
            self.cookies.push(b'=');
        }
        self.cookies.extend_from_slice(value);
        self.opened(session, value);
    }

    fn header(&mut self, name: &HeaderName, session: &Session, grants: &[Grant]) {
        let is_named = |grant: &Grant| {
            session.secrets().contains(&grant.secret().id)
                && grant.secret().profile.session_headers().iter().any(|own| own == name.as_str())
        };
        let is_place = session.kind() == SessionKind::Cookie || grants.iter().any(is_named);
        let header = session.expose(grants).filter(|_| is_place).and_then(|value| {
            // Scripts decode a cookie before they copy it. The stand-in has nothing to decode.
            let copied: Zeroizing<Vec<u8>> = Zeroizing::new(match session.kind() {
                SessionKind::Cookie => percent_decode(value).collect(),
                SessionKind::Header => value.to_vec(),
            });
            let mut header = HeaderValue::from_bytes(&copied).ok()?;
            header.set_sensitive(true);
            self.opened(session, value);
            Some(header)
        });
        match header {
            Some(header) => self.headers.push((name.clone(), header)),
            None => self.tally.removed += 1,
        }
    }

    fn opened(&mut self, session: &Session, value: &[u8]) {
        self.tally.opened += 1;
        self.values.extend(watched(session.name(), value));
    }

    /// Returns whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.cookies.is_empty() && self.headers.is_empty()
    }

    /// The text for the audit record.
    pub(crate) fn text(&self) -> Option<Text> {
        self.tally.text()
    }

    /// Values that are masked in the response.
    pub(crate) fn values(&self) -> &[SecretValue] {
        &self.values
    }

    /// Puts the sessions into the request that is about to be sent to `upstream`. Call it after the credential was
    /// injected.
    ///
    /// # Errors
    /// [`Code::PlaintextRefused`] if the upstream is not verified and the secret does not allow that.
    /// [`Code::Internal`] for a session that is no valid header value.
    pub(crate) fn put(
        &self,
        headers: &mut HeaderMap,
        upstream: &Upstream,
        _decision: &Durable,
    ) -> Result<(), Refusal> {
        if self.is_empty() {
            return Ok(());
        }
        if !upstream.is_verified() && self.needs_tls {
            return Err(Refusal::new(
                Code::PlaintextRefused,
                "the session is not sent over plain HTTP",
                "use https://",
            ));
        }
        if !self.cookies.is_empty() {
            let mut value = HeaderValue::from_bytes(&self.cookies).map_err(|_| {
                Refusal::new(Code::Internal, "a sealed cookie cannot be sent", "remove the agent's cookies")
            })?;
            value.set_sensitive(true);
            headers.append(header::COOKIE, value);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(())
    }

    /// Returns how to handle sessions in the response to the request with `grants`.
    pub(crate) fn answered_by(&self, grants: Vec<Grant>, host: &Host) -> Sessions {
        Sessions { grants, host: host.clone(), mode: self.mode, tally: self.tally }
    }
}

fn is_stand_in(value: &[u8]) -> bool {
    value.starts_with(Session::PREFIX.as_bytes())
}

/// All pairs of the request's cookies. HTTP/2 may send several fields (RFC 9113 section 8.2.3).
fn pairs(headers: &HeaderMap) -> Vec<&[u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).collect()
}

fn joined(pairs: &[&[u8]]) -> Option<HeaderValue> {
    // The bytes come from header values, so they are valid.
    (!pairs.is_empty()).then(|| HeaderValue::from_bytes(&pairs.join(&b"; "[..])).ok()).flatten()
}

fn set_cookies(headers: &mut HeaderMap, value: Option<HeaderValue>) {
    match value {
        Some(value) => {
            headers.insert(header::COOKIE, value);
        }
        None => {
            headers.remove(header::COOKIE);
        }
    }
}

/// Removes raw cookies. Returns the number of removed cookies.
fn strip_raw(headers: &mut HeaderMap) -> u32 {
    let all = pairs(headers);
    let stays = |text: &&&[u8]| is_csrf(pair(text).0) || Placeholder::find_all(text).next().is_some();
    let kept: Vec<&[u8]> = all.iter().filter(stays).copied().collect();
    let removed = all.len() - kept.len();
    if removed > 0 {
        let rest = joined(&kept);
        set_cookies(headers, rest);
    }
    u32::try_from(removed).unwrap_or(u32::MAX)
}
