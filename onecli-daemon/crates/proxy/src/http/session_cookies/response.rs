//! Sessions in a response. Each is replaced with its stand-in before the agent sees it.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use onecli_audit::Record;
use onecli_model::{CookieMode, Host, SecretValue};
use onecli_policy::Grant;
use onecli_vault::{Session, SessionScope, Vault};

use super::Tally;
use super::set_cookie::SetCookie;
use super::watched::watched;

/// Largest cookie or session header that the agent gets, name and stand-in together, in bytes. Clients need not store
/// a larger cookie (RFC 6265 section 6.1).
const MOST_BYTES: usize = 4096;
/// Maximum number of cookies and session headers of one response that are sealed. Further ones are dropped.
const MOST_SEALED: u32 = 64;
/// The obsolete form of `Set-Cookie` (RFC 2965).
const SET_COOKIE2: HeaderName = HeaderName::from_static("set-cookie2");

/// How to handle sessions in the response to one request.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// The grants of all secrets whose credential or session the request carried.
    pub(super) grants: Vec<Grant>,
    pub(super) host: Host,
    pub(super) mode: CookieMode,
    pub(super) tally: Tally,
}

/// Replaces the sessions in the headers of a response, and writes the counts to its record.
pub(crate) fn seal(sessions: &mut Sessions, vault: &Vault, record: &mut Record, headers: &mut HeaderMap) {
    sessions.replace(vault, headers);
    record.http_mut().sessions = sessions.tally.text();
}

/// Removes sessions from trailers, where no service may issue one (RFC 9110 section 6.5.1).
pub(crate) fn strip_trailers(sessions: &Sessions, frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            for name in sessions.names() {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

impl Sessions {
    /// The headers that contain a session; none if the agent may see it.
    fn names(&self) -> Vec<HeaderName> {
        if self.grants.is_empty() || self.mode == CookieMode::Pass {
            return Vec::new();
        }
        let own = self.grants.iter().flat_map(|grant| grant.secret().profile.session_headers());
        let own = own.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        [header::SET_COOKIE, SET_COOKIE2].into_iter().chain(own).collect()
    }

    /// The values in the headers of a response that must not reach the agent in other parts of it.
    pub(crate) fn values(&self, headers: &HeaderMap) -> Vec<SecretValue> {
        let names = self.names();
        let fields =
            names.iter().flat_map(|name| headers.get_all(name).iter().map(move |field| (name, field)));
        fields
            .flat_map(|(name, field)| {
                let (_, session_name, value) = session_in(name, field);
                watched(session_name, value)
            })
            .collect()
    }

    pub(super) fn replace(&mut self, vault: &Vault, headers: &mut HeaderMap) {
        for name in self.names() {
            let issued: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
            if issued.is_empty() {
                continue;
            }
            headers.remove(&name);
            for field in &issued {
                match self.stand_in(vault, &name, field) {
                    Some(stand_in) => {
                        headers.append(name.clone(), stand_in);
                    }
                    None => self.tally.dropped += 1,
                }
            }
        }
    }

    /// The field that the agent gets; `None` if it is dropped.
    fn stand_in(&mut self, vault: &Vault, name: &HeaderName, field: &HeaderValue) -> Option<HeaderValue> {
        let (cookie, session_name, value) = session_in(name, field);
        if self.mode == CookieMode::Strip || *name == SET_COOKIE2 || self.tally.sealed >= MOST_SEALED {
            return None;
        }
        if value.is_empty() {
            // A cookie that is being deleted contains no session.
            return HeaderValue::from_bytes(&cookie?.set_by(&self.host).with_value(b"")).ok();
        }
        let cookie = cookie.map(|cookie| cookie.set_by(&self.host));
        let scope = cookie.as_ref().map_or(SessionScope::Secret, |cookie| cookie.scope(&self.host));
        let session = Session::issued(&self.grants, scope, session_name, value)?;
        let sealed = vault.seal_session(&session).ok()?;
        if session_name.len() + 1 + sealed.len() > MOST_BYTES {
            return None;
        }
        let field = match &cookie {
            Some(cookie) => HeaderValue::from_bytes(&cookie.with_value(sealed.as_bytes())),
            None => HeaderValue::from_str(&sealed),
        };
        self.tally.sealed += 1;
        field.ok()
    }
}

/// The cookie, if the field sets one; the name of the session; its value.
fn session_in<'f>(
    name: &'f HeaderName,
    field: &'f HeaderValue,
) -> (Option<SetCookie<'f>>, &'f [u8], &'f [u8]) {
    if *name != header::SET_COOKIE {
        return (None, name.as_str().as_bytes(), field.as_bytes());
    }
    let cookie = SetCookie::parse(field.as_bytes());
    let (session_name, value) = (cookie.name, cookie.value);
    (Some(cookie), session_name, value)
}
