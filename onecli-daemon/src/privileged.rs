//! The steps that need privileges. They run first, on one thread; the rest runs without privileges.

use std::path::Path;

use onecli_config::Config;
use onecli_proxy::Capacity;
use onecli_sys::PrivateDir;
use onecli_sys::kernel::{self, Claim};
use onecli_sys::lock::ExclusiveLock;
use onecli_sys::privilege;
use onecli_vault::KeySource;

use crate::agents::TransparentMode;
use crate::data_dir::{hold, key_source};
use crate::executor::HostExecutor;
use crate::process::AppError;
use crate::process::service_manager::{InheritedSockets, Sockets};
use crate::serving::Listeners;

/// Everything that was created with privileges.
pub(crate) struct Privileged {
    pub(crate) data_dir: PrivateDir,
    pub(crate) keys: KeySource,
    pub(crate) managed: TransparentMode,
    pub(crate) executor: HostExecutor,
    pub(crate) listeners: Listeners,
    pub(crate) sockets: Sockets,
    pub(crate) capacity: Capacity,
}

/// The locks of the data directory and of the kernel part, held until the process ends. A second daemon would take the
/// agents over and then perhaps not serve them.
pub(crate) struct Locks {
    _data: ExclusiveLock,
    _kernel: Option<Claim>,
}

impl Privileged {
    /// Performs the steps, then drops all privileges.
    pub(crate) fn acquire(config: &Config) -> Result<(Locks, Privileged), AppError> {
        privilege::forbid_inspection()?;
        let capacity = Capacity::of(privilege::raise_descriptor_limit()?);
        let data_dir = PrivateDir::create(&config.data_dir)?;
        let locks = Locks { _data: hold(&data_dir)?, _kernel: claim(config)? };
        let managed = TransparentMode::attach(config);
        // The executor starts in the daemon's cgroup, before any secret is in memory.
        let executor = HostExecutor::start(config);
        // Bound now because of ports below 1024, but listening starts only after the vault is open.
        let mut inherited = InheritedSockets::take();
        let listeners = Listeners::bind(config, &managed, &mut inherited)?;
        let sockets = other_sockets(config, inherited)?;
        // Read after the helper was forked, so that the helper holds no secret.
        let keys = key_source(config, &data_dir)?;
        privilege::keep_capabilities(&[])?;
        privilege::filter_serving()?;
        Ok((locks, Privileged { data_dir, keys, managed, executor, listeners, sockets, capacity }))
    }
}

/// Opens the admin socket, and closes the passed sockets that the configuration does not name.
fn other_sockets(config: &Config, mut inherited: InheritedSockets) -> Result<Sockets, AppError> {
    // Setting the socket's group needs CAP_CHOWN. Clients that connect now wait in the backlog.
    let admin = match inherited.unix(&config.listen.admin_socket) {
        Some(socket) => socket,
        None => onecli_admin::bind(&config.listen.admin_socket)?,
    };
    let sockets = Sockets { admin, datagrams: inherited.datagrams() };
    inherited.close_rest();
    Ok(sockets)
}

/// Locks the kernel part against other daemons. [`TransparentMode::attach`] reports other problems with it.
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
