//! Checks of `onecli doctor` for the CA and for agents' access to it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use onecli_api::{Ca, routes};
use onecli_launch::{Trust, installed_clients};
use onecli_model::Check;

use crate::client::Client;

const BUNDLE: &str = "CA bundle";
const CLIENTS: &str = "agent clients";

/// Checks the bundle that agents read, and the TLS clients of this host.
pub(super) fn agent_environment_checks(client: &Client) -> Vec<Check> {
    let bundle = match client.get::<Ca>(routes::CA) {
        Ok(ca) => bundle(&ca),
        Err(error) => Check::warn(BUNDLE, error.report().message, "see the checks of the daemon"),
    };
    [vec![bundle], clients(&installed_clients())].concat()
}

fn bundle(ca: &Ca) -> Check {
    let path = ca.bundle.display();
    let fix = "restart onecli-daemon, which writes it";
    let text = match fs::read_to_string(&ca.bundle) {
        Ok(text) => text,
        Err(error) => return Check::fail(BUNDLE, format!("{path}: {error}"), fix),
    };
    let holds = |pem: &str| text.contains(pem.trim());
    let ours = ca.pem.split_inclusive("-----END CERTIFICATE-----");
    if !ours.map(str::trim).filter(|pem| !pem.is_empty()).all(holds) {
        return Check::fail(
            BUNDLE,
            format!("{path} does not contain the daemon's CA: agents do not trust it"),
            fix,
        );
    }
    match closed(&ca.bundle) {
        Ok(None) => {
            let roots = text.matches("-----BEGIN CERTIFICATE-----").count();
            Check::ok(
                BUNDLE,
                format!("{path}, which every user can read, contains it among {roots} certificates"),
            )
        }
        Ok(Some(place)) => Check::fail(
            BUNDLE,
            format!("{place} is closed to other users: agents cannot read {path}"),
            format!("chmod o+rX {place}"),
        ),
        Err(error) => Check::fail(BUNDLE, format!("{path}: {error}"), fix),
    }
}

/// Returns the first part of the file's path that is not readable by everyone.
fn closed(file: &Path) -> io::Result<Option<String>> {
    for place in file.ancestors() {
        let found = fs::metadata(place)?;
        let needed = if found.is_dir() { 0o001 } else { 0o004 };
        if found.permissions().mode() & needed == 0 {
            return Ok(Some(place.display().to_string()));
        }
    }
    Ok(None)
}

fn clients(installed: &[(&'static str, Trust)]) -> Vec<Check> {
    let named = |wanted: &dyn Fn(Trust) -> bool| -> Vec<&str> {
        installed.iter().filter(|(_, trust)| wanted(*trust)).map(|(name, _)| *name).collect()
    };
    let by_variable: Vec<String> = installed
        .iter()
        .filter_map(|(name, trust)| match trust {
            Trust::Variable(variable) => Some(format!("{name} ({variable})")),
            _ => None,
        })
        .collect();
    let mut ways = Vec::new();
    let mut way = |clients: Vec<String>, how: &str| {
        if !clients.is_empty() {
            ways.push(format!("{} {how}", clients.join(", ")));
        }
    };
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    way(by_variable, "by variable");
    way(owned(named(&|trust| trust == Trust::SystemBundle)), "by the bundle in place of the system's");
    way(owned(named(&|trust| trust == Trust::JavaStore)), "by a trust store");
    let trusting = if ways.is_empty() { "no known client is installed".to_owned() } else { ways.join("; ") };
    let mut checks = vec![Check::ok(CLIENTS, format!("trust the CA under 'onecli run': {trusting}"))];
    let own = named(&|trust| trust == Trust::Own);
    if !own.is_empty() {
        checks.push(Check::warn(
            CLIENTS,
            format!("{} use their own certificates, and will reject the daemon's", own.join(", ")),
            "if agents should use them, import the output of 'onecli ca export' there",
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use onecli_model::CheckStatus;

    use super::*;

    #[test]
    fn clients_are_grouped_by_their_trust_store() {
        let found = clients(&[
            ("curl", Trust::Variable("CURL_CA_BUNDLE")),
            ("wget", Trust::SystemBundle),
            ("java", Trust::JavaStore),
        ]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].detail,
            "trust the CA under 'onecli run': curl (CURL_CA_BUNDLE) by variable; wget by the bundle in place of the \
             system's; java by a trust store"
        );
        let found = clients(&[("firefox", Trust::Own)]);
        assert_eq!(
            found.iter().map(|check| check.status).collect::<Vec<_>>(),
            [CheckStatus::Ok, CheckStatus::Warn]
        );
    }

    #[test]
    fn bundle_must_be_readable_and_contain_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("ca-bundle.pem");
        let pem = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";
        let ca = Ca { pem: pem.to_owned(), bundle: path.clone(), certificates: Vec::new() };
        let check = |content: &str, mode: u32, expected: CheckStatus| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let found = bundle(&ca);
            assert_eq!(found.status, expected, "{found:?}");
        };
        assert_eq!(bundle(&ca).status, CheckStatus::Fail, "there is no bundle");
        check(pem, 0o644, CheckStatus::Ok);
        check("something else", 0o644, CheckStatus::Fail);
        check(pem, 0o640, CheckStatus::Fail);
    }
}
