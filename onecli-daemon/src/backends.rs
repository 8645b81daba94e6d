//! Sources of values besides the store, connected to configuration, store and agents.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use onecli_config::{Config, VaultAuth};
use onecli_model::{Agent, AgentId, Clock, Random};
use onecli_store::{LeaseRow, Store, StoreError, VaultChange};
use onecli_vault::sources::hashicorp::{
    Address, HashiCorp, LeaseNote, LeaseStore, Method, SecretIdStore, Settings,
};
use onecli_vault::{Credentials, Vault};
use tokio::time::{Instant, MissedTickBehavior, interval};
use zeroize::Zeroizing;

use crate::agents::TransparentMode;
use crate::process::AppError;

/// The name of an unwrapped secret id among the store's sealed values.
const SECRET_ID: &str = "backend.vault.secret_id";
/// The interval at which agents with leases are checked for running processes.
const LOOK: Duration = Duration::from_secs(1);
/// An agent's run counts as ended when its cgroup has been empty for this time.
const EMPTY_FOR: Duration = Duration::from_secs(5);
/// The interval at which old values are dropped from memory and erased from the store.
const TIDY: Duration = Duration::from_secs(10);

/// Returns the vault server of `[backend.vault]`; `None` if it is not configured. Sends nothing to it yet.
pub(super) fn vault_server(
    config: &Config,
    store: &Arc<dyn Store>,
    vault: &Arc<Vault>,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Option<Arc<HashiCorp>>, AppError> {
    let Some(server) = &config.backend.vault else { return Ok(None) };
    let settings = Settings {
        address: Address::parse(&server.address)?,
        namespace: server.namespace.clone(),
        ca_file: server.ca_file.clone(),
        method: method(&server.auth),
        timeout: server.timeout,
        cache_ttl: server.cache_ttl,
        stale_for: server.stale_for,
    };
    let secret_ids = StoredSecretId { store: Arc::clone(store), vault: Arc::clone(vault) };
    let leases = Leases(Arc::clone(store));
    let server = HashiCorp::new(
        settings,
        Arc::new(secret_ids),
        Arc::new(leases),
        Arc::clone(clock),
        Arc::clone(random),
    )?;
    Ok(Some(Arc::new(server)))
}

fn method(auth: &VaultAuth) -> Method {
    match auth.clone() {
        VaultAuth::Token { token_file } => Method::Token { file: token_file },
        VaultAuth::AppRole { mount, role_id, secret_id_file, wrapped } => {
            Method::AppRole { mount, role_id, secret_id_file, wrapped }
        }
        VaultAuth::Kubernetes { mount, role, jwt_file } | VaultAuth::Jwt { mount, role, jwt_file } => {
            Method::Jwt { mount, role, file: jwt_file }
        }
    }
}

/// Maintains the login, renews and revokes leases, and drops old values. Never returns.
pub(super) async fn maintain(
    server: Option<Arc<HashiCorp>>,
    credentials: Arc<Credentials>,
    store: Arc<dyn Store>,
    managed: Arc<TransparentMode>,
    (clock, keep_replaced): (Arc<dyn Clock>, Duration),
) {
    let tidying = async {
        let mut tick = interval(TIDY);
        loop {
            tick.tick().await;
            credentials.tidy();
            if let Err(error) = prune_replaced(store.as_ref(), clock.as_ref(), keep_replaced).await {
                tracing::error!(%error, "cannot erase replaced values; retrying");
            }
        }
    };
    let serving = async {
        if let Some(server) = &server {
            tokio::join!(server.maintain(), follow_runs(server, store.as_ref(), &managed));
        }
    };
    tokio::join!(tidying, serving);
}

/// Erases replaced values whose retention time is over. Limits the remaining retention to `keep` from now on,
/// regardless of an earlier clock or configuration.
///
/// # Errors
/// [`StoreError`]: the next call tries again.
pub(super) async fn prune_replaced(
    store: &dyn Store,
    clock: &dyn Clock,
    keep: Duration,
) -> Result<(), StoreError> {
    let now = clock.now();
    let erased = store.prune_replaced(now, now.checked_add(keep).unwrap_or(now)).await?;
    if erased > 0 {
        tracing::info!(erased, "erased replaced values");
    }
    Ok(())
}

/// Revokes the leases of agents whose runs have ended.
async fn follow_runs(server: &HashiCorp, store: &dyn Store, managed: &TransparentMode) {
    let mut runs: HashMap<AgentId, Run> = HashMap::new();
    let mut agents: HashMap<AgentId, Agent> = HashMap::new();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let holders = server.holders();
        runs.retain(|agent, _| holders.contains(agent));
        if holders.iter().any(|agent| !agents.contains_key(agent)) {
            match store.load().await {
                Ok(stored) => {
                    agents =
                        stored.agents.into_iter().map(|stored| (stored.agent.id, stored.agent)).collect();
                }
                Err(error) => tracing::warn!(%error, "cannot read the agents that hold leases; retrying"),
            }
        }
        for ended in ended(&holders, &agents, &mut runs, managed) {
            tracing::info!(agent = %ended.name, "the agent's run has ended; revoking its leases");
            server.end_agent(ended.id).await;
            runs.remove(&ended.id);
        }
    }
}

