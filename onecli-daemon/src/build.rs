//! Builds the parts of the daemon, each from the parts before it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use onecli_audit::{AuditLog, Quota};
use onecli_config::{Config, DaemonLayout};
use onecli_model::{Clock, Random};
use onecli_net::{AddressPolicy, Dialer, Resolver, SyntheticAddresses};
use onecli_policy::{Approvals, Snapshot};
use onecli_proxy::{
    Capacity, DaemonClient, DaemonClientParts, DaemonRecorder, DataPlane, DataPlaneParts, ListenerScheme,
    UpstreamProxy, UpstreamTimeouts,
};
use onecli_store::Store;
use onecli_sys::{OsRandom, PrivateDir, SystemClock};
use onecli_tls::{AgentTls, CertAuthority, UpstreamTls};
use onecli_vault::sources::hashicorp::HashiCorp;
use onecli_vault::{Credentials, KeySource, Sources, Vault};
use tokio::sync::watch;

use crate::agents::TransparentMode;
use crate::audit::open_audit;
use crate::audit::ship::Shipper;
use crate::certificate_authority::Authority;
use crate::executor::{self, HostExecutor};
use crate::host::AppHost;
use crate::names::HostNames;
use crate::policy::Policy;
use crate::process::AppError;
use crate::process::service_manager::{self as service, Datagrams};
use crate::{backends, upstream_proxy};

/// The directory of the audit segments in the data directory.
const AUDIT_DIR: &str = "audit";
/// The time that the service manager allows for opening the database.
const STORE_OPENS_IN: Duration = Duration::from_mins(30);

/// Database, vault and audit log, and the sources of time and randomness.
pub(crate) struct Storage {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) audit_dir: PrivateDir,
    pub(crate) audit: AuditLog,
    pub(crate) quota: Arc<Quota>,
}

impl Storage {
    /// Opens the database, unlocks the vault, removes what has expired, and opens the audit log.
    pub(crate) async fn open(
        config: &Config,
        data_dir: &PrivateDir,
        keys: &KeySource,
    ) -> Result<Storage, AppError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let random: Arc<dyn Random> = Arc::new(OsRandom);
        // After an upgrade from a version that did not overwrite removed rows, gigabytes of audit rows are rewritten
        // once.
        service::starting(STORE_OPENS_IN);
        let store = onecli_store::open(&config.store_url()).await?;
        let vault = Arc::new(Vault::unlock(store.as_ref(), keys, Arc::clone(&random)).await?);
        onecli_admin::remove_left_over(data_dir.path());
        store.prune_sessions(clock.now()).await?;
        backends::prune_replaced(store.as_ref(), clock.as_ref(), config.vault.keep_replaced).await?;
        let audit_dir = PrivateDir::create(&data_dir.join(AUDIT_DIR))?;
        let audit = open_audit(config, &audit_dir, store.as_ref(), &vault, &clock, random.as_ref()).await?;
        let quota = Arc::new(Quota::new(onecli_audit::QuotaLimits {
            rate: config.audit.agent_rate,
            bytes: config.audit.agent_bytes,
            reserve: config.audit.reserve_bytes,
        }));
        Ok(Storage { clock, random, store, vault, audit_dir, audit, quota })
    }
}

/// Name resolution and the way to upstreams.
pub(crate) struct Network {
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) synthetic: Arc<SyntheticAddresses>,
    pub(crate) dialer: Dialer,
    pub(crate) proxy: Option<UpstreamProxy>,
}

impl Network {
    /// `listeners` are the daemon's own addresses, to which it opens no connection.
    pub(crate) fn new(config: &Config, listeners: Vec<SocketAddr>) -> Result<Network, AppError> {
        let addresses = AddressPolicy::new(config.egress.allow_addresses.clone(), listeners);
        Ok(Network {
            resolver: Arc::new(Resolver::new(config.resolver.hosts.clone(), addresses)),
            proxy: upstream_proxy::upstream_proxy(&config.upstream)?,
            synthetic: Arc::new(SyntheticAddresses::new(config.dns.refused_range)),
            dialer: Dialer { connect_timeout: config.upstream.connect_timeout },
        })
    }
}

