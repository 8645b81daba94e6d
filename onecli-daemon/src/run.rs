//! The composition root: acquires everything that needs privileges, builds the parts, serves, and shuts down.

use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;

use onecli_admin::Handles;
use onecli_audit::AuditLog;
use onecli_config::Config;
use onecli_tls::UpstreamTls;
use tokio::task::JoinHandle;

use crate::agents::TransparentMode;
use crate::audit::ship::Shipper;
use crate::build::{self, ListenerFacts, Network, PolicyParts, SourceParts, Storage};
use crate::privileged::Privileged;
use crate::process::service_manager as service;
use crate::process::{AppError, journal};
use crate::serving::{Namespaces, OpenListeners, ServerContext, Serving};
use crate::shutdown::stop_reason;
use crate::tasks::Tasks;

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
    let (_locks, privileged) = Privileged::acquire(&config)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(AppError::Runtime)?;
    runtime.block_on(async {
        let (running, why) = Daemon::build(config, privileged).await?.run().await;
        running.shutdown().await?;
        why
    })
}

/// The daemon, before and while it serves.
struct Daemon {
    listeners: OpenListeners,
    admin_socket: UnixListener,
    handles: Handles,
    namespaces: Namespaces,
    managed: Arc<TransparentMode>,
    tasks: Tasks,
    dns: Option<Arc<onecli_dns::Server>>,
    audit: AuditLog,
}

impl Daemon {
    /// Builds every part. Clients can connect, but are not served yet.
    async fn build(config: Config, privileged: Privileged) -> Result<Daemon, AppError> {
        let Privileged { data_dir, keys, managed, executor, listeners, sockets, capacity } = privileged;
        let managed = Arc::new(managed);
        let storage = Storage::open(&config, &data_dir, &keys).await?;
        let network = Network::new(&config, listeners.addresses())?;
        let policy = PolicyParts::load(&config, &storage, &network, &managed, sockets.datagrams).await?;
        let upstream_tls = UpstreamTls::new(&config.upstream.extra_ca_files)?;
        let authority = build::authority(&config, &storage, &upstream_tls).await?;
        let SourceParts { daemon_client, vault_server, credentials } =
            SourceParts::new(&config, &storage, &network, &upstream_tls, &executor)?;
        let shipper =
            Shipper::new(storage.audit_dir.path().to_owned(), &storage.audit, Arc::clone(&storage.store));
        let mut tasks = Tasks::new(&storage, &shipper);
        tasks.maintain_sources(&config, &storage, &managed, vault_server.clone(), Arc::clone(&credentials));

        let tls = (upstream_tls, authority.load().await?);
        let facts = ListenerFacts { explicit: listeners.explicit(), capacity };
        let data_plane = build::data_plane(&config, &storage, network, &policy, credentials, tls, facts)?;
        let host = build::host(&config, &storage, &policy, &managed, &data_plane, authority, &data_dir);
        let handles =
            build::admin_handles(&config, &storage, &policy, vault_server, host, &shipper, &executor);
        tasks.report(config.audit.witnesses.clone(), &storage.audit, daemon_client, shipper);
        tasks.follow(&storage, &policy, &managed);

        let dns = policy.dns;
        let origins = Arc::clone(&managed) as _;
        let listeners =
            listeners.listen(ServerContext { data_plane, origins, capacity, dns: dns.clone() })?;
        tracing::info!(explicit = ?config.listen.explicit, transparent = managed.is_attached(), "serving");
        let namespaces = Namespaces::new(Arc::clone(&managed), dns.clone(), listeners.handler())?;
        let (audit, admin_socket) = (storage.audit, sockets.admin);
        Ok(Daemon { listeners, admin_socket, handles, namespaces, managed, tasks, dns, audit })
    }

    /// Serves until there is a reason to stop.
    ///
    /// # Errors
    /// The fault that stops the daemon, if it was no signal.
    async fn run(self) -> (Running, Result<(), AppError>) {
        let Daemon { listeners, admin_socket, handles, namespaces, managed, mut tasks, dns, audit } = self;
        let status = status(managed.is_attached());
        let serving = listeners.start(admin_socket, handles, (&mut tasks.serving, &mut tasks.upkeep));
        let watchdog = tokio::spawn(service::watchdog());
        service::ready(status);
        let why = tokio::select! {
            why = stop_reason(namespaces, managed) => why,
            ended = tasks.failed() => Err(AppError::Task(ended)),
        };
        (Running { serving, watchdog, tasks, dns, audit }, why)
    }
}

/// What has to be ended.
struct Running {
    serving: Serving,
    watchdog: JoinHandle<()>,
    tasks: Tasks,
    dns: Option<Arc<onecli_dns::Server>>,
    audit: AuditLog,
}

impl Running {
    /// Accepts no new connection, lets open requests finish, and ends the tasks and the audit log.
    ///
    /// # Errors
    /// The audit log cannot be closed.
    async fn shutdown(mut self) -> Result<(), AppError> {
        service::stopping();
        self.serving.stop(&mut self.tasks.serving, &mut self.tasks.upkeep).await;
        self.watchdog.abort();
        tracing::info!("stopping");
        self.tasks.stop(self.dns, self.audit).await
    }
}

/// The status that the service manager shows.
fn status(is_redirecting: bool) -> &'static str {
    if is_redirecting {
        "serving: connections of agents are redirected"
    } else {
        "serving: explicit proxy only"
    }
}
