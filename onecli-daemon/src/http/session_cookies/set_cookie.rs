//! `Set-Cookie` (RFC 6265 section 5.2), as far as its value is exchanged and its attributes stay.

use crate::model::Host;
use crate::vault::SessionScope;

use super::pair;

/// Attributes that stay. Others are dropped: they could hold a part of the value.
const ATTRIBUTES: [&str; 9] =
    ["expires", "max-age", "domain", "path", "secure", "httponly", "samesite", "partitioned", "priority"];
/// Those without a value.
const FLAGS: [&str; 3] = ["secure", "httponly", "partitioned"];

/// A cookie that a service sets.
#[derive(Clone)]
pub(super) struct SetCookie<'f> {
    pub(super) name: &'f [u8],
    pub(super) value: &'f [u8],
    /// Is there an `=` between them?
    is_named: bool,
    attributes: Vec<(&'f [u8], Option<&'f [u8]>)>,
}

impl<'f> SetCookie<'f> {
    pub(super) fn parse(field: &'f [u8]) -> SetCookie<'f> {
        let mut parts = field.split(|byte| *byte == b';');
        let first = parts.next().unwrap_or_default();
        let (name, value) = pair(first);
        let attribute = |part: &'f [u8]| {
            let (name, value) = pair(part);
            if part.contains(&b'=') { (name, Some(value)) } else { (value, None) }
        };
        SetCookie { name, value, is_named: first.contains(&b'='), attributes: parts.map(attribute).collect() }
    }

    /// The same cookie with another value.
    pub(super) fn with_value(&self, value: &[u8]) -> Vec<u8> {
        let mut out = self.name.to_vec();
        if self.is_named {
            out.push(b'=');
        }
        out.extend_from_slice(value);
        for (name, value) in &self.attributes {
            let known = ATTRIBUTES.iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes()));
            let Some(known) = known else { continue };
            out.extend_from_slice(b"; ");
            out.extend_from_slice(name);
            if let Some(value) = value.filter(|_| !FLAGS.contains(known)) {
                out.push(b'=');
                out.extend_from_slice(up_to_comma(value, *known == "expires"));
            }
        }
        out
    }

    /// The hosts that a client sends the cookie to (RFC 6265 section 5.3), when `host` set it.
    pub(super) fn scope(&self, host: &Host) -> SessionScope {
        let own = host.to_string();
        let last = self.attributes.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(b"domain"));
        let domain = last.and_then(|(_, value)| std::str::from_utf8((*value)?).ok());
        let domain = domain.map(|text| text.strip_prefix('.').unwrap_or(text).to_ascii_lowercase());
        let covers = |domain: &String| {
            matches!(host, Host::Name(_))
                && !is_public_suffix(domain)
                && SessionScope::Domain(domain.clone()).covers(host)
        };
        // A client refuses the cookie where they do not agree.
        domain.filter(covers).map_or(SessionScope::Host(own), SessionScope::Domain)
    }
}

/// Proxies join several `Set-Cookie` fields by commas: what follows one is another cookie's, and goes. A date has one of
/// its own.
fn up_to_comma(value: &[u8], is_date: bool) -> &[u8] {
    let mut commas = value.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
    let end = commas.nth(usize::from(is_date)).unwrap_or(value.len());
    value[..end].trim_ascii()
}

fn is_public_suffix(domain: &str) -> bool {
    domain.is_empty() || psl::suffix_str(domain).is_some_and(|suffix| suffix == domain)
}
