//! Rules: permissions of an agent in addition to its grants, and restrictions that override them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::host::address_scope::contains_any_form;
use crate::host::authority::{Authority, Host};
use crate::identity::ids::AgentId;
use crate::path::PathReadings;
use crate::pattern::{HostPattern, MethodSet, PathPattern, PatternError};

/// The maximum number of path patterns. More are a mistake, and each costs time in every match.
const MAX_PATHS: usize = 256;

/// A rule's number in the store, from 1. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub u32);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RuleId {
    type Err = String;

    fn from_str(text: &str) -> Result<RuleId, String> {
        text.parse()
            .map(RuleId)
            .map_err(|_| "a rule's id is a number, as 'onecli rule list' shows it".to_owned())
    }
}

/// The effect of a rule on matching requests, in the order of evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refuses the request, even if something else allows it.
    Deny,
    /// Holds the request until an approver answers. An approved request counts as allowed.
    Approve,
    /// Refuses requests beyond a number in a window of time. Allows nothing by itself.
    Limit,
    /// Allows the request. Only granted credentials are injected.
    Allow,
}

impl Action {
    /// Returns the keyword of the action.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Deny => "deny",
            Action::Approve => "approve",
            Action::Limit => "limit",
            Action::Allow => "allow",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Action {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Action, RuleError> {
        [Action::Deny, Action::Approve, Action::Limit, Action::Allow]
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| RuleError::Action(quoted(text)))
    }
}

/// A number of requests in a window of time: `10/m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    unit: char,
}

impl Rate {
    /// Returns the number of requests, 1 to 1,000,000.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Returns the window: a second, a minute, an hour or a day.
    pub fn window(self) -> Duration {
        Duration::from_secs(match self.unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => 86_400,
        })
    }
}

impl FromStr for Rate {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rate, RuleError> {
        let bad = || RuleError::Rate(quoted(text));
        let (count, unit) = text.split_once('/').ok_or_else(bad)?;
        let count = count.parse().ok().filter(|count| (1..=1_000_000).contains(count)).ok_or_else(bad)?;
        match unit {
            "s" | "m" | "h" | "d" => Ok(Rate { count, unit: unit.chars().next().unwrap_or('d') }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit)
    }
}

/// The text form of a rule, not yet validated. [`RuleSpec`] is the validated form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// The action.
    pub action: Action,
    /// A host or a pattern of hosts. `None` for all.
    #[serde(default)]
    pub host: Option<String>,
    /// A port, or `*` for all. The default is 443, and all ports for a denial. In JSON, a port is a number; strings
    /// are accepted too.
    #[serde(default, with = "port_text")]
    pub port: Option<String>,
    /// Methods; empty for all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Path patterns; empty for all.
    #[serde(default)]
    pub paths: Vec<String>,
    /// A network, such as `10.0.0.0/24`, or one address.
    #[serde(default)]
    pub address: Option<String>,
    /// A number in a window of time: `10/m`. Limits have one, others do not.
    #[serde(default)]
    pub rate: Option<String>,
    /// Whether allowed connections pass uninspected even if a secret is stored for the host.
    #[serde(default)]
    pub tunnel: bool,
}

/// The JSON form of a port: a number, or a string if it is not a number.
mod port_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
    }

    #[expect(clippy::ref_option, reason = "the signature that serde requires")]
    pub(super) fn serialize<S: Serializer>(port: &Option<String>, out: S) -> Result<S::Ok, S::Error> {
        let port = port.as_ref();
        port.map(|text| text.parse().map_or_else(|_| Port::Text(text.clone()), Port::Number)).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Option::<Port>::deserialize(from)?.map(|port| match port {
            Port::Number(port) => port.to_string(),
            Port::Text(text) => text,
        }))
    }
}

/// The reason why a rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The action is none of the four.
    #[error("'{0}' is not an action: use allow, deny, limit or approve")]
    Action(String),
    /// A host, path or method is not a valid pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The text is not a port.
    #[error("'{0}' is not a port: use a number from 1 to 65535, or '*' for all")]
    Port(String),
    /// The text is not a network.
    #[error("'{0}' is not a network: write it as 10.0.0.0/24 or 192.0.2.7")]
    Address(String),
    /// The text is not a rate.
    #[error("'{0}' is not a rate: write it as 10/s, 60/m, 500/h or 1000/d, up to a million")]
    Rate(String),
    /// The parts cannot be combined. The text names permitted combinations.
    #[error("{0}")]
    Combination(&'static str),
}

/// The validated conditions and the action of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RuleText", into = "RuleText")]
pub struct RuleSpec {
    action: Action,
    host: Option<HostPattern>,
    port: Option<u16>,
    methods: MethodSet,
    paths: Vec<PathPattern>,
    address: Option<IpNet>,
    rate: Option<Rate>,
    tunnel: bool,
}

