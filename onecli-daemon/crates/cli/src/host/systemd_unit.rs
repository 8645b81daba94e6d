//! The service manager's state of a daemon that does not respond.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The directory exists if systemd runs the host (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
const UNIT: &str = "onecli-daemon.service";
/// The prefix of the unit's status text if it contains the reason of a failure.
const FAILED: &str = "failed: ";

/// The state of the daemon's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UnitState {
    /// The unit runs.
    Running,
    /// The unit is starting.
    Starting,
    /// The unit failed and may be restarted later. Contains the reason, if known.
    Failed(Option<String>),
    /// The unit was stopped or never started.
    Stopped,
}

/// How often to query a unit that is starting, and the pause between queries. A unit that fails repeatedly is between
/// two attempts only briefly, because each waiting connection starts it again.
const MAX_QUERIES: u32 = 12;
const PAUSE: Duration = Duration::from_millis(200);

/// Queries systemd. `None` if systemd does not run the host, or has no such unit.
pub(crate) fn unit_state() -> Option<UnitState> {
    settled(ask, || std::thread::sleep(PAUSE))
}

/// Returns the first state other than [`UnitState::Starting`], or that state if no other occurs.
fn settled(mut ask: impl FnMut() -> Option<UnitState>, pause: impl Fn()) -> Option<UnitState> {
    for _ in 1..MAX_QUERIES {
        match ask() {
            Some(UnitState::Starting) => pause(),
            other => return other,
        }
    }
    ask()
}

fn ask() -> Option<UnitState> {
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
        let reason_text = property("StatusText").strip_prefix(FAILED).map(str::to_owned);
        let result = Some(property("Result")).filter(|result| !matches!(*result, "" | "success"));
        UnitState::Failed(reason_text.or_else(|| result.map(|result| format!("systemd reports '{result}'"))))
    };
    Some(match (property("ActiveState"), property("SubState")) {
        ("failed", _) | ("activating", "auto-restart" | "auto-restart-queued") => failed(),
        ("activating", _) => UnitState::Starting,
        ("active" | "reloading", _) => UnitState::Running,
        _ => UnitState::Stopped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_state_and_reason_are_parsed() {
        let shown = |active: &str, sub: &str, result: &str, text: &str| {
            format!(
                "Result={result}\nLoadState=loaded\nActiveState={active}\nSubState={sub}\nStatusText={text}\n"
            )
        };
        let check =
            |text: String, expected: Option<UnitState>| assert_eq!(state_of(&text), expected, "{text}");
        let failed = |reason: &str| Some(UnitState::Failed(Some(reason.to_owned())));
        check(shown("active", "running", "success", "serving"), Some(UnitState::Running));
        check(shown("activating", "start", "success", ""), Some(UnitState::Starting));
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

    #[test]
    fn repeatedly_failing_daemon_is_reported_as_failed() {
        let failed = || UnitState::Failed(Some("no key".to_owned()));
        let check = |mut states: Vec<UnitState>, expected: UnitState| {
            let last = states.last().cloned();
            let next = || if states.is_empty() { last.clone() } else { Some(states.remove(0)) };
            assert_eq!(settled(next, || ()), Some(expected));
        };
        check(vec![UnitState::Starting, UnitState::Starting, failed(), UnitState::Starting], failed());
        check(vec![UnitState::Running], UnitState::Running);
        check(vec![UnitState::Starting], UnitState::Starting);
        check(vec![UnitState::Starting, UnitState::Running], UnitState::Running);
    }
}