/// The policy snapshot and its source, and the DNS server, which applies it.
pub(crate) struct PolicyParts {
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) policy: Arc<Policy>,
    /// Present if connections are redirected.
    pub(crate) dns: Option<Arc<onecli_dns::Server>>,
    /// Requests that await approval.
    pub(crate) approvals: Arc<Approvals>,
}

impl PolicyParts {
    /// Compiles the first snapshot. Names of agents are resolved from then on. The previous daemon stopped resolving
    /// some time ago, and queries wait.
    pub(crate) async fn load(
        config: &Config,
        storage: &Storage,
        network: &Network,
        managed: &Arc<TransparentMode>,
        datagrams: Datagrams,
    ) -> Result<PolicyParts, AppError> {
        // Empty until the first reload: refuses everything.
        let (current, snapshot) = watch::channel(Arc::<Snapshot>::default());
        let dns = managed.is_attached().then(|| {
            let port = config.listen.transparent_port;
            dns_server(port, storage, network, managed, snapshot.clone(), datagrams)
        });
        let policy = Arc::new(Policy::new(
            Arc::clone(&storage.store),
            Arc::clone(&storage.vault),
            Arc::clone(managed),
            dns.clone(),
            current,
        ));
        policy.reload().await?;
        Ok(PolicyParts { snapshot, policy, dns, approvals: Arc::default() })
    }
}

