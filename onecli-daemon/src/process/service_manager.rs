//! The service manager: sockets that it opened for the daemon, and notifications to it (systemd.service(5),
//! `sd_notify(3)`).
//!
//! Without a service manager all of this does nothing.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_dns::SocketStore;
use onecli_model::AgentId;
use onecli_net::BoundListener;
use onecli_sys::privilege;
use parking_lot::Mutex;
use sd_notify::NotifyState;
use socket2::{Socket, Type};

/// The name of the daemon's listeners that the service manager holds for the next start. Listeners of the socket unit
/// have another name.
const STORED_LISTENER: &str = "kept";

/// The prefix of the names of agents' DNS sockets.
const DNS: &str = "dns-";

/// Listening sockets that were opened before this process. They are found by their addresses, so that the
/// configuration alone determines where the daemon listens.
#[derive(Debug, Default)]
pub(crate) struct InheritedSockets {
    tcp: Vec<(SocketAddr, PassedFd)>,
    unix: Vec<(PathBuf, PassedFd)>,
    /// By name. An agent never receives the socket of another agent, in which that agent's queries wait.
    datagrams: HashMap<String, UdpSocket>,
}

#[derive(Debug)]
struct PassedFd {
    name: String,
    socket: Socket,
}

impl InheritedSockets {
    /// Takes the sockets that the service manager passed to this process.
    pub(crate) fn take() -> InheritedSockets {
        InheritedSockets::sort(privilege::inherited_sockets())
    }

    fn sort(passed: Vec<(String, OwnedFd)>) -> InheritedSockets {
        let mut inherited = InheritedSockets::default();
        for (name, descriptor) in passed {
            if name.starts_with(DNS) {
                inherited.datagrams.insert(name, descriptor.into());
                continue;
            }
            let passed = PassedFd { name, socket: Socket::from(descriptor) };
            let listens = passed.socket.is_listener().unwrap_or(false);
            let streams = passed.socket.r#type().is_ok_and(|found| found == Type::STREAM);
            let address = passed.socket.local_addr().ok().filter(|_| listens && streams);
            let path = address.as_ref().and_then(|address| address.as_pathname()).map(Path::to_owned);
            match (address.and_then(|address| address.as_socket()), path) {
                (Some(address), _) => inherited.tcp.push((address, passed)),
                (_, Some(path)) => inherited.unix.push((path, passed)),
                _ => tracing::warn!(
                    name = passed.name,
                    "the service manager passed a descriptor that is not a listening socket"
                ),
            }
        }
        inherited
    }

    /// Takes the TCP listener with this address.
    pub(crate) fn tcp(&mut self, address: SocketAddr) -> Option<BoundListener> {
        let at = self.tcp.iter().position(|(found, _)| *found == address)?;
        let (_, passed) = self.tcp.swap_remove(at);
        BoundListener::try_from(OwnedFd::from(passed.socket)).ok()
    }

    /// Takes the stream listener at this path.
    pub(crate) fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let at = self.unix.iter().position(|(found, _)| found == path)?;
        let (_, passed) = self.unix.swap_remove(at);
        passed.socket.set_nonblocking(true).ok()?;
        Some(UnixListener::from(OwnedFd::from(passed.socket)))
    }

    /// Takes the agents' DNS sockets that the service manager held since the previous daemon.
    pub(crate) fn datagrams(&mut self) -> Datagrams {
        Datagrams(Mutex::new(std::mem::take(&mut self.datagrams)))
    }

    /// Closes sockets that the configuration does not name. Must be called after all configured ones were taken.
    pub(crate) fn close_rest(self) {
        for (address, passed) in self.tcp {
            if passed.name == STORED_LISTENER {
                // An earlier configuration named it. The service manager drops it when it hangs up (sd_notify(3),
                // FDPOLL).
                let _ = passed.socket.shutdown(std::net::Shutdown::Both);
            } else {
                tracing::warn!(%address, "the socket unit listens on an unconfigured address: {UNIT_HINT}");
            }
        }
        for (path, _) in self.unix {
            tracing::warn!(
                path = %path.display(),
                "the socket unit listens on an unconfigured address: {UNIT_HINT}"
            );
        }
    }
}

