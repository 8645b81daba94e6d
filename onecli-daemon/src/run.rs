//! The composition root: attaches the kernel programs, unlocks the vault, binds all listeners, then serves.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use onecli_config::{Config, DaemonLayout};
use onecli_model::{Clock, Random};
use onecli_net::{AddressPolicy, Dialer, Resolver, SyntheticAddresses};
use onecli_policy::{Approvals, Snapshot};
use onecli_proxy::{Capacity, Gateway, GatewayParts, OwnRecords, OwnRequests, OwnWay, UpstreamPatience};
use onecli_sys::kernel;
use onecli_sys::privilege;
use onecli_sys::{OsRandom, PrivateDir, SystemClock};
use onecli_tls::{AgentTls, UpstreamTls};
use onecli_vault::{Backends, Credentials, KeySource, Vault};
use tokio::sync::watch;

use crate::agents::{DenialReport, Managed};
use crate::audit::{open_audit, ship, witness};
use crate::authority::Authority;
use crate::data_dir::{hold, key_source};
use crate::executor::{self, HostExecutor};
use crate::host::AppHost;
use crate::names::HostNames;
use crate::policy::Policy;
use crate::process::service_manager::{self as service, Handed, Sockets};
use crate::process::{AppError, journal};
use crate::serving::{Front, Namespaces, Stand};
use crate::shutdown::told_to_stop;
use crate::{backends, upstream_proxy};

/// During a stop, the time to bring audit records into the store: first while names are still resolved, then for the
/// records that arrived meanwhile.
const SHIPPING: Duration = Duration::from_secs(5);
const LAST_SHIPPING: Duration = Duration::from_secs(1);
/// The directory of the audit segments in the data directory.
const AUDIT_DIR: &str = "audit";
/// The time that the service manager allows for opening the database.
const STORE_OPENS_IN: Duration = Duration::from_mins(30);

