//! `agent learn`: what an agent was refused, out of the audit log, as the rules that would allow it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::api::LearnedRule;
use super::error::AdminError;
use super::state::{Find, State};
use crate::model::{Action, AgentName, CanonicalPath, Code, Host, PathPattern, RuleText};
use crate::store;

/// How many of the agent's refusals are looked at, the newest.
const LOOKED_AT: u32 = 10_000;
/// More paths than this of one host and method become one pattern.
const MOST_PATHS: usize = 12;

/// What is read of a record.
#[derive(Deserialize)]
struct Refused {
    code: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    method: Option<String>,
    path: Option<String>,
    address: Option<String>,
    count: Option<u64>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    host: String,
    port: u16,
    code: String,
    network: Option<String>,
}

#[derive(Default)]
struct Wanted {
    count: u64,
    /// Paths by method; none where nothing was read.
    paths: BTreeMap<String, Vec<String>>,
}

pub(super) async fn learn(state: &State, name: &AgentName) -> Result<Vec<LearnedRule>, AdminError> {
    let stored = state.load().await?;
    let agent = stored.agent(name)?;
    let query = store::AuditQuery {
        agent: Some(agent.name.to_string()),
        verdict: Some("deny".to_owned()),
        limit: LOOKED_AT,
        newest_first: true,
        ..store::AuditQuery::default()
    };
    let rows = state.handles.store.list_audit(&query).await?;
    Ok(rules(rows.iter().filter_map(|row| serde_json::from_str(&row.json).ok())))
}

fn rules(refused: impl Iterator<Item = Refused>) -> Vec<LearnedRule> {
    let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
    for refused in refused {
        let Some((key, request)) = sort(&refused) else { continue };
        let wanted = wanted.entry(key).or_default();
        wanted.count += refused.count.unwrap_or(1);
        if let Some((method, path)) = request {
            let paths = wanted.paths.entry(method).or_default();
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    wanted.into_iter().flat_map(|(key, wanted)| to_rules(&key, wanted)).collect()
}

/// Where a refusal belongs; `None` where no rule would have helped.
fn sort(refused: &Refused) -> Option<(Key, Option<(String, String)>)> {
    let code = refused.code.clone()?;
    let host: Host = refused.host.as_ref()?.parse().ok()?;
    let port = refused.port.unwrap_or(443);
    let by_address = code == Code::ProtocolDenied.as_str();
    let network = match code.as_str() {
        code if code == Code::EgressDenied.as_str() => host.as_ip().map(|ip| ip.to_string()),
        code if code == Code::AddressBlocked.as_str() => {
            Some(host.as_ip().map_or("NETWORK".to_owned(), |ip| ip.to_string()))
        }
        _ if by_address => {
            let address: std::net::SocketAddr = refused.address.as_ref()?.parse().ok()?;
            return Some((
                Key {
                    host: String::new(),
                    port: address.port(),
                    code,
                    network: Some(address.ip().to_string()),
                },
                None,
            ));
        }
        _ => return None,
    };
    let request = match (&refused.method, &refused.path) {
        (Some(method), Some(path)) if method != "CONNECT" => Some((method.clone(), generalised(path)?)),
        _ => None,
    };
    let host = if host.as_ip().is_some() { String::new() } else { host.to_string() };
    Some((Key { host, port, code, network }, request))
}

fn to_rules(key: &Key, wanted: Wanted) -> Vec<LearnedRule> {
    let rule = |methods: Vec<String>, paths: Vec<String>| LearnedRule {
        count: wanted.count,
        code: key.code.clone(),
        rule: RuleText {
            action: Action::Allow,
            host: Some(key.host.clone()).filter(|host| !host.is_empty()),
            port: Some(key.port.to_string()),
            methods,
            paths,
            address: key.network.clone(),
            rate: None,
            tunnel: false,
        },
    };
    if wanted.paths.is_empty() {
        return vec![rule(Vec::new(), Vec::new())];
    }
    // Methods that want the same paths are one rule.
    let mut by_paths: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for (method, paths) in wanted.paths {
        by_paths.entry(gathered(paths)).or_default().push(method);
    }
    by_paths.into_iter().map(|(paths, methods)| rule(methods, paths)).collect()
}

/// Many paths as one, by what they begin with.
fn gathered(mut paths: Vec<String>) -> Vec<String> {
    paths.sort();
    paths.dedup();
    if paths.len() <= MOST_PATHS {
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
    if shorter.len() <= MOST_PATHS { shorter } else { vec!["/**".to_owned()] }
}

/// A path as a pattern: numbers, UUIDs and long hex or random words become `*`. `None` for one that no pattern can have. In a
/// pattern `*` stands for anything, so no pattern means a path with that character alone: an agent that asks for one must not
/// get a rule for others.
fn generalised(path: &str) -> Option<String> {
    let path = CanonicalPath::parse(path).ok().filter(|path| path.ambiguity().is_none())?;
    if path.segments().any(|segment| segment.contains('*')) {
        return None;
    }
    let segments: Vec<&str> =
        path.segments().map(|segment| if is_identifier(segment) { "*" } else { segment }).collect();
    let pattern = format!("/{}", segments.join("/"));
    pattern.parse::<PathPattern>().ok().map(String::from)
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
        rules(records)
            .into_iter()
            .map(|learned| {
                let RuleText { host, port, methods, paths, address, .. } = learned.rule;
                let place = host.or(address).unwrap_or_default();
                format!(
                    "{}x {place} {} {} {}",
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
        let connections = [
            r#"{"code":"egress_denied","host":"db.test","port":5432,"count":3}"#,
            r#"{"code":"protocol_denied","host":"10.0.0.5","address":"10.0.0.5:22"}"#,
            r#"{"code":"placeholder_foreign","host":"evil.test","port":443}"#,
            r#"{"code":"rule_denied","host":"evil.test","port":443}"#,
        ];
        assert_eq!(learned(&connections), ["1x 10.0.0.5 22  ", "3x db.test 5432  "]);
    }

    #[test]
    fn many_paths_become_few() {
        let below = |first: &str| (0..20).map(|n| format!("/{first}/word{n}x")).collect::<Vec<_>>();
        assert_eq!(gathered(below("a")), ["/a/**"]);
        let wide: Vec<String> = (0..20).map(|n| format!("/w{n}x/y")).collect();
        assert_eq!(gathered(wide), ["/**"]);
        assert_eq!(gathered(vec!["/b".to_owned(), "/a".to_owned()]), ["/a", "/b"]);
    }

    #[test]
    fn identifiers() {
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
