//! Sessions that a service issues for a request with a credential: cookies, and the session headers of templates.
//!
//! Such a session is itself a credential. The agent gets a sealed stand-in ([`onecli_vault::Session`]). The daemon
//! opens it on a later request for which policy would use the same secrets. `request` opens, `response` seals,
//! `set_cookie` is the syntax of `Set-Cookie`, and `watched` lists which other texts are masked. The daemon stores no
//! state for sessions.

mod request;
mod response;
mod set_cookie;
mod watched;

pub(super) use request::{Opened, Presented};
pub(super) use response::{Sessions, seal, strip_trailers};

use std::fmt;

use onecli_audit::Text;
use onecli_model::CookieMode;
use onecli_policy::Grant;

/// Counts of handled sessions, for the audit record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Opened in the request.
    opened: u32,
    /// Removed from the request: raw cookies, and stand-ins that the request may not use.
    removed: u32,
    /// Sealed in the response.
    sealed: u32,
    /// Removed from the response.
    dropped: u32,
}

impl Tally {
    /// Returns the text for the record, such as `opened 1, sealed 2`. `None` if all counts are zero.
    fn text(self) -> Option<Text> {
        (self != Tally::default()).then(|| Text::new(&self.to_string()))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("opened", self.opened),
            ("removed", self.removed),
            ("sealed", self.sealed),
            ("dropped", self.dropped),
        ];
        let mut separator = "";
        for (what, count) in counts.iter().filter(|(_, count)| *count > 0) {
            write!(f, "{separator}{what} {count}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// The mode that the secrets of a request demand for its sessions. `Pass` without any secret.
fn mode(grants: &[Grant]) -> CookieMode {
    let modes = grants.iter().map(|grant| grant.secret().profile.cookie_mode());
    modes.fold(CookieMode::Pass, CookieMode::stricter)
}

/// Returns whether a cookie or header of this name contains a token against cross-site request forgery. Scripts copy
/// such a cookie into a header, and pages repeat it in forms. So it is sealed, but not masked elsewhere.
fn is_csrf(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    [&b"csrf"[..], b"xsrf"].iter().any(|word| memchr::memmem::find(&name, word).is_some())
}

/// A cookie's name and value (RFC 6265 section 5.2). Without `=`, the whole text is the value.
fn pair(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (text[..at].trim_ascii(), text[at + 1..].trim_ascii()),
        None => (b"", text.trim_ascii()),
    }
}

#[cfg(test)]
mod tests;
