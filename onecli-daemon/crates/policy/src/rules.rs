//! The rules of one agent, found by host.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use onecli_model::{
    Action, AddressScope, AgentId, Authority, Host, HostPattern, Mismatch, PathReadings, Rule,
};

use super::trace::Trace;

/// An agent's rules, including those for all agents. A lookup visits only the rules that can apply to its host, so
/// it takes about as long with a thousand rules as with ten.
#[derive(Debug, Default)]
pub(super) struct RuleSet {
    /// In order of precedence: by action, then by number.
    rules: Vec<Arc<Rule>>,
    exact: HashMap<Host, Vec<usize>>,
    /// By the name behind a pattern's wildcard.
    below: HashMap<String, Vec<usize>>,
    any: Vec<usize>,
}

/// The rules that apply to one request. Of several with the same action, the one with the lowest number.
#[derive(Debug, Default)]
pub(super) struct Applied<'s> {
    pub(super) deny: Option<&'s Arc<Rule>>,
    pub(super) approve: Option<&'s Arc<Rule>>,
    pub(super) limits: Vec<&'s Arc<Rule>>,
    pub(super) allow: Option<&'s Arc<Rule>>,
    /// The address restrictions of the rules. `open` if one allows without naming a network.
    pub(super) address_scope: AddressScope,
    /// Whether a rule depends on the request at this host and port.
    pub(super) is_ruled: bool,
}

/// The result of the rules for a connection before anything on it is read.
#[derive(Debug, Default)]
pub(super) struct ConnectionRules<'s> {
    /// A rule that denies everything on it.
    pub(super) deny: Option<&'s Arc<Rule>>,
    /// A rule that allows everything on it.
    pub(super) allow: Option<&'s Arc<Rule>>,
    /// A rule that allows everything on it to pass unread, even if a secret is stored for the host.
    pub(super) tunnel: Option<&'s Arc<Rule>>,
    /// Whether some request on it may be allowed.
    pub(super) may_allow: bool,
    /// Whether requests on it must be read.
    pub(super) inspect: bool,
    /// The address restrictions of the rules.
    pub(super) address_scope: AddressScope,
}

impl RuleSet {
    /// Selects the rules among `all` that apply to this agent.
    pub(super) fn new(agent: AgentId, all: &[Arc<Rule>]) -> RuleSet {
        let mut rules: Vec<Arc<Rule>> =
            all.iter().filter(|rule| rule.agent.is_none_or(|own| own == agent)).cloned().collect();
        rules.sort_by_key(|rule| (rule.terms.action(), rule.id));
        let mut set = RuleSet { rules, ..RuleSet::default() };
        for (at, rule) in set.rules.iter().enumerate() {
            match rule.terms.host() {
                None => set.any.push(at),
                Some(HostPattern::Exact(host)) => set.exact.entry(host.clone()).or_default().push(at),
                Some(HostPattern::OneLabel(suffix) | HostPattern::AnyDepth(suffix)) => {
                    set.below.entry(suffix.clone()).or_default().push(at);
                }
            }
        }
        set
    }

    /// Reports whether there are no rules.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Visits every rule that can apply to `host`, in no particular order.
    fn visit<'s>(&'s self, host: &Host, mut see: impl FnMut(&'s Arc<Rule>)) {
        if self.is_empty() {
            return;
        }
        let mut see_all = |found: Option<&Vec<usize>>| {
            for at in found.into_iter().flatten() {
                see(&self.rules[*at]);
            }
        };
        see_all(Some(&self.any));
        see_all(self.exact.get(host));
        if let (Some(name), false) = (host.as_name(), self.below.is_empty()) {
            for (dot, _) in name.match_indices('.') {
                see_all(self.below.get(&name[dot + 1..]));
            }
        }
    }