fn dns_server(
    transparent_port: u16,
    storage: &Storage,
    network: &Network,
    managed: &Arc<TransparentMode>,
    policy: watch::Receiver<Arc<Snapshot>>,
    datagrams: Datagrams,
) -> Arc<onecli_dns::Server> {
    let parts = onecli_dns::QueryHandler {
        policy,
        lookup: Arc::new(HostNames { resolver: Arc::clone(&network.resolver), proxy: network.proxy.clone() }),
        synthetic: Arc::clone(&network.synthetic),
        audit: storage.audit.clone(),
        quota: Arc::clone(&storage.quota),
        clock: Arc::clone(&storage.clock),
        random: Arc::clone(&storage.random),
    };
    let marking = Arc::clone(managed);
    let stamp = Box::new(move |socket: BorrowedFd<'_>| marking.stamp(&socket).map_err(io::Error::other));
    let server = onecli_dns::Server::new(parts, transparent_port, stamp);
    Arc::new(server.with_socket_store(Box::new(datagrams)))
}

/// The sources of values, and the client for the daemon's own requests.
pub(crate) struct SourceParts {
    pub(crate) daemon_client: Arc<DaemonClient>,
    pub(crate) vault_server: Option<Arc<HashiCorp>>,
    pub(crate) credentials: Arc<Credentials>,
}

impl SourceParts {
    pub(crate) fn new(
        config: &Config,
        storage: &Storage,
        network: &Network,
        upstream_tls: &UpstreamTls,
        executor: &HostExecutor,
    ) -> Result<SourceParts, AppError> {
        let Storage { clock, random, store, vault, audit, .. } = storage;
        let parts = DaemonClientParts {
            resolver: Arc::clone(&network.resolver),
            dialer: network.dialer,
            tls: upstream_tls.apart(),
            proxy: network.proxy.clone(),
        };
        let recorder =
            DaemonRecorder { audit: audit.clone(), clock: Arc::clone(clock), random: Arc::clone(random) };
        let daemon_client = Arc::new(DaemonClient::new(parts, recorder));
        let vault_server = backends::vault_server(config, store, vault, clock, random)?;
        let credentials = Arc::new(Credentials::new(
            Arc::clone(vault),
            Arc::clone(store),
            Arc::clone(&daemon_client) as _,
            Sources::new(vault_server.clone(), Arc::new(executor.clone()), Arc::clone(clock)),
            Arc::clone(clock),
        ));
        Ok(SourceParts { daemon_client, vault_server, credentials })
    }
}

/// The facts about the daemon's listeners that the proxy needs.
pub(crate) struct ListenerFacts {
    pub(crate) explicit: Vec<(SocketAddr, ListenerScheme)>,
    pub(crate) capacity: Capacity,
}

/// Opens the certificate authority of this host's agents.
pub(crate) async fn authority(
    config: &Config,
    storage: &Storage,
    upstream_tls: &UpstreamTls,
) -> Result<Authority, AppError> {
    let Storage { store, vault, clock, .. } = storage;
    Authority::open(Arc::clone(store), Arc::clone(vault), Arc::clone(clock), config, upstream_tls).await
}

/// Builds the proxy.
pub(crate) fn data_plane(
    config: &Config,
    storage: &Storage,
    network: Network,
    policy: &PolicyParts,
    credentials: Arc<Credentials>,
    (upstream_tls, authority): (UpstreamTls, CertAuthority),
    listeners: ListenerFacts,
) -> Result<Arc<DataPlane>, AppError> {
    let Storage { clock, random, vault, audit, quota, .. } = storage;
    let agent_tls =
        AgentTls::new(authority, Arc::clone(clock))?.with_proxy_names(config.listen.proxy_names());
    Ok(Arc::new(DataPlane::new(DataPlaneParts {
        policy: policy.snapshot.clone(),
        vault: Arc::clone(vault),
        credentials,
        audit: audit.clone(),
        audit_quota: Arc::clone(quota),
        fold_refusals: config.audit.fold_refusals,
        agent_tls,
        upstream_tls: Arc::new(upstream_tls),
        resolver: network.resolver,
        synthetic: network.synthetic,
        dialer: network.dialer,
        timeouts: UpstreamTimeouts { head: config.upstream.head_timeout, idle: config.upstream.idle_timeout },
        proxy: network.proxy,
        explicit_addresses: listeners.explicit,
        capacity: listeners.capacity,
        approvals: Arc::clone(&policy.approvals),
        approval_timeout: config.policy.approval_timeout,
        clock: Arc::clone(clock),
        random: Arc::clone(random),
    })))
}

/// Builds the operations that the admin API requests from the daemon.
pub(crate) fn host(
    config: &Config,
    storage: &Storage,
    policy: &PolicyParts,
    managed: &Arc<TransparentMode>,
    data_plane: &Arc<DataPlane>,
    authority: Authority,
    data_dir: &PrivateDir,
) -> Arc<AppHost> {
    Arc::new(AppHost {
        managed: Arc::clone(managed),
        policy: Arc::clone(&policy.policy),
        data_plane: Arc::clone(data_plane),
        dns: policy.dns.clone(),
        place: DaemonLayout::new(config),
        private_dirs: vec![config.data_dir.clone(), config.kernel.bpffs_dir.clone()],
        authority,
        audit: storage.audit.clone(),
        clock: Arc::clone(&storage.clock),
        random: Arc::clone(&storage.random),
        data_dir: data_dir.path().to_owned(),
    })
}

/// Builds what the admin API works on.
pub(crate) fn admin_handles(
    config: &Config,
    storage: &Storage,
    policy: &PolicyParts,
    vault_server: Option<Arc<HashiCorp>>,
    host: Arc<AppHost>,
    shipper: &Shipper,
    executor: &HostExecutor,
) -> onecli_admin::Handles {
    let audit = &storage.audit;
    onecli_admin::Handles {
        store: Arc::clone(&storage.store),
        vault: Arc::clone(&storage.vault),
        clock: Arc::clone(&storage.clock),
        random: Arc::clone(&storage.random),
        audit: onecli_admin::AuditProgress {
            durable: audit.subscribe(),
            shipped: shipper.subscribe(),
            fault: audit.fault(),
            shipping_fault: shipper.fault(),
        },
        host,
        policy: policy.snapshot.clone(),
        approvals: Arc::clone(&policy.approvals),
        agents_root: config.kernel.agents_root.clone(),
        keep_replaced: config.vault.keep_replaced,
        server: vault_server,
        commands_off: executor.off().map(str::to_owned),
        own_uids: executor::own_uids(config),
    }
}
