//! The daemon's own checks for `onecli doctor`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use onecli_api::Transparent;
use onecli_api::{AuditStatus, CaCertificate, Doctor, Status};
use onecli_model::Check;
use onecli_vault::sources::hashicorp::{HashiCorp, ServerStatus};
use tokio::time::timeout;

use super::status::status;
use crate::context::AdminContext;

/// The time limit for a status response from the vault server.
const PATIENCE: Duration = Duration::from_secs(5);

const LOG: &str = "see the daemon's log (`journalctl -u onecli-daemon`)";

pub(crate) async fn doctor(context: &AdminContext) -> Doctor {
    let Status { version, transparent, transparent_fault, store_fault, audit, .. } = status(context).await;
    let mut checks = vec![
        redirect(transparent, transparent_fault),
        store(store_fault),
        audit_log(&audit),
        shipping(&audit),
        authority(&context.handles.host.ca().certificates, context.handles.clock.now()),
    ];
    if let Some(server) = &context.handles.server {
        checks.push(vault_server(server).await);
    }
    Doctor { version, place: context.handles.host.place(), checks }
}

/// Checks the server of `[backend.vault]`.
async fn vault_server(server: &HashiCorp) -> Check {
    const NAME: &str = "vault server";
    let fix = "secrets added with --vault cannot be used: see 'onecli vault status' and the vault server";
    match timeout(PATIENCE, server.status()).await {
        Err(_) => Check::fail(NAME, format!("no response within {PATIENCE:?}"), fix),
        Ok(ServerStatus { sealed: Some(true), .. }) => Check::fail(NAME, "it is sealed", fix),
        Ok(ServerStatus { fault: Some(fault), .. }) => Check::fail(NAME, fault, fix),
        Ok(status) => {
            Check::ok(NAME, format!("logged in at {}, {} leases are held", status.address, status.leases))
        }
    }
}

fn redirect(transparent: Transparent, fault: Option<String>) -> Check {
    match (transparent, fault) {
        (Transparent::Available, None) => Check::ok("redirect", "connections of agents are redirected"),
        (Transparent::Available, Some(fault)) => {
            Check::fail("redirect", fault, "restart onecli-daemon if the fault persists")
        }
        (Transparent::Off { reason, fix }, _) => {
            Check::warn("redirect", format!("explicit proxy only: {reason}"), fix)
        }
    }
}

fn store(fault: Option<String>) -> Check {
    match fault {
        None => Check::ok("store", "readable and writable"),
        Some(fault) => Check::fail("store", fault, format!("free disk space, or repair the database; {LOG}")),
    }
}

fn audit_log(audit: &AuditStatus) -> Check {
    match &audit.fault {
        None => Check::ok("audit log", format!("{} records are on disk", audit.durable)),
        Some(fault) => {
            Check::fail("audit log", format!("requests are refused: {fault}"), format!("free space; {LOG}"))
        }
    }
}

/// How long before expiry a CA should be replaced. Long-running agents read their bundle only once.
const CA_WARNING: SignedDuration = SignedDuration::from_hours(24 * 90);

/// Checks the signing CA against this host's clock.
fn authority(certificates: &[CaCertificate], now: Timestamp) -> Check {
    const NAME: &str = "CA";
    let rotate = "run 'onecli ca rotate', and after earlier agents have ended, 'onecli ca rotate --finish'";
    let Some(signing) = certificates.first() else {
        return Check::fail(NAME, "there is no CA", LOG);
    };
    let (begin, end) = (signing.not_before, signing.not_after);
    let until = end.strftime("%F");
    if now < begin {
        let found = format!("not valid before {begin}, and the clock shows {now}");
        return Check::fail(
            NAME,
            found,
            "correct the clock: clients reject certificates that are not valid yet",
        );
    }
    if now >= end {
        return Check::fail(
            NAME,
            format!("expired on {until}: clients reject every certificate that it signed"),
            rotate,
        );
    }
    let next =
        certificates.get(1).map_or("", |_| "; the next CA is trusted, and awaits 'ca rotate --finish'");
    if end.duration_since(now) < CA_WARNING {
        return Check::warn(NAME, format!("expires on {until}{next}"), rotate);
    }
    Check::ok(NAME, format!("signs until {until}{next}"))
}

fn shipping(audit: &AuditStatus) -> Check {
    let behind = audit.durable.saturating_sub(audit.shipped);
    match &audit.shipping_fault {
        None => Check::ok("audit rows", format!("{behind} of {} are not in the store yet", audit.durable)),
        Some(fault) => {
            let found = format!("{fault}; {behind} of {} are not in the store", audit.durable);
            Check::warn("audit rows", found, format!("no record is lost; repair the database; {LOG}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use onecli_model::CheckStatus;

    use super::*;

    #[test]
    fn ca_check_depends_on_the_clock() {
        let day = |n: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * n);
        let signing = CaCertificate {
            role: "signing".to_owned(),
            sha256: String::new(),
            not_before: day(1000),
            not_after: day(2000),
            since: None,
        };
        for (now, expected) in [
            (999, CheckStatus::Fail),
            (1000, CheckStatus::Ok),
            (1909, CheckStatus::Ok),
            (1911, CheckStatus::Warn),
            (2000, CheckStatus::Fail),
        ] {
            assert_eq!(authority(std::slice::from_ref(&signing), day(now)).status, expected, "day {now}");
        }
        assert_eq!(authority(&[], day(1500)).status, CheckStatus::Fail);
    }
}
