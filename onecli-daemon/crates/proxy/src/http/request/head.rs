//! A request's head, parsed once. The parsed values are matched, dialled and forwarded.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use onecli_model::authority::AuthorityError;
use onecli_model::path::PathError;
use onecli_model::{
    Authority, CanonicalPath, Code, InjectionTarget, NamedResource, Operations, PathReadings, Placeholder,
    Refusal, SecretId,
};
use onecli_model::{named::MAX_NAMED, named::Naming, named::named_resources};
use onecli_policy::RequestFacts;

use crate::http::context::connection::Expected;
use crate::http::fields::names::{members, refuse_misread};
use crate::http::fields::trailers::Announced;
use crate::http::h1::{RejectedRequest, Violation, no_target};
use crate::http::placeholders::disguised;
use onecli_model::Scheme;

/// A request's head in canonical form.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    pub(crate) path: CanonicalPath,
    pub(crate) query: Option<String>,
    /// End-to-end headers only; no `Host`, no hop-by-hop headers, no proxy credentials.
    pub(crate) headers: HeaderMap,
    /// All placeholders in the URL and the headers.
    pub(crate) placeholders: Vec<Placeholder>,
    /// Placeholders in other spellings, and in names of header fields. They prove nothing.
    pub(crate) disguised: Vec<Placeholder>,
    /// Resources that headers and query name besides the URL.
    pub(crate) named: Vec<NamedResource>,
    /// Placeholders in fields of the body, after the body was read for them.
    pub(crate) body: Vec<(InjectionTarget, Placeholder)>,
    /// The operations that the request names besides method and path.
    pub(crate) operations: Operations,
    /// The secrets of the sealed sessions in the headers, after the sessions were removed.
    pub(crate) sessions: Vec<SecretId>,
    /// Set if the client requests a WebSocket (RFC 6455).
    pub(crate) websocket: bool,
    /// The trailers that may follow the body.
    pub(crate) trailers: Announced,
}

/// Prints no URL and no header values. A credential may be in the path and the query; sensitive header values hide themselves.
impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// The facts that policy decided on, retained while the response is delivered.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    method: Method,
    pub(crate) authority: Authority,
    path: CanonicalPath,
    tls: bool,
    named: Vec<NamedResource>,
    placeholders: Vec<Placeholder>,
    body: Vec<(InjectionTarget, Placeholder)>,
    operations: Operations,
    sessions: Vec<SecretId>,
}

impl Facts {
    /// The facts in the form that policy needs.
    pub(crate) fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            authority: &self.authority,
            path: PathReadings::new(&self.path),
            tls: self.tls,
            named: &self.named,
            placeholders: &self.placeholders,
            body: &self.body,
            operations: &self.operations,
            sessions: &self.sessions,
        }
    }
}

/// Hop-by-hop headers (RFC 9110 section 7.6.1), and headers that concern only this proxy.
static HOP_BY_HOP: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    // RFC 7540 section 3.2.1: part of `Upgrade: h2c`.
    HeaderName::from_static("http2-settings"),
];

