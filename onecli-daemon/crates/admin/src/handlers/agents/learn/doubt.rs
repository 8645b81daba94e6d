//! Reasons why an operator must review a learned rule before adding it.

use onecli_model::metadata::is_metadata_service;
use onecli_model::{Code, Host, RuleSpec, RuleText};

/// A placeholder for a network that the log does not name.
pub(super) const UNKNOWN_NETWORK: &str = "NETWORK";
const DNS_PORT: &str = "53";

/// Returns whether a method is read-only (RFC 9110 section 9.2.1).
pub(super) fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// Returns the reason to comment a rule out; `None` if it works as it is.
pub(super) fn doubt(code: &str, rule: &RuleText) -> Option<String> {
    let host = rule.host.as_deref().or(rule.address.as_deref()).and_then(|host| host.parse::<Host>().ok());
    if host.as_ref().is_some_and(is_metadata_service) {
        return Some(
            "a cloud's metadata service gives the machine's credentials to any process that asks".to_owned(),
        );
    }
    if rule.address.as_deref() == Some(UNKNOWN_NETWORK) {
        return Some(format!(
            "the host has only private addresses: replace {UNKNOWN_NETWORK} by their network"
        ));
    }
    if rule.port.as_deref() == Some(DNS_PORT) {
        return Some(
            "agents resolve names through the daemon: a rule for the requested host is enough".to_owned(),
        );
    }
    if rule.port.is_none() && host.as_ref().and_then(Host::as_name).is_some_and(is_local) {
        return Some("the name is not a public Internet name".to_owned());
    }
    if code == Code::PlaceholderMissing.as_str() && !rule.methods.iter().all(|method| is_safe(method)) {
        return Some(
            "the request had no placeholder, and this rule sends it without the credential: make the program \
             send the variable that 'onecli why' names"
                .to_owned(),
        );
    }
    RuleSpec::try_from(rule.clone()).err().map(|error| format!("no rule can express this: {error}"))
}

/// Returns whether a name belongs to the local network or is a reverse name.
fn is_local(name: &str) -> bool {
    !name.contains('.') || [".arpa", ".local", ".lan", ".internal"].iter().any(|end| name.ends_with(end))
}
