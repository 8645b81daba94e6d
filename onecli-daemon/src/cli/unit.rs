//! What the service manager knows of a daemon that does not answer.

use std::path::Path;
use std::process::Command;

/// There where systemd runs the host (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
const UNIT: &str = "onecli-daemon.service";
/// Begins the unit's status where the daemon says why it failed.
const FAILED: &str = "failed: ";

/// State of the daemon's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UnitState {
    /// It runs, or starts right now.
    Running,
    /// It failed, and is perhaps started again later. With the reason, where one is known.
    Failed(Option<String>),
    /// It was stopped, or never started.
    Stopped,
}

/// Asks systemd. `None` where it does not run the host, or has no such unit.
pub(super) fn unit_state() -> Option<UnitState> {
    if !Path::new(BOOTED).exists() {
        return None;
    }
    let properties = "--property=LoadState,ActiveState,SubState,Result,StatusText";
    let shown = Command::new("systemctl").args(["show", UNIT, properties]).output().ok()?;
    state_of(&String::from_utf8_lossy(&shown.stdout))
}

fn state_of(shown: &str) -> Option<UnitState> {
    let property = |name: &str| {
        let lines = shown.lines().filter_map(|line| line.split_once('='));
        lines.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    };
    if property("LoadState") != "loaded" {
        return None;
    }
    let failed = || {
        let told = property("StatusText").strip_prefix(FAILED).map(str::to_owned);
        let result = Some(property("Result")).filter(|result| !matches!(*result, "" | "success"));
        UnitState::Failed(told.or_else(|| result.map(|result| format!("systemd reports '{result}'"))))
    };
    Some(match (property("ActiveState"), property("SubState")) {
        ("failed", _) | ("activating", "auto-restart" | "auto-restart-queued") => failed(),
        ("active" | "activating" | "reloading", _) => UnitState::Running,
        _ => UnitState::Stopped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_reason_are_read() {
        let shown = |active: &str, sub: &str, result: &str, text: &str| {
            format!(
                "Result={result}\nLoadState=loaded\nActiveState={active}\nSubState={sub}\nStatusText={text}\n"
            )
        };
        let check =
            |text: String, expected: Option<UnitState>| assert_eq!(state_of(&text), expected, "{text}");
        let failed = |reason: &str| Some(UnitState::Failed(Some(reason.to_owned())));
        check(shown("active", "running", "success", "serving"), Some(UnitState::Running));
        check(shown("activating", "start", "success", ""), Some(UnitState::Running));
        check(shown("inactive", "dead", "success", ""), Some(UnitState::Stopped));
        check(shown("failed", "failed", "exit-code", "failed: no key=x"), failed("no key=x"));
        check(shown("activating", "auto-restart", "exit-code", "failed: no key"), failed("no key"));
        check(
            shown("failed", "failed", "start-limit-hit", "serving"),
            failed("systemd reports 'start-limit-hit'"),
        );
        check(shown("failed", "failed", "success", ""), Some(UnitState::Failed(None)));
        check("LoadState=not-found\nActiveState=inactive\n".to_owned(), None);
        check(String::new(), None);
    }
}