impl Head {
    /// Canonicalises a head that hyper has read.
    ///
    /// # Errors
    /// A [`Refusal`]: malformed, ambiguous, or for another host than the connection's (421).
    pub(crate) fn read(parts: &Parts, expected: &Expected) -> Result<Head, Refusal> {
        if let Some(rejected) = parts.extensions.get::<RejectedRequest>() {
            return Err(rejected.refusal());
        }
        if matches!(parts.method, Method::TRACE | Method::CONNECT) {
            return Err(Refusal::new(
                Code::MethodNotAllowed,
                format!("{} is never forwarded", parts.method),
                "use another method",
            ));
        }
        // Methods are case-sensitive (RFC 9110 section 9.1), but some upstreams fold their case. Policy would then
        // judge another method than the one that takes effect.
        if parts.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(bad_request(
                format!("the method '{}' is not in capitals", parts.method),
                "send it in capitals: methods are case-sensitive (RFC 9110 section 9.1)",
            ));
        }
        let authority = authority_of(parts, expected)?;
        if parts.uri.path() == "*" {
            // RFC 9110 section 9.3.7.
            return Err(bad_request(
                "'OPTIONS *' asks about the server as a whole, but policy judges requests by their path",
                "send OPTIONS with a path: OPTIONS /path",
            ));
        }
        let path = CanonicalPath::parse(parts.uri.path()).map_err(bad_path)?;
        let query = parts.uri.query().map(str::to_owned);
        // The strict reader has checked HTTP/1.1; the HTTP/2 parser accepts other characters.
        if parts.version == Version::HTTP_2
            && let Some(byte) = no_target(query.as_deref().unwrap_or_default())
        {
            return Err(Violation::TargetCharacter(byte).refusal());
        }
        refuse_misread(&parts.headers)?;
        let websocket = is_websocket(parts);
        let trailers = Announced::of_request(&parts.headers);
        let mut headers = parts.headers.clone();
        strip_hop_by_hop(&mut headers);
        headers.remove(header::HOST);
        let placeholders = placeholders_in(parts.uri.path(), query.as_deref(), &headers);
        let disguised = disguised::in_head(parts.uri.path(), query.as_deref(), &headers);
        let operations = Operations::of(query.as_deref(), &headers);
        let named = named_in(
            &Naming { method: &parts.method, authority: &authority, path: &path },
            query.as_deref(),
            &headers,
        )?;
        Ok(Head {
            method: parts.method.clone(),
            scheme: expected.scheme,
            authority,
            path,
            query,
            headers,
            placeholders,
            disguised,
            named,
            body: Vec::new(),
            operations,
            sessions: Vec::new(),
            websocket,
            trailers,
        })
    }

    /// Stores the trailers of a body that was read to its end. They prove nothing and are not forwarded. A
    /// placeholder in them is judged like one in another spelling.
    pub(crate) fn note_trailers(&mut self, trailers: &HeaderMap) {
        self.trailers = Announced::default();
        if !trailers.is_empty() {
            self.disguised.extend(placeholders_in("", None, trailers));
            self.disguised.extend(disguised::in_head("", None, trailers));
        }
    }

    /// Copies the facts that policy decides on, without the headers.
    pub(super) fn clone_facts(&self) -> Facts {
        Facts {
            method: self.method.clone(),
            authority: self.authority.clone(),
            path: self.path.clone(),
            tls: self.scheme == Scheme::Https,
            named: self.named.clone(),
            placeholders: self.placeholders.clone(),
            body: self.body.clone(),
            operations: self.operations.clone(),
            sessions: self.sessions.clone(),
        }
    }

    /// The facts that policy decides on.
    pub(crate) fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            authority: &self.authority,
            path: PathReadings::new(&self.path),
            tls: self.scheme == Scheme::Https,
            named: &self.named,
            placeholders: &self.placeholders,
            body: &self.body,
            operations: &self.operations,
            sessions: &self.sessions,
        }
    }
}

