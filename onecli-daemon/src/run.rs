//! The composition root: acquires everything that needs privileges, builds the parts, serves, and shuts down.

use std::process::ExitCode;
use std::sync::Arc;

use onecli_config::Config;
use onecli_tls::UpstreamTls;

use crate::audit::ship::Shipper;
use crate::build::{self, ListenerFacts, Network, PolicyParts, SourceParts, Storage};
use crate::privileged::Privileged;
use crate::process::service_manager as service;
use crate::process::{AppError, journal};
use crate::serving::{Namespaces, ServerContext};
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
    runtime.block_on(serve(config, privileged))
}

async fn serve(config: Config, privileged: Privileged) -> Result<(), AppError> {
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
    let handles = build::admin_handles(&config, &storage, &policy, vault_server, host, &shipper, &executor);
    tasks.report(config.audit.witnesses.clone(), &storage.audit, daemon_client, shipper);
    tasks.follow(&storage, &policy, &managed);

    let dns = policy.dns.clone();
    let context =
        ServerContext { data_plane, origins: Arc::clone(&managed) as _, capacity, dns: dns.clone() };
    let listeners = listeners.listen(context)?;
    let redirects = managed.is_attached();
    tracing::info!(explicit = ?config.listen.explicit, transparent = redirects, "serving");
    let namespaces = Namespaces::new(Arc::clone(&managed), dns.clone(), listeners.handler())?;
    let status = if redirects {
        "serving: connections of agents are redirected"
    } else {
        "serving: explicit proxy only"
    };
    let served = listeners.serve(sockets.admin, handles, status, stop_reason(namespaces, managed)).await;

    tracing::info!("stopping");
    tasks.stop(dns, storage.audit).await?;
    served
}
