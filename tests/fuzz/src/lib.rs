//! Properties that hold for every input, for the fuzz targets. Each function takes bytes, and panics
//! if its property is violated.

#![forbid(unsafe_code)]

pub use onecli_proxy::fuzzed::{front, noninterference, readings as decode, scrub};

use std::time::Duration;

use onecli_model::{
    Action, Authority, CanonicalPath, Host, HostPattern, PathPattern, PathReadings, RuleSpec, RuleText,
};
use onecli_net::sniff as sniff_bytes;
use onecli_tls::{ClientHello, parse_client_hello};

/// First bytes of a connection: the detected protocol does not depend on how the bytes arrive, and a complete
/// ClientHello remains one.
pub fn sniff(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut stream = bytes;
        let complete = |ahead: &[u8]| parse_client_hello(ahead) != ClientHello::Incomplete;
        if let Ok((_, ahead)) = sniff_bytes(&mut stream, complete, Duration::from_secs(5)).await {
            assert!(bytes.starts_with(&ahead), "bytes are read ahead as they came");
        }
    });
    if let ClientHello::Complete { server_name } = parse_client_hello(bytes) {
        let again = parse_client_hello(bytes);
        assert_eq!(again, ClientHello::Complete { server_name });
    }
}

/// Hosts and authorities: the canonical form parses to itself, and contains nothing that could be parsed differently.
pub fn authority(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(authority) = Authority::parse(text, Some(443)) {
        let form = authority.to_string();
        assert_eq!(Authority::parse(&form, None), Ok(authority), "{form:?}");
        assert!(form.is_ascii() && !form.contains(['@', '/', '?', '#', '%', '\\', ' ']), "{form:?}");
        assert_eq!(form, form.to_ascii_lowercase());
    }
    if let Ok(host) = text.parse::<Host>() {
        assert_eq!(host.to_string().parse(), Ok(host));
    }
}

/// Paths: the canonical form is a fixed point. Repeated decoding of a path without ambiguity yields no other
/// segments.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(path) = CanonicalPath::parse(text) else { return };
    assert_eq!(CanonicalPath::parse(path.as_str()).as_ref(), Ok(&path));
    if path.ambiguity().is_some() {
        return;
    }
    let segments = path.segments().count();
    let mut decoded = path.as_str().as_bytes().to_vec();
    for _ in 0..3 {
        decoded = percent_encoding::percent_decode(&decoded).collect();
        let mut parts = decoded.split(|byte| *byte == b'/').skip(1);
        assert_eq!(parts.clone().count(), segments, "{path}");
        assert!(parts.all(|part| part != b"." && part != b".."), "{path}");
        assert!(std::str::from_utf8(&decoded).is_ok(), "{path}");
    }
}

/// Patterns of rules and secrets, with the texts to match after a line end. Ambiguous input matches only a pattern
/// that matches everything. No name matches beyond its labels.
pub fn pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, subject) = text.split_once('\n').unwrap_or((text, "/v1/../admin"));
    if let (Ok(pattern), Ok(path)) = (pattern.parse::<PathPattern>(), CanonicalPath::parse(subject)) {
        let matched = pattern.matches(&PathReadings::new(&path));
        assert!(!matched || path.ambiguity().is_none() || pattern.to_string() == "/**", "{pattern} {path}");
    }
    if let (Ok(pattern), Ok(host)) = (pattern.parse::<HostPattern>(), subject.parse::<Host>())
        && pattern.matches(&host)
    {
        let form = pattern.to_string();
        let suffix = form.trim_start_matches('*').to_owned();
        assert!(host.to_string().ends_with(&suffix), "{form} {host}");
    }
}

/// Rules, one field per line (action, host, port, methods, paths, address, rate, tunnel): an accepted rule is written
/// unchanged, and decides the same for any request.
pub fn rule(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let Some(Ok(action)) = lines.next().map(str::parse::<Action>) else { return };
    let mut field = || lines.next().filter(|line| !line.is_empty()).map(str::to_owned);
    let words = |line: Option<String>| {
        line.iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect::<Vec<_>>()
    };
    let text = RuleText {
        action,
        host: field(),
        port: field(),
        methods: words(field()),
        paths: words(field()),
        address: field(),
        rate: field(),
        tunnel: field().is_some(),
    };
    let Ok(terms) = RuleSpec::try_from(text) else { return };
    let written = RuleText::from(terms.clone());
    assert_eq!(RuleSpec::try_from(written.clone()).as_ref(), Ok(&terms), "{written:?}");
    let json = serde_json::to_string(&terms).unwrap();
    assert_eq!(serde_json::from_str::<RuleSpec>(&json).unwrap(), terms, "{json}");
    let path = CanonicalPath::parse(written.paths.first().map_or("/v1/%2e%2e/admin", String::as_str));
    if let Ok(path) = path {
        let about = terms.is_about(&http::Method::POST, &PathReadings::new(&path));
        let plain = path.ambiguity().is_none() || written.paths.is_empty();
        assert!(plain || action != Action::Allow || about.is_err(), "{written:?} {path}");
    }
}
