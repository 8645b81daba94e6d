//! HashiCorp Vault and OpenBao: values fetched at request time over their HTTP API.
//!
//! Static secrets (KV version 1 and 2) are cached for a short time. Dynamic ones (any path that returns a lease)
//! are issued for each agent.

mod auth;
mod error;
mod lease;
mod mount;
mod wire;
mod words;

#[cfg(test)]
mod tests;

pub use auth::{Method, SecretIdStore};
pub use error::BackendError;
pub use lease::{LeaseNote, LeaseStore};
pub use wire::Address;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::HeaderValue;
use onecli_model::{AgentId, Clock, Random, SecretValue, VaultReference};
use onecli_tls::ServiceTls;
use parking_lot::{Mutex, MutexGuard};
use zeroize::Zeroizing;

use crate::sources::cache::fetch_cache::{Bounds, Expiring, FetchCache};
use auth::{Auth, Login};
use mount::Kind;
use wire::{Answer, Call, Wire};
use words::{Field, Fields, Health, Plain, Versioned};

/// The bounds of cached paths. Each response of the server may have 1 MiB.
const KEPT: Bounds = Bounds { keys: NonZeroUsize::new(4096).unwrap(), bytes: 16 << 20 };
/// The bounds of cached mounts. A mount's path is no longer than the secret's path.
const KEPT_MOUNTS: Bounds = Bounds { keys: NonZeroUsize::new(256).unwrap(), bytes: 256 << 10 };
/// The longest and the shortest interval between rounds of maintenance: renewing leases, revoking orphans,
/// forgetting old values.
const ROUND: Duration = Duration::from_secs(5);
const SHORTEST_ROUND: Duration = Duration::from_millis(200);
/// The number of rounds after which failed revocations are retried.
const ORPHANS_EVERY: u32 = 12;
/// A lease is replaced if less than this part of its first lifetime is left and it cannot be renewed.
const LAST_PART: u32 = 10;

/// The address of the server and the login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The server's address.
    pub address: Address,
    /// `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// CA certificates that verify the server's certificate, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The login method.
    pub method: Method,
    /// The time limit of one fetch, including retries.
    pub timeout: Duration,
    /// How long a static value is used before it is fetched again.
    pub cache_ttl: Duration,
    /// How much longer it may be used while the server fails.
    pub stale_for: Duration,
}

/// A value from the server.
#[derive(Debug, Clone)]
pub struct Material {
    /// The value.
    pub value: SecretValue,
    /// Version of KV version 2.
    pub version: Option<u32>,
    /// True if the value has expired and was used because the server failed.
    pub stale: bool,
}

/// A cached response for a path. Fields are selected at each use: user name and password share a lease.
#[derive(Clone)]
struct Read {
    fields: Arc<Fields>,
    version: Option<u32>,
    lease: Option<Arc<Lease>>,
}

impl Read {
    /// The bytes of all names and values.
    fn len(&self) -> usize {
        self.fields.iter().map(|(name, field)| name.len() + field.len()).sum()
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").field("version", &self.version).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Lease {
    id: String,
    renewable: bool,
    first: Duration,
    used: AtomicBool,
    ends: Mutex<Instant>,
}

impl Lease {
    fn ends(&self) -> Instant {
        *self.ends.lock()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// The agent of a dynamic secret; `None` for static ones, which are the same for all.
    agent: Option<AgentId>,
    path: String,
    version: Option<u32>,
}

/// The output of `onecli vault status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Host and port.
    pub address: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Login method.
    pub method: &'static str,
    /// The server's version, if it responds.
    pub version: Option<String>,
    /// Whether the server is sealed.
    pub sealed: Option<bool>,
    /// Whether the server is a standby.
    pub standby: Option<bool>,
    /// The remaining lifetime of the daemon's token; `None` if it does not expire or there is none.
    pub token_ttl: Option<Duration>,
    /// The reason why the daemon is not logged in.
    pub fault: Option<String>,
    /// The number of leases that agents hold.
    pub leases: usize,
}

/// The client of the server.
pub struct HashiCorp {
    wire: Wire,
    auth: Auth,
    clock: Arc<dyn Clock>,
    cache_ttl: Duration,
    stale_for: Duration,
    mounts: FetchCache<String, Arc<Kind>, BackendError>,
    material: FetchCache<Key, Read, BackendError>,
    lease_store: Arc<dyn LeaseStore>,
    live: Mutex<HashMap<String, (Key, Weak<Lease>)>>,
}

impl fmt::Debug for HashiCorp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashiCorp").field("address", self.wire.address()).finish_non_exhaustive()
    }
}

