//! `agent learn`: turns an agent's refusals in the audit log into the rules that would allow them. Requests that the
//! current policy allows are left out.

mod doubt;
mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use onecli_api::{LearnedRule, routes};
use onecli_model::{Action, AgentName, CanonicalPath, Code, PathPattern, Placeholder, RuleText};

use crate::context::{AdminContext, Lookup};
use crate::error::AdminError;
use crate::handlers::explain::evidence;
use crate::handlers::scope::RecordScope;
use doubt::{UNKNOWN_NETWORK, doubt, is_safe};
use refused::{CurrentPolicy, RefusedAccess};

/// The number of the agent's newest refusals to read.
const MAX_REFUSALS: u32 = 10_000;
/// If one host and method have more paths than this, the paths become one pattern.
const MAX_EXACT_PATHS: usize = 12;

/// Paths that require a second request, which only the first response names: the ending of the path, then the method
/// and the ending of the second request. This one is a git fetch (gitprotocol-http(5)).
const FOLLOWED_BY: [(&str, &str, &str); 1] = [("/info/refs", "POST", "/git-upload-pack")];

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct TargetKey {
    host: String,
    /// `None` if only the name was refused.
    port: Option<u16>,
    code: String,
    network: Option<String>,
}

#[derive(Default)]
struct RefusedPaths {
    count: u64,
    /// Paths by method; empty if no request was read.
    paths: BTreeMap<String, BTreeSet<String>>,
}

/// Returns whether the query requests every run of the agent.
///
/// # Errors
/// [`AdminError::Invalid`].
pub(crate) fn wants_all(query: &str) -> Result<bool, AdminError> {
    match query {
        "" => Ok(false),
        routes::EVERY_RUN => Ok(true),
        _ => Err(AdminError::Invalid(format!("the query must be {}", routes::EVERY_RUN))),
    }
}

pub(crate) async fn learn(
    context: &AdminContext,
    name: &AgentName,
    scope: RecordScope,
) -> Result<Vec<LearnedRule>, AdminError> {
    let stored = context.load().await?;
    let agent = stored.agent(name)?;
    let query = onecli_store::AuditQuery {
        agent: Some(agent.name.to_string()),
        verdict: Some("deny".to_owned()),
        launched_by: scope.launched_by,
        since: scope.since,
        max_rows_read: scope.max_rows_read,
        limit: MAX_REFUSALS,
        newest_first: true,
        ..onecli_store::AuditQuery::default()
    };
    let rows = context.handles.store.list_audit(&query).await?;
    let refused = rows.iter().filter_map(|row| serde_json::from_str(&row.json).ok());
    let snapshot = Arc::clone(&context.handles.policy.borrow());
    match snapshot.identify(&evidence(&stored, agent), context.handles.clock.now()) {
        Ok(identity) => {
            let now = CurrentPolicy { snapshot, identity };
            Ok(rules(refused, |refused| now.refuses(refused)))
        }
        Err(refusal) => {
            let mut all = rules(refused, |_| true);
            let doubt = format!("{}: {}", refusal.message, refusal.hint);
            for learned in &mut all {
                learned.doubt = Some(doubt.clone());
            }
            Ok(all)
        }
    }
}

fn rules(
    refused: impl Iterator<Item = RefusedAccess>,
    is_refused: impl Fn(&RefusedAccess) -> bool,
) -> Vec<LearnedRule> {
    // Evaluate each distinct refusal once, regardless of its count.
    let mut counted: BTreeMap<RefusedAccess, u64> = BTreeMap::new();
    for mut refused in refused {
        let count = refused.count.take().unwrap_or(1);
        *counted.entry(refused).or_default() += count;
    }
    let mut wanted: BTreeMap<TargetKey, RefusedPaths> = BTreeMap::new();
    for (refused, count) in counted {
        let Some((key, request)) = sort(&refused).filter(|_| is_refused(&refused)) else { continue };
        let wanted = wanted.entry(key).or_default();
        wanted.count += count;
        if let Some((method, path)) = request {
            for (end, next, ending) in FOLLOWED_BY {
                if let Some(before) = path.strip_suffix(end) {
                    wanted.paths.entry(next.to_owned()).or_default().insert(format!("{before}{ending}"));
                }
            }
            wanted.paths.entry(method).or_default().insert(path);
        }
    }
    let connected: BTreeSet<String> =
        wanted.keys().filter(|key| key.port.is_some()).map(|key| key.host.clone()).collect();
    // A refused connection has more detail than a refused name.
    wanted.retain(|key, _| key.port.is_some() || !connected.contains(&key.host));
    wanted.into_iter().flat_map(|(key, wanted)| to_rules(&key, wanted)).collect()
}

