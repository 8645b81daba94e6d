//! Selects the trailer fields that are forwarded (RFC 9110 section 6.5).
//!
//! Policy judges a request by its head, and some servers merge trailers into the head. So the head must have
//! announced a forwarded trailer. No server may interpret it as a field that routes, frames, authenticates or changes
//! a request.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use onecli_model::Placeholder;
use onecli_model::named::{folded_name, is_naming_field};
use onecli_model::operation::is_judged_header;

use super::names::DIGESTS;
use super::names::ERROR_HEADER;
use super::names::{is_sensitive, members};

/// Maximum number of fields that one message may announce. Further ones are not forwarded.
const MAX_ANNOUNCED: usize = 32;

/// Fields that must not be trailers of a response, besides those of [`is_sensitive`]. They frame it, control caches
/// and clients, or contain credentials.
static NOT_IN_RESPONSES: [HeaderName; 16] = [
    header::AGE,
    header::ALT_SVC,
    HeaderName::from_static("authentication-info"),
    header::CACHE_CONTROL,
    header::CONTENT_RANGE,
    header::DATE,
    header::EXPIRES,
    header::LOCATION,
    HeaderName::from_static("proxy-authentication-info"),
    header::RETRY_AFTER,
    header::SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    header::VARY,
    header::WARNING,
    header::WWW_AUTHENTICATE,
    ERROR_HEADER,
];

/// Fields that must not be trailers of a request either: request modifiers and routes, by name or prefix.
const NOT_IN_REQUESTS: [&str; 11] = [
    "age",
    "cache-control",
    "date",
    "depth",
    "expires",
    "max-forwards",
    "origin",
    "overwrite",
    "pragma",
    "prefer",
    "range",
];
const NOT_IN_REQUESTS_BEGINNINGS: [&str; 10] = [
    "accept",
    "access-control-",
    "content-",
    "if-",
    "proxy-",
    "sec-",
    "x-amz-",
    "x-goog-",
    "x-ms-",
    "x-onecli-",
];
/// Exceptions: digests of the content.
const CHECKSUMS: [&str; 4] = ["content-digest", "content-md5", "x-amz-checksum-", "x-goog-hash"];
/// Parts of names of fields that contain a credential at some service.
const CREDENTIALS: [&str; 9] =
    ["apikey", "api-key", "auth", "cookie", "credential", "passw", "secret", "session", "token"];

/// The trailer fields of a message that may be forwarded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Announced(Arc<[HeaderName]>);

impl Announced {
    /// The fields that a request with these headers announces. A field that is also in the head does not count,
    /// because policy judged the one in the head.
    pub(crate) fn of_request(headers: &HeaderMap) -> Announced {
        Announced::of(headers, |name| !headers.contains_key(name) && may_end_request(name))
    }

    /// The fields that a response with these headers announces.
    pub(crate) fn of_response(headers: &HeaderMap) -> Announced {
        Announced::of(headers, may_end_response)
    }

    fn of(headers: &HeaderMap, may_go_on: impl Fn(&HeaderName) -> bool) -> Announced {
        if !headers.contains_key(header::TRAILER) {
            return Announced::default();
        }
        let names = members(headers, &header::TRAILER);
        let names = names.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        Announced(names.filter(may_go_on).take(MAX_ANNOUNCED).collect())
    }

    /// Removes these names, because credentials are placed there.
    pub(crate) fn remove(&mut self, names: &[HeaderName]) {
        if names.iter().any(|name| self.0.contains(name)) {
            self.0 = self.0.iter().filter(|name| !names.contains(name)).cloned().collect();
        }
    }

    /// The `Trailer` field that announces them; `None` if there are none.
    pub(crate) fn field(&self) -> Option<HeaderValue> {
        let names: Vec<&str> = self.0.iter().map(HeaderName::as_str).collect();
        (!names.is_empty()).then(|| HeaderValue::try_from(names.join(", ")).ok()).flatten()
    }

    /// The fields of a request's trailer section that are forwarded: announced ones, and digests of the body (RFC
    /// 9530), which need no announcement. `None` if there are none. A field with a placeholder is dropped, because no
    /// placement uses trailers.
    pub(crate) fn select(&self, trailers: &HeaderMap) -> Option<HeaderMap> {
        let mut selected = HeaderMap::new();
        for (name, value) in trailers {
            let may_go_on = self.0.contains(name) || DIGESTS[2..].contains(name);
            if may_go_on && Placeholder::find_all(value.as_bytes()).next().is_none() {
                selected.append(name, value.clone());
            }
        }
        (!selected.is_empty()).then_some(selected)
    }
}