impl HashiCorp {
    /// Creates a client; nothing is sent yet.
    ///
    /// # Errors
    /// [`BackendError::File`] for the CA file, [`BackendError::Address`] for a namespace that no header can carry.
    pub fn new(
        settings: Settings,
        secret_ids: Arc<dyn SecretIdStore>,
        lease_store: Arc<dyn LeaseStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<HashiCorp, BackendError> {
        let tls = settings
            .address
            .is_tls()
            .then(|| ServiceTls::new(settings.ca_file.as_deref()))
            .transpose()
            .map_err(|error| BackendError::File {
                path: settings
                    .ca_file
                    .map_or_else(|| "the CA certificates".to_owned(), |p| p.display().to_string()),
                reason: error.to_string(),
            })?;
        let namespace =
            settings.namespace.map(|name| HeaderValue::from_str(&name)).transpose().map_err(|_| {
                BackendError::Address(
                    "the namespace contains characters that a header cannot carry".to_owned(),
                )
            })?;
        Ok(HashiCorp {
            wire: Wire::new(settings.address, tls, namespace, settings.timeout),
            auth: Auth::new(settings.method, secret_ids, Arc::clone(&clock), random),
            cache_ttl: settings.cache_ttl,
            stale_for: settings.stale_for,
            mounts: FetchCache::new(KEPT_MOUNTS, |kind| kind.len(), Arc::clone(&clock)),
            material: FetchCache::new(KEPT, Read::len, Arc::clone(&clock)),
            clock,
            lease_store,
            live: Mutex::default(),
        })
    }

    /// The value that `reference` names, for `agent`: cached, or fetched now.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn fetch(
        self: &Arc<Self>,
        agent: AgentId,
        reference: &VaultReference,
    ) -> Result<Material, BackendError> {
        let (key, kind) = self.locate(agent, reference).await?;
        let fetch = || {
            let (this, key) = (Arc::clone(self), key.clone());
            async move { this.read(&key, &kind).await }
        };
        let cached = self.material.get(&key, self.stale_for, BackendError::is_outage, fetch).await?;
        let read = cached.value;
        if let Some(lease) = &read.lease {
            lease.used.store(true, Ordering::Relaxed);
        }
        Ok(Material { value: pick(&read.fields, reference)?, version: read.version, stale: cached.stale })
    }

