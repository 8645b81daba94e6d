//! Rules: what an agent may do besides its grants, and what it may not in spite of them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::authority::{Authority, Host};
use super::ids::AgentId;
use super::path::PathReadings;
use super::pattern::{HostPattern, MethodSet, PathPattern, PatternError};
use super::reach::contains_any_form;

/// More patterns than this are a mistake, and each costs time in every match.
const MAX_PATHS: usize = 256;

/// A rule's number in the store, from 1. Numbers are never used again.
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

/// What a rule does with what it matches, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refuses it, whatever else allows it.
    Deny,
    /// Holds it until a person answers. Whatever that person allows, the rule allows.
    Approve,
    /// Refuses it past so many in a window of time. Allows nothing by itself.
    Limit,
    /// Lets it through, without any credential but those that are granted.
    Allow,
}

impl Action {
    /// The word for it.
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

/// So many requests in a window of time: `10/m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    unit: char,
}

impl Rate {
    /// How many, 1 to 1,000,000.
    pub fn count(self) -> u32 {
        self.count
    }

    /// The window: a second, a minute, an hour or a day.
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

/// A rule as it is written down: texts, not yet checked. [`Terms`] is what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// What it does.
    pub action: Action,
    /// A host or a pattern of hosts; absent for all.
    #[serde(default)]
    pub host: Option<String>,
    /// A port, or `*` for all. What is absent means 443, and all ports where the rule denies. In JSON, a port is a number;
    /// strings are read, too.
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
    /// How many in what time: `10/m`. Limits have one, others do not.
    #[serde(default)]
    pub rate: Option<String>,
    /// Does what is allowed pass unread even where a secret is stored for the host?
    #[serde(default)]
    pub tunnel: bool,
}

/// A port in JSON: a number, or a string where it is none.
mod port_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
    }

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
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

/// Why a rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not one of the four.
    #[error("'{0}' is no action: give allow, deny, limit or approve")]
    Action(String),
    /// A host, path or method that is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Not a port.
    #[error("'{0}' is no port: give a number from 1 to 65535, or '*' for all")]
    Port(String),
    /// Not a network.
    #[error("'{0}' is no network: write it as 10.0.0.0/24 or 192.0.2.7")]
    Address(String),
    /// Not a rate.
    #[error("'{0}' is no rate: write it as 10/s, 60/m, 500/h or 1000/d, up to a million")]
    Rate(String),
    /// Parts that do not go together, and what does.
    #[error("{0}")]
    Combination(&'static str),
}

/// What a rule matches and what it does, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RuleText", into = "RuleText")]
pub struct Terms {
    action: Action,
    host: Option<HostPattern>,
    port: Option<u16>,
    methods: MethodSet,
    paths: Vec<PathPattern>,
    address: Option<IpNet>,
    rate: Option<Rate>,
    tunnel: bool,
}

/// A rule: terms, and whom they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub id: RuleId,
    /// The agent; `None` for all.
    pub agent: Option<AgentId>,
    /// What it matches and does.
    pub terms: Terms,
}

impl fmt::Display for Rule {
    /// `deny 7`: what it does, and its number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.terms.action, self.id)
    }
}

/// Why a rule does not apply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It is for other hosts.
    Host,
    /// It is for another port.
    Port,
    /// It is for another network, or for connections that name an address in place of a host.
    Address,
    /// It is decided once the addresses of the host are known.
    AddressLater,
    /// It is for other methods.
    Method,
    /// It is for other paths.
    Path,
    /// What it allows are paths, and servers read this one in different ways.
    AmbiguousPath,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mismatch::Host => "it is for other hosts",
            Mismatch::Port => "it is for another port",
            Mismatch::Address => "it names a network and no host: it is for connections to addresses in it",
            Mismatch::AddressLater => "it is asked once the host's addresses are known",
            Mismatch::Method => "it is for other methods",
            Mismatch::Path => "it is for other paths",
            Mismatch::AmbiguousPath => {
                "servers read this path in different ways, and it allows only some paths"
            }
        })
    }
}

impl TryFrom<RuleText> for Terms {
    type Error = RuleError;

    fn try_from(text: RuleText) -> Result<Terms, RuleError> {
        let action = text.action;
        let host = match text.host.as_deref() {
            None | Some("*") => None,
            // Whoever owns what is below a public suffix: it is refused to all of them.
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
                return Err(RuleError::Combination("only allow and deny have an address: name the host"));
            }
            _ => {}
        }
        if action == Action::Allow && host.is_none() && address.is_none() && !text.host_is_star() {
            return Err(RuleError::Combination(
                "say what is allowed: --host HOST, --host '*' for all hosts, or --address NETWORK",
            ));
        }
        let methods = MethodSet::try_from(text.methods)?;
        let tunnel = text.tunnel;
        let terms = Terms { action, host, port, methods, paths, address, rate, tunnel };
        if tunnel && (action != Action::Allow || !terms.is_whole()) {
            return Err(RuleError::Combination(
                "only an allow without methods and paths can have --tunnel: what passes unread is not judged",
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

impl From<Terms> for RuleText {
    fn from(terms: Terms) -> RuleText {
        // Rules for all hosts say so, but for those that mean addresses.
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

impl Terms {
    /// What it does.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The hosts; `None` for all.
    pub fn host(&self) -> Option<&HostPattern> {
        self.host.as_ref()
    }

    /// The port; `None` for all.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The network.
    pub fn address(&self) -> Option<IpNet> {
        self.address
    }

    /// How many in what time.
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// May a host be both in this rule and in `pattern`? Errs towards yes where both have wildcards.
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

    /// Does what it allows pass unread even where a secret is stored for the host?
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Is it for whole connections, whatever is asked for on them?
    pub fn is_whole(&self) -> bool {
        self.methods.is_all() && self.paths.is_empty()
    }

    /// Can it only be applied where requests are read?
    pub fn wants_inspection(&self) -> bool {
        matches!(self.action, Action::Limit | Action::Approve) || !self.is_whole()
    }

    /// Is it for this host and port? A network is left out of it: see [`Terms::judges`].
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

    /// Is it for this host, on some port?
    pub fn is_for_host(&self, host: &Host) -> bool {
        self.host.as_ref().is_none_or(|pattern| pattern.matches(host))
    }

    /// Is it to be asked about this host and port before an address of the host is known? A network that is denied can
    /// only be asked about addresses. One that is allowed is for the hosts that the rule names, whose addresses must then
    /// lie in it, or else for connections that name an address in place of a host: names that anybody may choose are not
    /// resolved for it.
    ///
    /// # Errors
    /// Why it is not.
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

    /// Is it for this method and path? What restricts is for every spelling that a server may take for the path;
    /// what allows, only for the path that is plainly meant.
    ///
    /// # Errors
    /// [`Mismatch::Method`], [`Mismatch::Path`], [`Mismatch::AmbiguousPath`].
    pub fn is_about(&self, method: &Method, path: &PathReadings<'_>) -> Result<(), Mismatch> {
        // A HEAD is a GET without its answer's body (RFC 9110 section 9.3.2).
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