    /// The rules that apply to a request. With a trace, every rule is considered and recorded.
    pub(super) fn apply<'s>(
        &'s self,
        authority: &Authority,
        method: &Method,
        path: &PathReadings<'_>,
        trace: &mut Trace,
    ) -> Applied<'s> {
        let mut applied = Applied::default();
        let judge = |rule: &Rule| -> Result<(), Mismatch> {
            rule.terms.judges(authority)?;
            rule.terms.is_about(method, path)
        };
        let all = trace.is_wanted();
        let mut see = |rule: &'s Arc<Rule>| {
            let judged = judge(rule);
            trace.rule(rule, judged);
            applied.is_ruled |= rule.terms.wants_inspection() && rule.terms.is_for(authority).is_ok();
            applied.take(rule, judged, authority, method, path);
        };
        if all {
            self.rules.iter().for_each(see);
        } else {
            self.visit(authority.host(), &mut see);
        }
        applied.limits.sort_by_key(|rule| rule.id);
        applied
    }

    /// The result of the rules for a connection to `authority`.
    pub(super) fn for_connection(&self, authority: &Authority) -> ConnectionRules<'_> {
        let mut connection = ConnectionRules::default();
        self.visit(authority.host(), |rule| {
            let terms = &rule.terms;
            if terms.is_for(authority).is_err() {
                return;
            }
            let judges = terms.judges(authority).is_ok();
            connection.inspect |= terms.wants_inspection();
            match terms.action() {
                Action::Deny if !terms.is_whole() => {}
                Action::Deny if judges => first(&mut connection.deny, rule),
                Action::Deny => connection.address_scope.denied.extend(terms.address()),
                Action::Approve => connection.may_allow = true,
                Action::Limit => {}
                Action::Allow if !judges => {}
                Action::Allow => {
                    connection.may_allow = true;
                    if terms.is_whole() {
                        first(&mut connection.allow, rule);
                        if terms.is_tunnel() {
                            first(&mut connection.tunnel, rule);
                        }
                        connection.address_scope.open |= terms.address().is_none();
                        connection.address_scope.allowed.extend(terms.address());
                    }
                }
            }
        });
        connection
    }

    /// Whether a rule may allow some request to this host, on some port. `None`: all requests are refused.
    pub(super) fn may_allow(&self, host: &Host) -> Option<bool> {
        let (mut may_allow, mut denied) = (false, false);
        self.visit(host, |rule| {
            let terms = &rule.terms;
            if !terms.is_for_host(host) {
                return;
            }
            match terms.action() {
                Action::Deny => {
                    denied |= terms.is_whole() && terms.port().is_none() && terms.address().is_none();
                }
                Action::Approve => may_allow = true,
                // A rule that names only a network is for connections without a host name.
                Action::Allow => may_allow |= terms.host().is_some() || terms.address().is_none(),
                Action::Limit => {}
            }
        });
        (!denied).then_some(may_allow)
    }

    /// Reports whether a rule that allows, or requires approval, names this very host.
    pub(super) fn name(&self, host: &Host) -> bool {
        let allows = |at: &usize| matches!(self.rules[*at].terms.action(), Action::Allow | Action::Approve);
        self.exact.get(host).is_some_and(|rules| rules.iter().any(allows))
    }

    /// Host names that a rule allows whole connections to on this port, at most `most`: for connections of which
    /// only the address is known.
    pub(super) fn names_on(&self, port: u16, most: usize) -> Vec<&Host> {
        let is_one = |rule: &&Arc<Rule>| {
            rule.terms.action() == Action::Allow
                && rule.terms.is_whole()
                && rule.terms.port().is_none_or(|own| own == port)
        };
        let mut hosts: Vec<&Host> = self
            .rules
            .iter()
            .filter(is_one)
            .filter_map(|rule| match rule.terms.host() {
                Some(HostPattern::Exact(host)) if host.as_name().is_some() => Some(host),
                _ => None,
            })
            .collect();
        hosts.sort();
        hosts.dedup();
        hosts.truncate(most);
        hosts
    }
}

impl<'s> Applied<'s> {
    fn take(
        &mut self,
        rule: &'s Arc<Rule>,
        judged: Result<(), Mismatch>,
        authority: &Authority,
        method: &Method,
        path: &PathReadings<'_>,
    ) {
        let terms = &rule.terms;
        match (terms.action(), judged) {
            (Action::Deny, Ok(())) => first(&mut self.deny, rule),
            // These addresses are denied, whatever the host resolves to.
            (Action::Deny, Err(Mismatch::AddressLater)) => {
                if terms.is_for(authority).is_ok() && terms.is_about(method, path).is_ok() {
                    self.address_scope.denied.extend(terms.address());
                }
            }
            (Action::Approve, Ok(())) => first(&mut self.approve, rule),
            (Action::Limit, Ok(())) => self.limits.push(rule),
            (Action::Allow, Ok(())) => {
                first(&mut self.allow, rule);
                self.address_scope.open |= terms.address().is_none();
                self.address_scope.allowed.extend(terms.address());
            }
            (_, Err(_)) => {}
        }
    }
}

/// Retains the rule with the lowest number.
fn first<'s>(kept: &mut Option<&'s Arc<Rule>>, rule: &'s Arc<Rule>) {
    if kept.is_none_or(|kept| rule.id < kept.id) {
        *kept = Some(rule);
    }
}
