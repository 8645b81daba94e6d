//! The composition root: attaches the kernel programs, unlocks the vault, binds all listeners, then serves.

mod audit_key;
mod authority;
mod backends;
mod denials;
mod error;
mod executor;
mod helper;
mod host;
mod journal;
mod launches;
mod managed;
mod names;
mod namespaces;
mod policy;
mod restore;
mod service;
pub(crate) mod ship;
mod stand;
mod upstream_proxy;
mod witness;

pub(crate) use error::AppError;
pub(crate) use restore::restore;

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use onecli_audit::AuditLog;
use onecli_config::{Config, DaemonLayout};
use onecli_model::{Clock, LogId, Random, error_chain};
use onecli_net::{AddressPolicy, Dialer, Resolver, SyntheticAddresses};
use onecli_policy::{Approvals, Snapshot};
use onecli_proxy::{Capacity, Gateway, GatewayParts, OwnRecords, OwnRequests, OwnWay, UpstreamPatience};
use onecli_store::Store;
use onecli_sys::kernel;
use onecli_sys::privilege;
use onecli_sys::sole::{Sole, SoleError};
use onecli_sys::{OsRandom, PrivateDir, SystemClock};
use onecli_tls::{AgentTls, UpstreamTls, UpstreamTlsError};
use onecli_vault::{Backends, Credentials, KeySource, Vault, VaultError};
use tokio::sync::watch;
use zeroize::Zeroizing;

use authority::Authority;
use denials::DenialReport;
use executor::HostExecutor;
use host::AppHost;
use managed::Managed;
use names::HostNames;
use namespaces::Namespaces;
use policy::Policy;
use service::{Handed, Sockets};
use stand::{Front, Stand, told_to_stop};

/// The environment variable with a key, for `--insecure-key-from-env`.
const KEY_VARIABLE: &str = "ONECLI_ROOT_KEY";
/// During a stop, the time to bring audit records into the store: first while names are still resolved, then for the
/// records that arrived meanwhile.
const SHIPPING: Duration = Duration::from_secs(5);
const LAST_SHIPPING: Duration = Duration::from_secs(1);
/// The store's meta entry that names the audit log of this host.
const AUDIT_LOG: &str = "audit.log";
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

/// Reads the files that a valid configuration names, as the daemon does when it starts.
///
/// # Errors
/// A file cannot be read, or has the wrong content.
pub(crate) fn check_files(config: &Config) -> Result<(), UpstreamTlsError> {
    UpstreamTls::new(&config.upstream.extra_ca_files).map(drop)
}

/// Reports to the service manager why the daemon does not start.
pub(crate) fn tell_failure(reason: &dyn std::fmt::Display) {
    service::failed(&reason.to_string());
}

/// Removes the pinned kernel programs. Managed processes are then neither redirected nor refused.
pub(crate) fn detach(config: &Config) -> ExitCode {
    journal::init();
    match kernel::detach(&config.kernel.bpffs_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error_chain(&error), "cannot remove the kernel programs");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of [`retire`] if the programs stay attached.
const KEPT: u8 = 3;

/// Detaches the kernel programs unless an agent runs. Prints `cgroup PATH` for each cgroup that they were attached to
/// and, if they stay, `pins PATH`. The package's purge reads this after program and configuration are gone.
///
/// Exit codes: 0 detached, 3 still attached because an agent runs, 1 unknown.
pub(crate) fn retire(config: &Config, out: &mut impl std::io::Write) -> ExitCode {
    journal::init();
    let pins = &config.kernel.bpffs_dir;
    let retired = match kernel::retire(pins) {
        Ok(retired) => retired,
        Err(error) => {
            let _ = writeln!(out, "pins {}", pins.display());
            tracing::error!(error = error_chain(&error), "the kernel programs stay attached");
            return ExitCode::FAILURE;
        }
    };
    for cgroup in &retired.cgroups {
        let _ = writeln!(out, "cgroup {}", cgroup.display());
    }
    let Some(kept) = retired.kept else { return ExitCode::SUCCESS };
    let _ = writeln!(out, "pins {}", pins.display());
    tracing::error!("the kernel programs stay attached: {kept}");
    ExitCode::from(KEPT)
}

/// Attaches the kernel programs and serves daemons without privileges, until it is killed. Exit codes as for [`run`].
pub(crate) fn help(config: &Config) -> ExitCode {
    journal::init();
    if !config.kernel.ebpf {
        // The service manager starts this unit with the daemon's even if it has no work.
        service::ready("kernel.ebpf is off: there is nothing to do");
        loop {
            std::thread::park();
        }
    }
    match helper::service::run(&DaemonLayout::new(config).kernel_config()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs commands that print values, for daemons that connect, until it is killed. Exit codes as for [`run`].
pub(crate) fn execute(config: &Config) -> ExitCode {
    journal::init();
    match executor::service(Path::new(&config.kernel.daemon_cgroup)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
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

/// Returns all configured locations of the key that opens the vault.
fn key_source(config: &Config, data_dir: &PrivateDir) -> Result<KeySource, AppError> {
    let mut source = KeySource::file(data_dir);
    if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        source = source.with_credentials(dir.into());
    }
    if let Some(file) = &config.vault.passphrase_file {
        source = source.with_passphrase_file(file).map_err(VaultError::from)?;
    }
    if config.vault.insecure_key_from_env {
        let text = Zeroizing::new(std::env::var(KEY_VARIABLE).unwrap_or_default());
        source = source.with_variable(KEY_VARIABLE, &text).map_err(VaultError::from)?;
    }
    Ok(source)
}

/// Locks the data directory against other daemons.
fn hold(data_dir: &PrivateDir) -> Result<Sole, AppError> {
    let path = data_dir.path();
    let opened = File::open(path).map_err(SoleError::Io);
    opened
        .and_then(Sole::take)
        .map_err(|source| AppError::DataInUse { path: path.display().to_string(), source })
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

async fn open_audit(
    config: &Config,
    dir: &PrivateDir,
    store: &dyn Store,
    vault: &Vault,
    clock: &Arc<dyn Clock>,
    random: &dyn Random,
) -> Result<AuditLog, AppError> {
    let signer = audit_key::open(store, vault, random).await?;
    // The store's note takes precedence: an attacker who removed the files would have removed the log's name with
    // them.
    let noted = store.get_meta(AUDIT_LOG).await?.and_then(|log| log.parse().ok());
    let known = match noted.or(onecli_audit::log_in(dir.path(), &signer)?) {
        Some(log) => Some(onecli_audit::Known { log, last: store.last_audit_line(log).await? }),
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