/// Removes the headers that `Connection` names, and then the hop-by-hop headers. Used for requests and responses.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = members(headers, &header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // These headers frame the message whether or not `Connection` names them, and hyper has checked them.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    // `TE: trailers` is the only value that may be forwarded, and gRPC needs it.
    let trailers = members(headers, &header::TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Finds the one authority that target, `Host` and the connection must name (RFC 9110 section 7.4).
fn authority_of(parts: &Parts, expected: &Expected) -> Result<Authority, Refusal> {
    let default_port = Some(expected.scheme.default_port());
    let parse = |text: &str| {
        Authority::parse(text, default_port).map_err(|error: AuthorityError| {
            bad_request(error.to_string(), "name the host as host or host:port")
        })
    };
    // RFC 9110 section 7.4: a target with another scheme is for another server.
    let scheme = match expected.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    if parts.uri.scheme_str().is_some_and(|named| named != scheme) {
        return Err(misdirected(format!(
            "the target's scheme is not {scheme}, the scheme of the connection"
        )));
    }
    let mut named = parts.uri.authority().map(|a| parse(a.as_str())).transpose()?;
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    if let Some(host) = hosts.next() {
        let host = host
            .to_str()
            .map_err(|_| bad_request("the Host header is not ASCII", "send the host's A-label"))?;
        let host = parse(host)?;
        if named.as_ref().is_some_and(|target| *target != host) {
            return Err(misdirected(format!("the request's target and its Host header ({host}) differ")));
        }
        named = Some(host);
    }
    if hosts.next().is_some() {
        return Err(bad_request("the request has more than one Host header", "send one"));
    }
    if named.is_none() && parts.version == Version::HTTP_10 {
        named.clone_from(&expected.implied);
    }
    let Some(named) = named else {
        return Err(bad_request("the request names no host", "send a Host header (RFC 9112 section 3.2)"));
    };
    if let Some(authority) = expected.authority.as_ref().filter(|authority| **authority != named) {
        return Err(misdirected(format!("the connection is for {authority}, but the request names {named}")));
    }
    if let Some(port) = expected.port.filter(|port| *port != named.port()) {
        return Err(misdirected(format!("the connection is for port {port}, but the request names {named}")));
    }
    Ok(named)
}

fn is_websocket(parts: &Parts) -> bool {
    let lists = |name: &HeaderName, wanted: &str| {
        members(&parts.headers, name).any(|word| word.eq_ignore_ascii_case(wanted))
    };
    parts.version == Version::HTTP_11
        && parts.method == Method::GET
        && parts.headers.get_all(header::SEC_WEBSOCKET_KEY).iter().count() == 1
        && lists(&header::CONNECTION, "upgrade")
        && lists(&header::UPGRADE, "websocket")
}

/// Returns the placeholders in the URL and in headers, also in Basic credentials and behind percent-escapes.
fn placeholders_in(path: &str, query: Option<&str>, headers: &HeaderMap) -> Vec<Placeholder> {
    let mut found = Vec::new();
    find_placeholders(path.as_bytes(), &mut found);
    find_placeholders(query.unwrap_or_default().as_bytes(), &mut found);
    for (name, value) in headers {
        find_placeholders(value.as_bytes(), &mut found);
        if *name == header::AUTHORIZATION
            && let Some((user, password)) = basic_credentials(value)
        {
            // Some services accept the key as the user name.
            find_placeholders(&user, &mut found);
            find_placeholders(&password, &mut found);
        }
    }
    found.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    found.dedup();
    found
}

fn find_placeholders(text: &[u8], found: &mut Vec<Placeholder>) {
    found.extend(Placeholder::find_all(text));
    // A double escape may be decoded by two servers in a row.
    let mut decoded = Cow::Borrowed(text);
    for _ in 0..2 {
        if !decoded.contains(&b'%') {
            return;
        }
        decoded = Cow::Owned(percent_encoding::percent_decode(&decoded).collect());
        found.extend(Placeholder::find_all(&decoded));
    }
}

/// Resources that headers and query name besides the URL.
fn named_in(
    request: &Naming<'_>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Vec<NamedResource>, Refusal> {
    let fields = || headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    named_resources(request, fields, query).ok_or_else(|| {
        bad_request(
            format!("the request names more than {MAX_NAMED} resources besides its URL"),
            "split it into several requests",
        )
    })
}

/// User and password of `Basic` credentials (RFC 7617).
pub(crate) fn basic_credentials(value: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let encoded = scheme_value(value, "basic")?;
    let decoded = data_encoding::BASE64.decode(encoded.as_bytes()).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    Some((decoded[..colon].to_vec(), decoded[colon + 1..].to_vec()))
}

/// The text after an authentication scheme's name (RFC 9110 section 11.4).
pub(crate) fn scheme_value<'v>(value: &'v HeaderValue, scheme: &str) -> Option<&'v str> {
    let (name, rest) = value.to_str().ok()?.trim().split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn bad_path(error: PathError) -> Refusal {
    match error {
        PathError::TooLong | PathError::TooManySegments => Refusal::new(
            Code::PathTooLong,
            error.to_string(),
            "send a shorter path; the query does not count",
        ),
        PathError::NotAbsolute | PathError::BadCharacter(_) => {
            bad_request(error.to_string(), "percent-encode the path (RFC 3986)")
        }
    }
}

fn bad_request(
    message: impl Into<std::borrow::Cow<'static, str>>,
    hint: impl Into<std::borrow::Cow<'static, str>>,
) -> Refusal {
    Refusal::new(Code::BadRequest, message, hint)
}

fn misdirected(message: String) -> Refusal {
    Refusal::new(Code::Misdirected, message, "open a separate connection for each host")
}
