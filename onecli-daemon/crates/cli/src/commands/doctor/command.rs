//! `onecli doctor`: the daemon's own checks, then this process's checks of the host.

use onecli_api::{Doctor, routes};
use onecli_model::{Check, CheckStatus};

use super::agent_environment::agent_environment_checks;
use super::args::DoctorArgs;
use super::examine::host_checks;
use super::running::DaemonPresence;
use super::self_test::self_test;
use crate::client::{Client, ClientError};
use crate::commands::agent::account_checks;
use crate::error::CliError;
use crate::host::systemd_unit::UnitState;
use crate::output::Output;

/// Prints every check. Returns whether none has failed.
pub(crate) fn doctor(client: &Client, args: &DoctorArgs, output: &mut Output) -> Result<bool, CliError> {
    let (mut checks, running) = daemon_checks(client);
    let layout = match &running {
        DaemonPresence::Yes(layout) => Some(layout.clone()),
        _ => None,
    };
    checks.extend(host_checks(running, args.config.as_deref()));
    if let Some(layout) = layout {
        checks.extend(agent_environment_checks(client));
        checks.extend(account_checks(client));
        if !args.no_self_test {
            checks.extend(self_test(client, &layout));
        }
    }
    if output.is_json() {
        output.document(&checks)?;
    } else {
        print(&checks, output)?;
    }
    output.finish()?;
    Ok(checks.iter().all(|check| check.status != CheckStatus::Fail))
}

/// Returns the daemon's checks, and its locations.
fn daemon_checks(client: &Client) -> (Vec<Check>, DaemonPresence) {
    let own_version = env!("CARGO_PKG_VERSION");
    let response = match client.get::<Doctor>(routes::DOCTOR) {
        Ok(response) => response,
        Err(error @ (ClientError::SocketDenied(_) | ClientError::NotPermitted(_))) => {
            let fix = "use sudo, or join the group 'onecli' or 'onecli-audit'";
            return (vec![Check::warn("daemon", error.report().message, fix)], DaemonPresence::Unknown);
        }
        Err(error) => {
            let unit = match &error {
                // systemd has already been queried for this error.
                ClientError::Failed(reason) => Some(UnitState::Failed(reason.clone())),
                _ => client.unit_state(),
            };
            let (fix, running) = fix_for_no_response(&error, unit.as_ref());
            return (vec![Check::fail("daemon", error.report().message, fix)], running);
        }
    };
    let daemon = if response.version == own_version {
        Check::ok("daemon", format!("version {own_version} responds"))
    } else {
        let found =
            format!("version {} responds, and this command has version {own_version}", response.version);
        Check::warn("daemon", found, "restart onecli-daemon after an upgrade")
    };
    (std::iter::once(daemon).chain(response.checks).collect(), DaemonPresence::Yes(response.place))
}

/// Returns the fix for a daemon that does not respond, and whether it runs.
fn fix_for_no_response(error: &ClientError, unit: Option<&UnitState>) -> (&'static str, DaemonPresence) {
    let runs = !matches!(error, ClientError::NotReachable { .. } | ClientError::Failed(_));
    match unit {
        Some(UnitState::Failed(_)) => (
            "fix the error in its log (`journalctl -u onecli-daemon`), then `systemctl restart onecli-daemon`",
            DaemonPresence::No,
        ),
        Some(UnitState::Starting) => (
            "it is starting, and does not respond yet: wait a moment, then see its log (`journalctl -u onecli-daemon`)",
            DaemonPresence::Unknown,
        ),
        Some(UnitState::Running) => (
            "it runs, and does not respond: see its log (`journalctl -u onecli-daemon`), then `systemctl \
             restart onecli-daemon`",
            DaemonPresence::Unknown,
        ),
        _ if runs => (
            "a program responds on the socket, but not like a daemon of this version: see its log \
             (`journalctl -u onecli-daemon`)",
            DaemonPresence::Unknown,
        ),
        _ => (
            "start it (`systemctl start onecli-daemon`), and see its log (`journalctl -u onecli-daemon`)",
            DaemonPresence::No,
        ),
    }
}

fn print(checks: &[Check], output: &mut Output) -> Result<(), CliError> {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    checks.iter().try_for_each(|check| output.check(check, width))?;
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let (warnings, failures) = (count(CheckStatus::Warn), count(CheckStatus::Fail));
    output.line(&format!("{} checks, {warnings} warnings, {failures} failed", checks.len()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};
    use std::time::Duration;

    use super::*;

    #[test]
    fn fix_for_a_running_daemon_does_not_start_it() {
        let absent = || ClientError::NotReachable {
            socket: "/run/onecli/admin.sock".into(),
            source: Error::from(ErrorKind::ConnectionRefused),
        };
        let late = || ClientError::Timeout(Duration::from_secs(10));
        let lost = || ClientError::BrokenOff("reset".to_owned());
        let check = |error: ClientError, unit: Option<UnitState>, starts: bool, running: DaemonPresence| {
            let (fix, found) = fix_for_no_response(&error, unit.as_ref());
            assert_eq!((fix.contains("start it"), found), (starts, running), "{error:?} {unit:?}: {fix}");
        };
        check(absent(), None, true, DaemonPresence::No);
        check(absent(), Some(UnitState::Stopped), true, DaemonPresence::No);
        check(absent(), Some(UnitState::Failed(None)), false, DaemonPresence::No);
        check(ClientError::Failed(None), Some(UnitState::Failed(None)), false, DaemonPresence::No);
        check(late(), Some(UnitState::Running), false, DaemonPresence::Unknown);
        check(late(), Some(UnitState::Starting), false, DaemonPresence::Unknown);
        check(late(), None, false, DaemonPresence::Unknown);
        check(lost(), None, false, DaemonPresence::Unknown);
    }
}
