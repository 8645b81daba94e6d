//! The helper's side: executes requests within the configuration from its start.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use caps::Capability;
use onecli_model::{CgroupName, error_chain};
use onecli_sys::kernel::{self, Cgroup2, KernelConfig, KernelError, LinkState, Namespaces, NetnsError};
use onecli_sys::privilege::{self, Channel};
use socket2::{Domain, Protocol, Socket, Type};

use super::protocol::{Answer, Kind, NamespaceScan, Request, ScanResult, receive, send};

/// The capabilities for finding and entering a namespace, reading the pins, and binding a port below 1024. Cgroups
/// belong to root, and the helper runs as root.
const CAPABILITIES: [Capability; 4] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_NET_BIND_SERVICE,
];

/// Answers requests until the daemon is gone.
pub(super) fn serve(daemon: &Channel, config: &KernelConfig) {
    match HelperService::begin(config, || {}) {
        Ok(service) => {
            if let Err(error) = service.answer_all(daemon) {
                tracing::error!(error = error_chain(error.as_ref()), "the helper process exits");
            }
        }
        Err(error) => tracing::error!(error = error_chain(error.as_ref()), "the helper process cannot start"),
    }
}

type AnyError = Box<dyn std::error::Error>;

pub(super) struct HelperService<'a> {
    config: &'a KernelConfig,
    cgroups: Cgroup2,
    namespaces: Namespaces,
}

impl HelperService<'_> {
    /// Drops unneeded privileges. `last` runs before the system call filter is installed.
    pub(super) fn begin(config: &KernelConfig, last: impl FnOnce()) -> Result<HelperService<'_>, AnyError> {
        privilege::keep_capabilities(&CAPABILITIES)?;
        let service = HelperService { config, cgroups: Cgroup2::find()?, namespaces: Namespaces::of_self()? };
        last();
        privilege::filter_helper()?;
        Ok(service)
    }

    /// Answers one daemon until that daemon is gone.
    pub(super) fn answer_all(&self, daemon: &Channel) -> Result<(), AnyError> {
        while let Some((request, _)) = receive(daemon)? {
            let answer = match request {
                Request::Check => Answer::Health(self.check()),
                Request::MakeCgroup(name) => Answer::Done(self.on_cgroup(&name, Cgroup2::make)),
                Request::KillCgroup(name) => Answer::Done(self.on_cgroup(&name, Cgroup2::kill)),
                Request::RemoveCgroup(name) => Answer::Done(self.on_cgroup(&name, Cgroup2::remove)),
                Request::Scan(scan) => match self.scan(daemon, &scan) {
                    Ok(scanned) => Answer::Scanned(scanned),
                    Err(error) => match error.downcast::<NetnsError>() {
                        Ok(error) if !error.is_lost() => Answer::Failed(error_chain(error.as_ref())),
                        Ok(error) => return Err(error),
                        Err(error) => return Err(error),
                    },
                },
            };
            send(daemon, &answer, &[])?;
        }
        Ok(())
    }

    /// Checks that all programs are still attached.
    fn check(&self) -> Result<(), String> {
        let health = kernel::check(self.config).map_err(|error| error_chain(&error))?;
        match health.links.iter().find(|link| link.state != LinkState::Attached) {
            None => Ok(()),
            Some(link) => Err(format!(
                "the kernel program '{}' is no longer attached to the agents' cgroup ({:?}); restart onecli-daemon",
                link.program, link.state
            )),
        }
    }

    /// Applies `act` to a direct child of the agents root. The type of the name guarantees that it is one.
    fn on_cgroup(
        &self,
        name: &CgroupName,
        act: impl Fn(&Cgroup2, &Path) -> Result<(), KernelError>,
    ) -> Result<(), String> {
        act(&self.cgroups, &self.config.agents_root.join(name.as_str())).map_err(|error| error_chain(&error))
    }

    /// Opens missing sockets and passes them on, one namespace at a time.
    fn scan(&self, daemon: &Channel, scan: &NamespaceScan) -> Result<ScanResult, AnyError> {
        // A direct child of the agents root, guaranteed by the type of the name.
        let cgroup = self.config.agents_root.join(scan.cgroup.as_str());
        let found = self.namespaces.of_cgroup(&self.cgroups, &cgroup)?;
        let mut result = ScanResult { cut: found.cut, ..ScanResult::default() };
        let mut room = scan.room;
        for (inode, process) in found.others {
            let listens = scan.listening.contains(&inode);
            let resolver = scan.resolver.filter(|_| !scan.resolving.contains(&inode));
            if listens && resolver.is_none() {
                result.live.push(inode);
                continue;
            }
            if !listens && room == 0 {
                result.cut = true;
                continue;
            }
            match self.open(&cgroup, inode, process, !listens, resolver) {
                Ok((cookie, sockets)) => {
                    let (kinds, sockets): (Vec<Kind>, Vec<OwnedFd>) = sockets.into_iter().unzip();
                    room -= usize::from(!listens);
                    result.live.push(inode);
                    send(daemon, &Answer::Opened { netns: inode, cookie, sockets: kinds }, &sockets)?;
                }
                // The process ended in the meantime. The next scan finds its namespace if that still exists.
                Err(NetnsError::Moved(_) | NetnsError::File { .. }) => {}
                Err(error) if error.is_lost() => return Err(error.into()),
                Err(error) => result.failed.push((inode, error_chain(&error))),
            }
        }
        Ok(result)
    }

    /// Opens the sockets that a namespace lacks.
    fn open(
        &self,
        cgroup: &Path,
        inode: u64,
        process: i32,
        listeners: bool,
        resolver: Option<Ipv4Addr>,
    ) -> Result<(u64, Vec<(Kind, OwnedFd)>), NetnsError> {
        let port = self.config.transparent_port;
        let bind = |kind, address: SocketAddr| {
            let failed = |source| NetnsError::Socket { action: format!("bind {address}"), inode, source };
            Ok::<_, NetnsError>((kind, bind(kind, address).map_err(failed)?))
        };
        self.namespaces.visit(process, inode, cgroup, |cookie| {
            let mut sockets = Vec::new();
            if listeners {
                sockets.push(bind(Kind::Transparent, (Ipv4Addr::LOCALHOST, port).into())?);
                // In a namespace without IPv6 no process connects over it.
                match bind(Kind::Transparent, (Ipv6Addr::LOCALHOST, port).into()) {
                    Err(NetnsError::Socket { source, .. })
                        if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                    bound => sockets.push(bound?),
                }
            }
            if let Some(address) = resolver {
                sockets.push(bind(Kind::Resolver, (address, self.config.dns_port).into())?);
            }
            Ok((cookie, sockets))
        })
    }
}

/// Binds to a loopback address even if the loopback interface is not up yet (`IP_FREEBIND`, ip(7)). A container's
/// runtime brings it up some time before the program starts, and the listener must exist before that.
fn bind(kind: Kind, address: SocketAddr) -> std::io::Result<OwnedFd> {
    let (kind, protocol) = match kind {
        Kind::Transparent => (Type::STREAM, Protocol::TCP),
        Kind::Resolver => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier daemon may linger in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
