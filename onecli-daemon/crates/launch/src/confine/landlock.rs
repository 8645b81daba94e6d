//! Restricts an agent with Landlock: no abstract sockets and processes outside it.

use landlock::{
    ABI, Access as _, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetError, RulesetStatus,
    Scope,
};

use crate::error::LaunchError;

/// The first Landlock version that scopes sockets and signals: Linux 6.12.
const SCOPES: ABI = ABI::V6;

/// Stops this process and its later programs from connecting to abstract Unix sockets made outside, and from signalling
/// or tracing processes outside. Returns whether the kernel supports it.
pub(crate) fn restrict() -> Result<bool, LaunchError> {
    let failed = |error: RulesetError| LaunchError::Confine {
        step: "landlock_restrict_self",
        source: std::io::Error::other(error.to_string()),
    };
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let status = ruleset
        .scope(Scope::from_all(SCOPES))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(failed)?;
    Ok(status.ruleset == RulesetStatus::FullyEnforced)
}