/// Runs the daemon until it receives SIGTERM or SIGINT.
///
/// Exit codes: 0 stopped, 1 failed, 78 the configuration, the data directory or the key is not usable.
pub(crate) fn run(config: Config) -> ExitCode {
    journal::init();
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            service::failed(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Performs all privileged steps first, on one thread. The rest runs without privileges.
fn start(config: Config) -> Result<(), AppError> {
    privilege::forbid_inspection()?;
    let capacity = Capacity::of(privilege::raise_descriptor_limit()?);
    let data_dir = PrivateDir::create(&config.data_dir)?;
    // This process locks both until it ends. A second daemon would take the agents over and then perhaps not serve
    // them.
    let _data = hold(&data_dir)?;
    let _kernel = claim(&config)?;
    let managed = Managed::attach(&config);
    // The executor starts in the daemon's cgroup, before any secret is in memory.
    let executor = HostExecutor::start(&config);
    // Bound now because of ports below 1024, but listening starts only after the vault is open.
    let mut handed = Handed::take();
    let stand = Stand::bind(&config, &managed, &mut handed)?;
    // Setting the socket's group needs CAP_CHOWN. Clients that connect now wait in the backlog.
    let admin_socket = match handed.unix(&config.listen.admin_socket) {
        Some(socket) => socket,
        None => onecli_admin::bind(&config.listen.admin_socket)?,
    };
    let sockets = Sockets { admin: admin_socket, datagrams: handed.datagrams() };
    handed.close_rest();
    // Read after the helper was forked, so that the helper holds no secret.
    let keys = key_source(&config, &data_dir)?;
    privilege::keep_capabilities(&[])?;
    privilege::filter_serving()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(AppError::Runtime)?;
    let parts = Parts { data_dir, keys, managed, executor, stand, sockets, capacity };
    runtime.block_on(serve(config, parts))
}

/// Locks the kernel part against other daemons. [`Managed::attach`] reports other problems with it.
fn claim(config: &Config) -> Result<Option<kernel::Claim>, AppError> {
    // A helper that runs as a service already holds the claim.
    if !config.kernel.ebpf || config.helper_socket.is_some() {
        return Ok(None);
    }
    match kernel::claim(Path::new(&config.kernel.agents_root), &config.kernel.bpffs_dir) {
        Ok(claim) => Ok(Some(claim)),
        Err(error) if error.is_claimed() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Everything that was created with privileges.
struct Parts {
    data_dir: PrivateDir,
    keys: KeySource,
    managed: Managed,
    executor: HostExecutor,
    stand: Stand,
    sockets: Sockets,
    capacity: Capacity,
}

async fn serve(config: Config, parts: Parts) -> Result<(), AppError> {
    let Parts { data_dir, keys, managed, executor, stand, sockets, capacity } = parts;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let managed = Arc::new(managed);

    // After an upgrade from a version that did not overwrite removed rows, gigabytes of audit rows are rewritten
    // once.
    service::starting(STORE_OPENS_IN);
    let store = onecli_store::open(&config.store_url()).await?;
    let vault = Arc::new(Vault::unlock(store.as_ref(), &keys, Arc::clone(&random)).await?);
    onecli_admin::remove_left_over(data_dir.path());
    store.prune_sessions(clock.now()).await?;
    backends::prune_kept(store.as_ref(), clock.as_ref(), config.vault.keep_replaced).await?;
    let audit_dir = PrivateDir::create(&data_dir.join(AUDIT_DIR))?;
    let audit = open_audit(&config, &audit_dir, store.as_ref(), &vault, &clock, random.as_ref()).await?;

    let quota = Arc::new(onecli_audit::Quota::new(onecli_audit::QuotaLimits {
        rate: config.audit.agent_rate,
        bytes: config.audit.agent_bytes,
        reserve: config.audit.reserve_bytes,
    }));

    let addresses = AddressPolicy::new(config.egress.allow_addresses.clone(), stand.addresses());
    let resolver = Arc::new(Resolver::new(config.resolver.hosts.clone(), addresses));

    let proxy = upstream_proxy::upstream_proxy(&config.upstream)?;
    let synthetic = Arc::new(SyntheticAddresses::new(config.dns.refused_range));

    // Empty until the first reload: refuses everything.
    let (current, snapshot) = watch::channel(Arc::<Snapshot>::default());
    let dns = managed.is_attached().then(|| {
        let parts = onecli_dns::Parts {
            policy: snapshot.clone(),
            names: Arc::new(HostNames { resolver: Arc::clone(&resolver), proxy: proxy.clone() }),
            synthetic: Arc::clone(&synthetic),
            audit: audit.clone(),
            quota: Arc::clone(&quota),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
        };
        let marking = Arc::clone(&managed);
        let stamp = Box::new(move |socket: BorrowedFd<'_>| marking.stamp(&socket).map_err(io::Error::other));
        let server = onecli_dns::Server::new(parts, config.listen.transparent_port, stamp);
        Arc::new(server.kept_by(Box::new(sockets.datagrams)))
    });
    let policy = Arc::new(Policy::new(
        Arc::clone(&store),
        Arc::clone(&vault),
        Arc::clone(&managed),
        dns.clone(),
        current,
    ));
    // Names are resolved from here on. The previous daemon stopped resolving some time ago, and queries wait.
    policy.reload().await?;
    let upstream_tls = UpstreamTls::new(&config.upstream.extra_ca_files)?;
    let authority =
        Authority::open(Arc::clone(&store), Arc::clone(&vault), Arc::clone(&clock), &config, &upstream_tls)
            .await?;
    let approvals = Arc::<Approvals>::default();
    let dialer = Dialer { connect_timeout: config.upstream.connect_timeout };
    let own_tls = upstream_tls.apart();
    let way = OwnWay { resolver: Arc::clone(&resolver), dialer, tls: own_tls, proxy: proxy.clone() };
    let records = OwnRecords { audit: audit.clone(), clock: Arc::clone(&clock), random: Arc::clone(&random) };
    let own_requests = Arc::new(OwnRequests::new(way, records));
    let vault_server = backends::vault_server(&config, &store, &vault, &clock, &random)?;
    let credentials = Arc::new(Credentials::new(
        Arc::clone(&vault),
        Arc::clone(&store),
        Arc::clone(&own_requests) as _,
        Backends::new(vault_server.clone(), Arc::new(executor.clone()), Arc::clone(&clock)),
        Arc::clone(&clock),
    ));
    let backends = tokio::spawn(backends::maintain(
        vault_server.clone(),
        Arc::clone(&credentials),
        Arc::clone(&store),
        Arc::clone(&managed),
        (Arc::clone(&clock), config.vault.keep_replaced),
    ));
    let gateway = Arc::new(Gateway::new(GatewayParts {
        policy: snapshot.clone(),
        vault: Arc::clone(&vault),
        credentials,
        audit: audit.clone(),
        audit_quota: Arc::clone(&quota),
        fold_refusals: config.audit.fold_refusals,
        agent_tls: AgentTls::new(authority.load().await?, Arc::clone(&clock))?
            .with_proxy_names(config.listen.proxy_names()),
        upstream_tls,
        resolver,
        synthetic,
        dialer,
        patience: UpstreamPatience { head: config.upstream.head_timeout, idle: config.upstream.idle_timeout },
        proxy,
        explicit_addresses: stand.explicit(),
        capacity,
        approvals: Arc::clone(&approvals),
        approval_timeout: config.policy.approval_timeout,
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
    }));
    let host = AppHost {
        managed: Arc::clone(&managed),
        policy: Arc::clone(&policy),
        gateway: Arc::clone(&gateway),
        dns: dns.clone(),
        place: DaemonLayout::new(&config),
        private_dirs: vec![config.data_dir.clone(), config.kernel.bpffs_dir.clone()],
        authority,
        audit: audit.clone(),
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        data_dir: data_dir.path().to_owned(),
    };
    let shipper = ship::Shipper::new(audit_dir.path().to_owned(), &audit, Arc::clone(&store));
    let denials = DenialReport {
        managed: Arc::clone(&managed),
        policy: snapshot.clone(),
        audit: audit.clone(),
        quota,
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
    };
    let handles = onecli_admin::Handles {
        store: Arc::clone(&store),
        vault: Arc::clone(&vault),
        clock,
        random,
        audit: onecli_admin::AuditProgress {
            durable: audit.subscribe(),
            shipped: shipper.subscribe(),
            fault: audit.fault(),
            shipping_fault: shipper.fault(),
        },
        host: Arc::new(host),
        policy: snapshot,
        approvals,
        agents_root: config.kernel.agents_root.clone(),
        keep_replaced: config.vault.keep_replaced,
        server: vault_server,
        commands_off: executor.off().map(str::to_owned),
        own_uids: executor::own_uids(&config),
    };

    let witnesses =
        tokio::spawn(witness::tell(config.audit.witnesses.clone(), audit.checkpoints(), own_requests));
    let (durable, mut in_store) = (audit.subscribe(), shipper.subscribe());
    let shipper = tokio::spawn(shipper.run());
    let rekeyer = tokio::spawn(vault.follow_rekey(store));
    let follower = tokio::spawn(Arc::clone(&policy).follow());
    let watcher = tokio::spawn(denials.run());
    let stand =
        stand.listen(Front { gateway, origins: Arc::clone(&managed) as _, capacity, dns: dns.clone() })?;
    tracing::info!(explicit = ?config.listen.explicit, transparent = managed.is_attached(), "serving");
    let redirects = managed.is_attached();
    let root = Arc::clone(&managed);
    let namespaces = Namespaces::new(managed, dns.clone(), stand.reception())?;
    let stop = async {
        tokio::select! {
            told = told_to_stop() => told,
            lost = namespaces.serve() => Err(AppError::Helper(lost.to_string())),
            lost = root.root_lost() => Err(AppError::AgentsRoot(lost)),
        }
    };
    let status = if redirects {
        "serving: connections of agents are redirected"
    } else {
        "serving: explicit proxy only"
    };
    let served = stand.serve(sockets.admin, handles, status, stop).await;

    tracing::info!("stopping");
    rekeyer.abort();
    follower.abort();
    watcher.abort();
    backends.abort();
    // Agents' names are resolved for as long as other work remains. From here to the next daemon's first policy their
    // queries wait. A client waits for five seconds, some for ten.
    let caught_up = in_store.wait_for(|seq| *seq >= *durable.borrow());
    let _ = tokio::time::timeout(SHIPPING, caught_up).await;
    if let Some(dns) = dns {
        dns.close().await;
    }
    audit.close().await?;
    // These tasks end once all reachable witnesses have the last checkpoint and the store has every record. The next
    // start ships any remaining records.
    let last = (
        tokio::time::timeout(Duration::from_secs(5), witnesses),
        tokio::time::timeout(LAST_SHIPPING, shipper),
    );
    let _ = tokio::join!(last.0, last.1);
    served
}