/// A rule: its terms, and the agents it applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub id: RuleId,
    /// The agent; `None` for all.
    pub agent: Option<AgentId>,
    /// Its conditions and action.
    pub terms: RuleSpec,
}

impl fmt::Display for Rule {
    /// Writes `deny 7`: its action and its number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.terms.action, self.id)
    }
}

/// The reason why a rule does not apply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The rule applies to other hosts.
    Host,
    /// The rule applies to another port.
    Port,
    /// The rule applies to another network, or to connections that name an address instead of a host.
    Address,
    /// The rule is evaluated once the addresses of the host are known.
    AddressLater,
    /// The rule applies to other methods.
    Method,
    /// The rule applies to other paths.
    Path,
    /// The rule allows certain paths, and servers read this one in different ways.
    AmbiguousPath,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mismatch::Host => "it applies to other hosts",
            Mismatch::Port => "it applies to another port",
            Mismatch::Address => "it names a network but no host: it is for connections to its addresses",
            Mismatch::AddressLater => "it is evaluated once the host's addresses are known",
            Mismatch::Method => "it applies to other methods",
            Mismatch::Path => "it applies to other paths",
            Mismatch::AmbiguousPath => {
                "servers read this path in different ways, and it allows only some paths"
            }
        })
    }
}

impl TryFrom<RuleText> for RuleSpec {
    type Error = RuleError;

    fn try_from(text: RuleText) -> Result<RuleSpec, RuleError> {
        let action = text.action;
        let host = match text.host.as_deref() {
            None | Some("*") => None,
            // A denial may cover a public suffix, because it refuses hosts of every owner.
            Some(host) if action == Action::Deny => Some(HostPattern::of_any_owner(host)?),
            Some(host) => Some(host.parse()?),
        };
        let port = match text.port.as_deref() {
            None if action == Action::Deny => None,
            None => Some(443),
            Some("*") => None,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(RuleError::Port(quoted(port))),
                Ok(port) => Some(port),
            },
        };
        if text.paths.len() > MAX_PATHS {
            return Err(RuleError::Combination("a rule has at most 256 path patterns: use a wildcard"));
        }
        let mut paths: Vec<PathPattern> =
            text.paths.iter().map(|path| path.parse()).collect::<Result<_, PatternError>>()?;
        if paths.iter().any(PathPattern::is_everything) {
            paths.clear();
        }
        let address = text.address.as_deref().map(parse_network).transpose()?;
        let rate = text.rate.as_deref().map(str::parse).transpose()?;
        match (action, &rate, &address) {
            (Action::Limit, None, _) => {
                return Err(RuleError::Combination("a limit needs a rate, such as --rate 60/m"));
            }
            (Action::Allow | Action::Deny | Action::Approve, Some(_), _) => {
                return Err(RuleError::Combination("only a limit has a rate"));
            }
            (Action::Limit | Action::Approve, _, Some(_)) => {
                return Err(RuleError::Combination("only allow and deny may have an address: name the host"));
            }
            _ => {}
        }
        if action == Action::Allow && host.is_none() && address.is_none() && !text.host_is_star() {
            return Err(RuleError::Combination(
                "name what is allowed: --host HOST, --host '*' for all hosts, or --address NETWORK",
            ));
        }
        let methods = MethodSet::try_from(text.methods)?;
        let tunnel = text.tunnel;
        let terms = RuleSpec { action, host, port, methods, paths, address, rate, tunnel };
        if tunnel && (action != Action::Allow || !terms.is_whole()) {
            return Err(RuleError::Combination(
                "only an allow without methods and paths can have --tunnel: tunnelled requests are not inspected",
            ));
        }
        Ok(terms)
    }
}

impl RuleText {
    fn host_is_star(&self) -> bool {
        self.host.as_deref() == Some("*")
    }
}

impl From<RuleSpec> for RuleText {
    fn from(terms: RuleSpec) -> RuleText {
        // Rules for all hosts are written with `*`, except those with an address.
        let every_host = || terms.address.is_none().then(|| "*".to_owned());
        RuleText {
            action: terms.action,
            host: terms.host.as_ref().map(ToString::to_string).or_else(every_host),
            port: Some(terms.port.map_or_else(|| "*".to_owned(), |port| port.to_string())),
            methods: terms.methods.into(),
            paths: terms.paths.into_iter().map(String::from).collect(),
            address: terms.address.map(|net| net.to_string()),
            rate: terms.rate.map(|rate| rate.to_string()),
            tunnel: terms.tunnel,
        }
    }
}