/// The state of an agent's processes.
#[derive(Default)]
struct Run {
    seen: bool,
    empty_since: Option<Instant>,
}

fn ended<'a>(
    holders: &HashSet<AgentId>,
    agents: &'a HashMap<AgentId, Agent>,
    runs: &mut HashMap<AgentId, Run>,
    managed: &TransparentMode,
) -> Vec<&'a Agent> {
    let mut all = Vec::new();
    for agent in holders.iter().filter_map(|id| agents.get(id)) {
        let run = runs.entry(agent.id).or_default();
        match managed.populated(&agent.cgroup) {
            Ok(Some(_)) => *run = Run { seen: true, empty_since: None },
            // An agent that authenticates by its token alone may run anywhere. For such an agent, an empty cgroup is
            // significant only if it was populated before.
            Ok(None) if run.seen || agent.factors.cgroup => {
                let since = *run.empty_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= EMPTY_FOR {
                    all.push(agent);
                }
            }
            Ok(None) | Err(_) => {}
        }
    }
    all
}

/// The unwrapped secret id, sealed in the store.
struct StoredSecretId {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
}

impl fmt::Debug for StoredSecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredSecretId(..)")
    }
}

#[async_trait]
impl SecretIdStore for StoredSecretId {
    async fn load(&self) -> Option<Zeroizing<Vec<u8>>> {
        let found = self.store.get_blob(SECRET_ID).await;
        let sealed = found
            .inspect_err(
                |error| tracing::error!(%error, "cannot read the stored secret id of the vault server"),
            )
            .ok()
            .flatten()?;
        let opened = self.vault.open_blob(SECRET_ID, &sealed);
        opened
            .inspect_err(
                |error| tracing::error!(%error, "cannot open the stored secret id of the vault server"),
            )
            .ok()
    }

    async fn save(&self, content: &[u8]) -> Result<(), String> {
        let sealed = self.vault.seal_blob(SECRET_ID, content).map_err(|error| error.to_string())?;
        let change =
            VaultChange { put_blobs: vec![(SECRET_ID.to_owned(), sealed)], ..VaultChange::default() };
        self.store.change_vault(&change).await.map(drop).map_err(|error| error.to_string())
    }
}

/// The store's table of leases.
struct Leases(Arc<dyn Store>);

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leases(..)")
    }
}

#[async_trait]
impl LeaseStore for Leases {
    async fn add(&self, lease: &LeaseNote) -> Result<(), String> {
        let LeaseNote { id, agent, path } = lease.clone();
        self.0.add_lease(&LeaseRow { id, agent, path }).await.map_err(|error| error.to_string())
    }

    async fn remove(&self, id: &str) -> Result<(), String> {
        self.0.remove_lease(id).await.map_err(|error| error.to_string())
    }

    async fn all(&self) -> Result<Vec<LeaseNote>, String> {
        let rows = self.0.list_leases().await.map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|LeaseRow { id, agent, path }| LeaseNote { id, agent, path }).collect())
    }
}
