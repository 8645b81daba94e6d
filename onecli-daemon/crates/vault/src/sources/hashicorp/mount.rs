//! The kind of mount that a path belongs to.

use std::sync::Arc;
use std::time::Duration;

use super::HashiCorp;
use super::error::BackendError;
use super::wire::Call;
use super::words::{self, Mounted};
use crate::sources::cache::fetch_cache::Expiring;

/// How long a mount's kind is cached.
const MOUNT_FOR: Duration = Duration::from_mins(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// KV version 1: `MOUNT/REST` is read.
    Kv1,
    /// KV version 2: `MOUNT/data/REST` is read; the mount's path with its `/`.
    Kv2(String),
    /// Any other mount: the path is read as it is, and the response may have a lease.
    Dynamic,
}

impl Kind {
    /// The bytes of its path.
    pub(super) fn len(&self) -> usize {
        match self {
            Kind::Kv2(path) => path.len(),
            Kind::Kv1 | Kind::Dynamic => 0,
        }
    }
}

impl HashiCorp {
    /// Returns the kind of the path's mount. Any token that may read the path may request this.
    pub(super) async fn kind(self: &Arc<Self>, path: &str) -> Result<Arc<Kind>, BackendError> {
        let fetch = || {
            let (this, path) = (Arc::clone(self), path.to_owned());
            async move {
                let kind = this.ask_kind(&path).await?;
                Ok(Expiring { value: Arc::new(kind), usable_for: MOUNT_FOR })
            }
        };
        let cached =
            self.mounts.get(&path.to_owned(), self.stale_for, BackendError::is_outage, fetch).await?;
        Ok(cached.value)
    }

    async fn ask_kind(&self, path: &str) -> Result<Kind, BackendError> {
        let asked = format!("sys/internal/ui/mounts/{path}");
        let answer = self.authorized(Call::get(&asked)).await?;
        let Mounted { data } = match words::read(path, &answer) {
            Err(BackendError::Status { status: 400, .. }) => {
                return Err(BackendError::NoSuchPath { path: path.to_owned(), version: None });
            }
            read => read?,
        };
        // 'auth/token/lookup-self#id' is the daemon's own token: an administrator who may add secrets could have it
        // sent to another host. In a namespace the kinds begin with 'ns_', and paths with the namespace's path.
        let kind = data.kind.strip_prefix("ns_").unwrap_or(&data.kind);
        let is_own = matches!(kind, "system" | "identity" | "token");
        if is_own || data.path.split('/').any(|name| name == "auth") {
            return Err(BackendError::Own(path.to_owned()));
        }
        let version = data.options.as_ref().and_then(|options| options.get("version"));
        Ok(match (data.kind.as_str(), version.map(String::as_str)) {
            ("kv" | "generic", Some("2")) => Kind::Kv2(data.path),
            ("kv" | "generic" | "cubbyhole", _) => Kind::Kv1,
            _ => Kind::Dynamic,
        })
    }
}