impl RuleSpec {
    /// Returns the action.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Returns the hosts; `None` for all.
    pub fn host(&self) -> Option<&HostPattern> {
        self.host.as_ref()
    }

    /// Returns the port; `None` for all.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the network.
    pub fn address(&self) -> Option<IpNet> {
        self.address
    }

    /// Returns the rate.
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Returns whether a host may be both in this rule and in `pattern`. If both have wildcards, the result may be
    /// true although no such host exists.
    pub fn may_meet(&self, pattern: &HostPattern) -> bool {
        match (&self.host, pattern) {
            (None, _) => true,
            (Some(own), HostPattern::Exact(host)) => own.matches(host),
            (Some(HostPattern::Exact(host)), pattern) => pattern.matches(host),
            (Some(own), pattern) => {
                let suffix = |pattern: &HostPattern| pattern.to_string().trim_start_matches('*').to_owned();
                let (own, other) = (suffix(own), suffix(pattern));
                own.ends_with(&other) || other.ends_with(&own)
            }
        }
    }

    /// Returns whether allowed connections pass uninspected even if a secret is stored for the host.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Returns whether the rule applies to whole connections, regardless of the requests on them.
    pub fn is_whole(&self) -> bool {
        self.methods.is_all() && self.paths.is_empty()
    }

    /// Returns whether the rule can only be applied to inspected requests.
    pub fn wants_inspection(&self) -> bool {
        matches!(self.action, Action::Limit | Action::Approve) || !self.is_whole()
    }

    /// Checks that the rule applies to this host and port. A network is not considered: see [`RuleSpec::judges`].
    ///
    /// # Errors
    /// [`Mismatch::Host`], [`Mismatch::Port`].
    pub fn is_for(&self, authority: &Authority) -> Result<(), Mismatch> {
        if !self.is_for_host(authority.host()) {
            return Err(Mismatch::Host);
        }
        if self.port.is_some_and(|port| port != authority.port()) {
            return Err(Mismatch::Port);
        }
        Ok(())
    }

    /// Returns whether the rule applies to this host on some port.
    pub fn is_for_host(&self, host: &Host) -> bool {
        self.host.as_ref().is_none_or(|pattern| pattern.matches(host))
    }

    /// Checks that the rule can be evaluated for this host and port before an address of the host is known. A denied
    /// network can only be evaluated for addresses. An allowed network applies to the hosts that the rule names,
    /// whose addresses must then be in it. Without a host, it applies to connections that name an address instead of
    /// a host. Names are not resolved for such a rule, because any client may choose them.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn judges(&self, authority: &Authority) -> Result<(), Mismatch> {
        self.is_for(authority)?;
        let Some(network) = self.address else { return Ok(()) };
        match (authority.host().as_ip(), self.action) {
            (Some(ip), Action::Deny) if contains_any_form(network, ip) => Ok(()),
            (Some(ip), Action::Allow) if network.contains(&ip) => Ok(()),
            (None, Action::Deny) => Err(Mismatch::AddressLater),
            (None, _) if self.host.is_some() => Ok(()),
            _ => Err(Mismatch::Address),
        }
    }

    /// Checks that the rule applies to this method and path. A restriction applies to every spelling that a server
    /// may read as the path. A permission applies only to the path as written.
    ///
    /// # Errors
    /// [`Mismatch::Method`], [`Mismatch::Path`], [`Mismatch::AmbiguousPath`].
    pub fn is_about(&self, method: &Method, path: &PathReadings<'_>) -> Result<(), Mismatch> {
        // A HEAD is a GET without the body of the response (RFC 9110 section 9.3.2).
        let restricts = self.action != Action::Allow;
        let head = restricts && *method == Method::HEAD && self.methods.contains(&Method::GET);
        if !(self.methods.contains(method) || head) {
            return Err(Mismatch::Method);
        }
        let matches = |pattern: &PathPattern| {
            if restricts { pattern.matches_any_spelling(path) } else { pattern.matches(path) }
        };
        match (self.paths.is_empty(), path.ambiguity()) {
            (true, _) => Ok(()),
            (false, Some(_)) if !restricts => Err(Mismatch::AmbiguousPath),
            (false, _) if self.paths.iter().any(matches) => Ok(()),
            (false, _) => Err(Mismatch::Path),
        }
    }
}

fn parse_network(text: &str) -> Result<IpNet, RuleError> {
    let bad = || RuleError::Address(quoted(text));
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| bad())?),
    };
    // Addresses are compared in their canonical form, which is never a mapped one (RFC 4291 section 2.5.5.2).
    if net.addr().to_canonical() == net.addr() { Ok(net.trunc()) } else { Err(bad()) }
}

fn quoted(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests;