/// The sockets besides the listeners for connections of agents.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The admin socket.
    pub(crate) admin: UnixListener,
    /// The agents' DNS sockets of the previous daemon.
    pub(crate) datagrams: Datagrams,
}

/// Agents' DNS sockets in the service manager's store.
#[derive(Debug)]
pub(crate) struct Datagrams(Mutex<HashMap<String, UdpSocket>>);

impl SocketStore for Datagrams {
    fn take(&self, agent: AgentId) -> Option<UdpSocket> {
        self.0.lock().remove(&name_of(agent))
    }

    fn store(&self, agent: AgentId, socket: BorrowedFd<'_>) {
        // Removes a stored socket that was not taken because the agent's address has changed.
        self.remove(agent);
        let name = name_of(agent);
        log_failure(sd_notify::notify_with_fds(
            &[NotifyState::FdStore, NotifyState::FdName(&name)],
            &[socket],
        ));
    }

    fn remove(&self, agent: AgentId) {
        drop(self.take(agent));
        log_failure(sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name_of(agent))]));
    }
}

fn name_of(agent: AgentId) -> String {
    format!("{DNS}{agent}")
}

const UNIT_HINT: &str =
    "connections there are not served; change the unit with 'systemctl edit onecli-daemon.socket'";

/// Asks the service manager to hold a listener that this process opened, for the next start.
pub(crate) fn store_listener(listener: &impl AsFd) {
    let states = [NotifyState::FdStore, NotifyState::FdName(STORED_LISTENER)];
    log_failure(sd_notify::notify_with_fds(&states, &[listener.as_fd()]));
}

/// Extends the time that the start may take before it counts as failed (`EXTEND_TIMEOUT_USEC`).
pub(crate) fn starting(at_most: Duration) {
    let at_most = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    log_failure(sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(at_most)]));
}

/// Reports that every listener is open and served from now on.
pub(crate) fn ready(status: &str) {
    log_failure(sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]));
}

/// Reports why this process ends. `onecli` shows it to administrators and recognizes it by its first words.
pub(crate) fn failed(reason: &str) {
    // A status is one line.
    let status = format!("failed: {}", reason.replace('\n', "; "));
    log_failure(sd_notify::notify(&[NotifyState::Status(&status)]));
}

/// Reports that open requests finish and new connections wait.
pub(crate) fn stopping() {
    log_failure(sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("finishing open requests")]));
}

/// Sends keep-alive messages to the service manager at the interval that it requests. This is a task of the serving
/// runtime: if no task runs any more, this one does not either.
pub(crate) async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(limit / 3);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        log_failure(sd_notify::notify(&[NotifyState::Watchdog]));
    }
}

fn log_failure(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn passed_sockets_are_found_by_address_regardless_of_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let (one, two) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (first, second) = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let not_listening = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut inherited = InheritedSockets::sort(vec![
            ("onecli".to_owned(), one.into()),
            ("onecli".to_owned(), UnixListener::bind(&path).unwrap().into()),
            ("other".to_owned(), not_listening.into()),
            (STORED_LISTENER.to_owned(), two.into()),
        ]);
        assert!(inherited.tcp("127.0.0.1:1".parse().unwrap()).is_none());
        assert_eq!(inherited.tcp(first).unwrap().address(), first);
        assert!(inherited.tcp(first).is_none(), "the socket was already taken");
        assert!(inherited.unix(Path::new("/elsewhere")).is_none());
        assert!(inherited.unix(&path).is_some());

        // A listener that was held and that no configuration names any more accepts no connections.
        inherited.close_rest();
        assert!(std::net::TcpStream::connect(second).is_err());
    }
}
