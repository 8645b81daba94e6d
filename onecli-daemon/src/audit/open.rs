//! Opens the audit log, and notes its name in the store.

use std::sync::Arc;
use std::time::Duration;

use onecli_audit::AuditLog;
use onecli_config::Config;
use onecli_model::{Clock, LogId, Random};
use onecli_store::Store;
use onecli_sys::PrivateDir;
use onecli_vault::Vault;

use super::signing_key;
use crate::process::AppError;

/// The store's meta entry that names the audit log of this host.
const AUDIT_LOG: &str = "audit.log";

/// Opens the log in `dir`, or begins it.
pub(crate) async fn open_audit(
    config: &Config,
    dir: &PrivateDir,
    store: &dyn Store,
    vault: &Vault,
    clock: &Arc<dyn Clock>,
    random: &dyn Random,
) -> Result<AuditLog, AppError> {
    let signer = signing_key::open(store, vault, random).await?;
    // The store's note takes precedence: an attacker who removed the files would have removed the log's name with
    // them.
    let noted = store.get_meta(AUDIT_LOG).await?.and_then(|log| log.parse().ok());
    let known = match noted.or(onecli_audit::log_id_in(dir.path(), &signer)?) {
        Some(log) => Some(onecli_audit::LastKnown { log, last: store.last_audit_line(log).await? }),
        None => None,
    };
    let config = &config.audit;
    let settings = onecli_audit::Settings {
        clock: Arc::clone(clock),
        signer,
        fresh: LogId::generate(clock.now(), random)?,
        known,
        durability: match config.durability {
            onecli_config::Durability::Strict => onecli_audit::Durability::Strict,
            onecli_config::Durability::Relaxed => onecli_audit::Durability::Relaxed,
        },
        retention: onecli_audit::Retention {
            age: (config.keep_days > 0).then(|| Duration::from_hours(24 * u64::from(config.keep_days))),
            bytes: (config.keep_bytes > 0).then_some(config.keep_bytes),
        },
        reserve: config.reserve_bytes,
    };
    let log = AuditLog::open(dir, settings)?;
    if noted != Some(log.id()) {
        store.set_meta(&[(AUDIT_LOG, &log.id().to_string())]).await?;
    }
    Ok(log)
}