/// Returns the group of a refusal; `None` if no rule would have helped.
fn sort(refused: &RefusedAccess) -> Option<(TargetKey, Option<(String, String)>)> {
    let host = refused.host()?;
    let is_request = refused.is(Code::EgressDenied) || refused.is(Code::PlaceholderMissing);
    let network = if refused.is(Code::AddressBlocked) && host.as_ip().is_none() {
        Some(UNKNOWN_NETWORK.to_owned())
    } else if is_request || refused.is(Code::AddressBlocked) || refused.is(Code::ProtocolDenied) {
        host.as_ip().map(|ip| ip.to_string())
    } else {
        return None;
    };
    let request = match refused.request() {
        Some((method, path)) => Some((method.to_owned(), generalised(path)?)),
        None if refused.is(Code::PlaceholderMissing) => return None,
        None => None,
    };
    let host = if host.as_ip().is_some() { String::new() } else { host.to_string() };
    Some((TargetKey { host, port: refused.port(), code: refused.code.clone()?, network }, request))
}

fn to_rules(key: &TargetKey, wanted: RefusedPaths) -> Vec<LearnedRule> {
    let rule = |methods: Vec<String>, paths: Vec<String>| {
        let rule = RuleText {
            action: Action::Allow,
            host: Some(key.host.clone()).filter(|host| !host.is_empty()),
            port: key.port.map(|port| port.to_string()),
            methods,
            paths,
            address: key.network.clone(),
            rate: None,
            tunnel: false,
        };
        LearnedRule { count: wanted.count, code: key.code.clone(), doubt: doubt(&key.code, &rule), rule }
    };
    if wanted.paths.is_empty() {
        return vec![rule(Vec::new(), Vec::new())];
    }
    // Methods with the same paths become one rule.
    let mut by_paths: BTreeMap<(bool, Vec<String>), Vec<String>> = BTreeMap::new();
    for (method, paths) in wanted.paths {
        let key = (is_safe(&method), gathered(paths.into_iter().collect()));
        by_paths.entry(key).or_default().push(method);
    }
    by_paths.into_iter().rev().map(|((_, paths), methods)| rule(methods, paths)).collect()
}

/// Combines many paths into patterns of their first segment.
fn gathered(mut paths: Vec<String>) -> Vec<String> {
    paths.sort();
    paths.dedup();
    if paths.len() <= MAX_EXACT_PATHS {
        return paths;
    }
    let mut shorter: Vec<String> = paths
        .iter()
        .map(|path| match path[1..].split_once('/') {
            Some((first, _)) if !first.is_empty() => format!("/{first}/**"),
            _ => path.clone(),
        })
        .collect();
    shorter.dedup();
    if shorter.len() <= MAX_EXACT_PATHS { shorter } else { vec!["/**".to_owned()] }
}

/// Turns a path into a pattern: numbers, UUIDs and long hex or random words become `*`. Returns `None` for a path that
/// no pattern can express. In a pattern, `*` matches any text, so a literal `*` in a path cannot be expressed. An agent
/// that requests such a path must not obtain a rule for others.
fn generalised(path: &str) -> Option<String> {
    let path = CanonicalPath::parse(path).ok().filter(|path| path.ambiguity().is_none())?;
    if path.segments().any(|segment| segment.contains('*')) {
        return None;
    }
    let segments: Vec<String> = path.segments().map(general_segment).collect();
    let pattern = format!("/{}", segments.join("/"));
    pattern.parse::<PathPattern>().ok().map(String::from)
}