    /// The value that responses to `agent` are searched for: a static one as in [`HashiCorp::fetch`], a dynamic one
    /// if the agent has a lease. No lease is issued for this.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn watch(
        self: &Arc<Self>,
        agent: AgentId,
        reference: &VaultReference,
    ) -> Result<Option<SecretValue>, BackendError> {
        let (key, kind) = self.locate(agent, reference).await?;
        if *kind != Kind::Dynamic {
            return Ok(Some(self.fetch(agent, reference).await?.value));
        }
        let held = self.material.peek(&key).await;
        held.map(|read| pick(&read.fields, reference)).transpose()
    }

    /// The values that `reference` names and that are in memory for these agents. Nothing is sent or waited for.
    pub fn in_memory(&self, agents: &[AgentId], reference: &VaultReference) -> Vec<SecretValue> {
        let of = |agent| {
            let (path, version) = (reference.path().to_owned(), reference.version());
            let read = self.material.peek_now(&Key { agent, path, version })?;
            pick(&read.fields, reference).ok()
        };
        std::iter::once(None).chain(agents.iter().copied().map(Some)).filter_map(of).collect()
    }

    /// All text fields of a path, for copying into the store.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn fields(
        self: &Arc<Self>,
        path: &str,
    ) -> Result<Vec<(String, Zeroizing<String>)>, BackendError> {
        let kind = self.kind(path).await?;
        if *kind == Kind::Dynamic {
            return Err(BackendError::NoVersions(path.to_owned()));
        }
        let key = Key { agent: None, path: path.to_owned(), version: None };
        let read = self.read(&key, &kind).await?.value;
        let text = |(name, field): (&String, &Field)| Some((name.clone(), field.0.clone()?));
        Ok(read.fields.iter().filter_map(text).collect())
    }

    /// Stays logged in, renews used leases, revokes orphans. Never returns.
    pub async fn maintain(&self) {
        let leases = async {
            let mut orphans_in = 0;
            loop {
                if orphans_in == 0 {
                    match self.give_back_orphans().await {
                        Ok(0) => {}
                        Ok(given) => {
                            tracing::info!(given, "revoked leases that an earlier daemon had left");
                        }
                        Err(reason) => {
                            tracing::warn!(%reason, "cannot read the leases to revoke");
                        }
                    }
                    orphans_in = ORPHANS_EVERY;
                }
                orphans_in -= 1;
                tokio::time::sleep(self.until_renewal()).await;
                self.material.tidy(self.stale_for);
                self.mounts.tidy(Duration::ZERO);
                self.renew_leases().await;
            }
        };
        tokio::join!(self.auth.maintain(&self.wire), leases);
    }

    /// Asks for the server's state, and checks the login.
    pub async fn status(&self) -> ServerStatus {
        let query = "standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200&drsecondarycode=200";
        let call = Call { query: Some(query), ..Call::get("sys/health") };
        let health = match self.wire.call(&call).await {
            Ok(answer) => words::read::<Health>("sys/health", &answer),
            Err(error) => Err(error),
        };
        let login = self.auth.token(&self.wire, None).await;
        let fault = match (&health, &login) {
            (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
            (Ok(health), _) if !health.initialized => Some("the server is not initialised".to_owned()),
            _ => None,
        };
        let health = health.ok();
        let left = |login: &Arc<Login>| {
            Some(login.ttl?.saturating_sub(self.clock.instant().saturating_duration_since(login.since)))
        };
        ServerStatus {
            address: self.wire.address().to_string(),
            namespace: self.wire.namespace().map(str::to_owned),
            method: self.auth.method(),
            version: health
                .as_ref()
                .map(|health| health.version.chars().filter(|c| !c.is_control()).take(64).collect()),
            sealed: health.as_ref().map(|health| health.sealed),
            standby: health.as_ref().map(|health| health.standby),
            token_ttl: login.ok().as_ref().and_then(left),
            fault,
            leases: self.leases().len(),
        }
    }

    async fn locate(
        self: &Arc<Self>,
        agent: AgentId,
        reference: &VaultReference,
    ) -> Result<(Key, Arc<Kind>), BackendError> {
        let kind = self.kind(reference.path()).await?;
        if reference.version().is_some() && !matches!(*kind, Kind::Kv2(_)) {
            return Err(BackendError::NoVersions(reference.path().to_owned()));
        }
        let agent = (*kind == Kind::Dynamic).then_some(agent);
        Ok((Key { agent, path: reference.path().to_owned(), version: reference.version() }, kind))
    }

    async fn read(&self, key: &Key, kind: &Kind) -> Result<Expiring<Read>, BackendError> {
        let absent = || BackendError::NoSuchPath { path: key.path.clone(), version: key.version };
        if let Kind::Kv2(mount) = kind {
            let rest = key.path.strip_prefix(mount.as_str()).ok_or_else(absent)?;
            let path = format!("{mount}data/{rest}");
            let query = key.version.map(|version| format!("version={version}"));
            let answer = self.authorized(Call { query: query.as_deref(), ..Call::get(&path) }).await?;
            // A deleted version also returns 404, with its metadata.
            if answer.status.as_u16() == 404 {
                return Err(absent());
            }
            let Versioned { data } = words::read(&key.path, &answer)?;
            let data = data.ok_or_else(absent)?;
            let fields = data.data.ok_or_else(absent)?;
            let read = Read { fields: Arc::new(fields), version: Some(data.metadata.version), lease: None };
            return Ok(Expiring { value: read, usable_for: self.cache_ttl });
        }
        let asked_at = self.clock.instant();
        let answer = self.authorized(Call::get(&key.path)).await?;
        let Plain { lease_id, lease_duration, renewable, data } = words::read(&key.path, &answer)?;
        let fields = Arc::new(data.ok_or_else(absent)?);
        let (Some(agent), false) = (key.agent, lease_id.is_empty()) else {
            let read = Read { fields, version: None, lease: None };
            return Ok(Expiring { value: read, usable_for: self.cache_ttl });
        };
        let first = Duration::from_secs(lease_duration.max(1));
        let lease = Arc::new(Lease {
            id: lease_id,
            renewable,
            first,
            used: AtomicBool::new(true),
            ends: Mutex::new(asked_at + first),
        });
        // The lease is registered as live before it is stored, because stored leases that are not live are revoked.
        self.lock_live().insert(lease.id.clone(), (key.clone(), Arc::downgrade(&lease)));
        let note = LeaseNote { id: lease.id.clone(), agent, path: key.path.clone() };
        if let Err(reason) = self.lease_store.add(&note).await {
            // A lease that is not stored would survive a crash.
            self.give_back(&lease.id).await;
            return Err(BackendError::LeaseStore(reason));
        }
        // The cache entry expires a little before the lease; renewals extend it.
        let usable_for = first.saturating_sub(first / LAST_PART);
        Ok(Expiring { value: Read { fields, version: None, lease: Some(lease) }, usable_for })
    }

    /// At two thirds of its lifetime a lease is renewed if it was used since the last renewal; otherwise it is
    /// revoked.
    async fn renew_leases(&self) {
        let now = self.clock.instant();
        for (key, lease) in self.leases() {
            let left = lease.ends().saturating_duration_since(now);
            if left > lease.first / 3 {
                continue;
            }
            let used = lease.used.load(Ordering::Relaxed);
            let renewed = if used && lease.renewable { self.renew_lease(&lease.id).await } else { Ok(None) };
            match renewed {
                Ok(Some(time)) if time > lease.first / LAST_PART => {
                    lease.used.store(false, Ordering::Relaxed);
                    *lease.ends.lock() = now + time;
                    self.material.extend(&key, time.saturating_sub(time / LAST_PART)).await;
                }
                // The lease is unused, or cannot last: the next request gets a new one.
                _ if !used || left <= lease.first / LAST_PART => {
                    self.material.evict_where(|other| *other == key).await;
                    self.give_back(&lease.id).await;
                    self.lock_live().remove(&lease.id);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, path = %key.path, "a lease cannot be renewed now"),
            }
        }
    }

    /// How long to sleep: until the first lease is due, at most a round.
    fn until_renewal(&self) -> Duration {
        let now = self.clock.instant();
        let due = self
            .leases()
            .into_iter()
            .map(|(_, lease)| lease.ends().saturating_duration_since(now).saturating_sub(lease.first / 3));
        due.min().unwrap_or(ROUND).clamp(SHORTEST_ROUND, ROUND)
    }

    /// The leases that the cache still holds.
    fn leases(&self) -> Vec<(Key, Arc<Lease>)> {
        let mut live = self.lock_live();
        live.retain(|_, (_, lease)| lease.strong_count() > 0);
        live.values().filter_map(|(key, lease)| Some((key.clone(), lease.upgrade()?))).collect()
    }

    fn lives(&self, id: &str) -> bool {
        self.lock_live().get(id).is_some_and(|(_, lease)| lease.strong_count() > 0)
    }

    fn lock_live(&self) -> MutexGuard<'_, HashMap<String, (Key, Weak<Lease>)>> {
        self.live.lock()
    }

    /// Sends with the daemon's token. If the token is no longer valid, logs in and sends once more.
    async fn authorized(&self, call: Call<'_>) -> Result<Answer, BackendError> {
        let login = self.auth.token(&self.wire, None).await?;
        let call = call.by(&login.token);
        let answer = self.wire.call(&call).await?;
        if answer.status.as_u16() != 403 || self.is_valid(&login).await? {
            return Ok(answer);
        }
        let login = self.auth.token(&self.wire, Some(&login)).await?;
        self.wire.call(&call.by(&login.token)).await
    }

    /// Checks the token: the server refuses a revoked token everywhere, but a token that only lacks a policy may
    /// look itself up.
    async fn is_valid(&self, login: &Login) -> Result<bool, BackendError> {
        let answer = self.wire.call(&Call::get("auth/token/lookup-self").by(&login.token)).await?;
        Ok(answer.status.as_u16() != 403)
    }
}

/// The field that a reference names.
fn pick(fields: &Fields, reference: &VaultReference) -> Result<SecretValue, BackendError> {
    let (path, field) = (reference.path(), reference.field());
    let text = fields
        .get(field)
        .and_then(|field| field.0.as_ref())
        .ok_or_else(|| BackendError::NoSuchField { path: path.to_owned(), field: field.to_owned() })?;
    SecretValue::of_document(text.as_bytes()).map_err(|error| BackendError::Unusable {
        path: path.to_owned(),
        field: field.to_owned(),
        reason: error.to_string(),
    })
}