fn may_end_request(name: &HeaderName) -> bool {
    let read = folded_name(name.as_str());
    let begins = |all: &[&str]| all.iter().any(|own| read.starts_with(own));
    let is_modifier = NOT_IN_REQUESTS.contains(&&*read)
        || (begins(&NOT_IN_REQUESTS_BEGINNINGS) && !begins(&CHECKSUMS))
        || is_naming_field(&read)
        || is_judged_header(&read);
    let is_credential = read.ends_with("-key") || CREDENTIALS.iter().any(|word| read.contains(word));
    !is_modifier && !is_credential && may_end_response(name) && !is_sensitive(&read)
}

fn may_end_response(name: &HeaderName) -> bool {
    !NOT_IN_RESPONSES.contains(name) && !is_sensitive(name.as_str())
}

/// Removes the trailer fields of a response that must not be forwarded. gRPC over HTTP/2 does not announce its
/// trailers.
pub(crate) fn clean_response(trailers: &mut HeaderMap) {
    let refused: Vec<HeaderName> = trailers.keys().filter(|name| !may_end_response(name)).cloned().collect();
    for name in refused {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(announced: &Announced) -> Vec<&str> {
        announced.0.iter().map(HeaderName::as_str).collect()
    }

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        fields.collect()
    }

    #[test]
    fn only_announced_and_harmless_request_trailers_are_forwarded() {
        let check = |name: &str, expected: bool| {
            let announced = Announced::of_request(&head(&[("trailer", name)]));
            assert_eq!(names(&announced), if expected { vec![name] } else { vec![] }, "{name}");
        };
        for good in ["x-checksum", "x-amz-checksum-crc32", "content-digest", "server-timing", "x-line-count"]
        {
            check(good, true);
        }
        for bad in [
            // Framing and hop-by-hop fields.
            "content-length",
            "transfer-encoding",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "host",
            "proxy-connection",
            "content-encoding",
            "content-type",
            "content-range",
            "expect",
            // Credentials.
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-auth-token",
            "private-token",
            "www-authenticate",
            "x-functions-key",
            "apikey",
            // Overrides and routes, in the spellings that servers fold.
            "x-http-method-override",
            "x_http_method_override",
            "x-forwarded-host",
            "x-original-url",
            "x-rewrite-url",
            "x-real-ip",
            "x-onecli-error",
            "origin",
            "content_length",
            // Request modifiers, and fields that policy judges in the head.
            "range",
            "if-match",
            "cache-control",
            "max-forwards",
            "x-amz-target",
            "x-amz-copy-source",
            "destination",
            "x-copy-from",
            "x-goog-copy-source",
            "accept-encoding",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn announced_names_are_parsed_and_limited() {
        let of = |value: &str| names(&Announced::of_request(&head(&[("trailer", value)]))).len();
        assert_eq!(of("x-a, X-B ,x-c,,bad name, authorization"), 3);
        let many: Vec<String> = (0..MAX_ANNOUNCED * 2).map(|n| format!("x-{n}")).collect();
        assert_eq!(of(&many.join(",")), MAX_ANNOUNCED);
        let twice = head(&[("trailer", "x-a, x-b"), ("x-a", "1")]);
        assert_eq!(names(&Announced::of_request(&twice)), ["x-b"]);
        assert_eq!(Announced::of_request(&twice).field().unwrap(), "x-b");
        assert_eq!(Announced::of_request(&head(&[("accept", "*/*")])).field(), None);
    }

    #[test]
    fn only_announced_fields_without_placeholders_are_selected() {
        let mut announced = Announced::of_request(&head(&[("trailer", "x-a, x-b, x-c")]));
        announced.remove(&[HeaderName::from_static("x-c")]);
        let placeholder = Placeholder::from_bits([7; 20]);
        let sent = head(&[
            ("x-a", "1"),
            ("x-b", placeholder.as_str()),
            ("x-c", "3"),
            ("x-unannounced", "4"),
            ("repr-digest", "sha-256=:AAAA:"),
        ]);
        let selected = announced.select(&sent).unwrap();
        let mut selected: Vec<&str> = selected.keys().map(HeaderName::as_str).collect();
        selected.sort_unstable();
        assert_eq!(selected, ["repr-digest", "x-a"]);
        assert!(Announced::default().select(&head(&[("x-a", "1")])).is_none());
    }

    #[test]
    fn grpc_response_trailers_are_retained() {
        let mut trailers = head(&[
            ("grpc-status", "0"),
            ("grpc-message", "ok"),
            ("x-seen", "1"),
            ("x-issued-token", "t"),
            ("set-cookie", "a=b"),
            ("content-length", "5"),
            ("connection", "close"),
            ("x-onecli-error", "internal"),
        ]);
        clean_response(&mut trailers);
        let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-message", "grpc-status", "x-issued-token", "x-seen"]);
        let announced =
            Announced::of_response(&head(&[("trailer", "X-Checksum, Set-Cookie, Content-Length")]));
        assert_eq!(names(&announced), ["x-checksum"]);
    }
}