/// Returns a segment of a pattern. A placeholder is `*`, because the agent's next placeholder is another one.
fn general_segment(segment: &str) -> String {
    let mut general = segment.to_owned();
    for placeholder in Placeholder::find_all(segment.as_bytes()) {
        general = general.replace(placeholder.as_str(), "*");
    }
    if general == segment && is_identifier(segment) { "*".to_owned() } else { general }
}

fn is_identifier(segment: &str) -> bool {
    let all = |is: fn(&u8) -> bool| !segment.is_empty() && segment.bytes().all(|b| is(&b));
    let has_digit = segment.bytes().any(|b| b.is_ascii_digit());
    let has_letter = segment.bytes().any(|b| b.is_ascii_alphabetic());
    all(u8::is_ascii_digit)
        || (segment.len() >= 8 && has_digit && all(u8::is_ascii_hexdigit))
        || (segment.len() == 36 && segment.parse::<uuid::Uuid>().is_ok())
        || (segment.len() >= 20
            && has_digit
            && has_letter
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(records: &[&str]) -> Vec<String> {
        let records = records.iter().map(|json| serde_json::from_str(json).unwrap());
        rules(records, |_| true)
            .into_iter()
            .map(|learned| {
                let RuleText { host, port, methods, paths, address, .. } = learned.rule;
                let place = host.or(address).unwrap_or_default();
                let doubt = if learned.doubt.is_some() { "# " } else { "" };
                format!(
                    "{doubt}{}x {place} {} {} {}",
                    learned.count,
                    port.unwrap_or_default(),
                    methods.join(","),
                    paths.join(",")
                )
            })
            .collect()
    }

    #[test]
    fn refusals_become_rules() {
        let refused = |method: &str, path: &str| {
            format!(
                r#"{{"code":"egress_denied","host":"api.test","port":443,"method":"{method}","path":"{path}"}}"#
            )
        };
        let records = [
            refused("GET", "/v1/users/123"),
            refused("GET", "/v1/users/77"),
            refused("GET", "/v1/files/0198c5a2-7d3e-7b1a-9f00-0123456789ab"),
            refused("POST", "/v1/users/9"),
            refused("GET", "/v1/../admin"),
            refused("GET", "/v1/*"),
            refused("GET", "/**"),
            refused("GET", "/v1/files*/x"),
        ];
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        assert_eq!(
            learned(&records),
            ["4x api.test 443 GET /v1/files/*,/v1/users/*", "4x api.test 443 POST /v1/users/*"]
        );
        let placeholder = Placeholder::from_bits([7; 20]);
        let in_path = refused("POST", &format!("/bot1.{placeholder}/sendMessage"));
        assert_eq!(learned(&[&in_path]), ["1x api.test 443 POST /bot1.*/sendMessage"]);
        let connections = [
            r#"{"code":"egress_denied","host":"db.test","port":5432,"count":3}"#,
            r#"{"code":"protocol_denied","host":"10.0.0.5","address":"10.0.0.5:22"}"#,
            r#"{"code":"placeholder_foreign","host":"evil.test","port":443}"#,
            r#"{"code":"rule_denied","host":"evil.test","port":443}"#,
        ];
        assert_eq!(learned(&connections), ["1x 10.0.0.5 22  ", "3x db.test 5432  "]);
    }

    /// The commands are for pasting. Rules that may not work or that need a decision are commented out.
    #[test]
    fn doubtful_rules_are_marked() {
        let check = |record: &str, expected: &[&str]| assert_eq!(learned(&[record]), expected, "{record}");
        // A name only: the port in the record is that of DNS.
        check(r#"{"code":"egress_denied","host":"api.test","port":53}"#, &["1x api.test   "]);
        check(r#"{"code":"egress_denied","host":"printer","port":53}"#, &["# 1x printer   "]);
        check(
            r#"{"code":"egress_denied","host":"4.3.2.1.in-addr.arpa","port":53}"#,
            &["# 1x 4.3.2.1.in-addr.arpa   "],
        );
        check(
            r#"{"code":"egress_denied","host":"metadata.google.internal","port":53}"#,
            &["# 1x metadata.google.internal   "],
        );
        // DNS servers that the agent chose.
        check(r#"{"code":"protocol_denied","address":"8.8.8.8:53"}"#, &["# 1x 8.8.8.8 53  "]);
        let metadata =
            r#"{"code":"egress_denied","host":"169.254.169.254","port":80,"method":"GET","path":"/latest/"}"#;
        check(metadata, &["# 1x 169.254.169.254 80 GET /latest/"]);
        check(
            r#"{"code":"address_blocked","host":"db.test","port":443,"method":"GET","path":"/"}"#,
            &["# 1x db.test 443 GET /"],
        );
        check(
            r#"{"code":"address_blocked","host":"10.0.0.5","port":443,"method":"GET","path":"/"}"#,
            &["1x 10.0.0.5 443 GET /"],
        );
        let missing = |method: &str| {
            format!(
                r#"{{"code":"placeholder_missing","host":"a.test","port":443,"method":"{method}","path":"/v1"}}"#
            )
        };
        check(&missing("GET"), &["1x a.test 443 GET /v1"]);
        check(&missing("POST"), &["# 1x a.test 443 POST /v1"]);
        let (get, post) = (missing("GET"), missing("POST"));
        assert_eq!(learned(&[&get, &post]), ["2x a.test 443 GET /v1", "# 2x a.test 443 POST /v1"]);
        check(r#"{"code":"placeholder_missing","host":"a.test","port":443}"#, &[]);
        check(r#"{"code":"agent_disabled","host":"a.test","port":443}"#, &[]);
        // The command line quotes the path.
        check(
            r#"{"code":"egress_denied","host":"a.test","port":443,"method":"G'T","path":"/"}"#,
            &["1x a.test 443 G'T /"],
        );
        // Uninspected bytes, identified by the host name of a CONNECT.
        check(r#"{"code":"protocol_denied","host":"ssh.test","port":22}"#, &["1x ssh.test 22  "]);
    }

    #[test]
    fn refused_connection_replaces_refused_name() {
        let name = r#"{"code":"egress_denied","host":"api.test","port":53}"#;
        let connection = r#"{"code":"egress_denied","host":"api.test","port":8443}"#;
        assert_eq!(learned(&[name, connection, name]), ["1x api.test 8443  "]);
    }

    #[test]
    fn git_fetch_yields_rules_for_both_requests() {
        let refused = r#"{"code":"egress_denied","host":"git.test","port":443,"method":"GET","path":"/r.git/info/refs"}"#;
        assert_eq!(
            learned(&[refused]),
            ["1x git.test 443 GET /r.git/info/refs", "1x git.test 443 POST /r.git/git-upload-pack"]
        );
    }

    #[test]
    fn refusals_that_are_allowed_now_are_left_out() {
        let records = [
            r#"{"code":"egress_denied","host":"a.test","port":443}"#,
            r#"{"code":"egress_denied","host":"b.test","port":443}"#,
        ];
        let records = records.iter().map(|json| serde_json::from_str(json).unwrap());
        let left = rules(records, |refused| refused.host.as_deref() == Some("a.test"));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].rule.host.as_deref(), Some("a.test"));
    }

    #[test]
    fn many_paths_are_combined_into_patterns() {
        let below = |first: &str| (0..20).map(|n| format!("/{first}/word{n}x")).collect::<Vec<_>>();
        assert_eq!(gathered(below("a")), ["/a/**"]);
        let wide: Vec<String> = (0..20).map(|n| format!("/w{n}x/y")).collect();
        assert_eq!(gathered(wide), ["/**"]);
        assert_eq!(gathered(vec!["/b".to_owned(), "/a".to_owned()]), ["/a", "/b"]);
    }

    #[test]
    fn identifiers_in_paths_become_wildcards() {
        for (segment, expected) in [
            ("123", true),
            ("v1", false),
            ("deadbeef", false),
            ("deadbee7", true),
            ("0198c5a2-7d3e-7b1a-9f00-0123456789ab", true),
            ("file-abcDEF123456789012", true),
            ("chat-completions-endpoint", false),
            ("", false),
        ] {
            assert_eq!(is_identifier(segment), expected, "{segment}");
        }
    }
}
