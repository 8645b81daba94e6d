//! Listening sockets, opened in two steps.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// The queue of connections that wait to be accepted. The kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(source))]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program, or another OneCLI daemon, uses the port: see 'ss -ltnp')"
        }
        io::ErrorKind::AddrNotAvailable => " (this host does not have that address: see [listen])",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root)",
        _ => "",
    }
}

/// A bound TCP socket that does not accept connections yet. Binding may need a privilege that listening does not
/// need.
#[derive(Debug)]
pub struct BoundListener {
    socket: Socket,
    address: SocketAddr,
}

/// Binds a TCP socket. It belongs to the current cgroup of the calling thread (`sock_ops` programs run by the cgroup
/// in which a listener was created).
///
/// # Errors
/// [`ListenError`], with the next step.
pub fn bind(address: SocketAddr) -> Result<BoundListener, ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        BoundListener::adopt(socket)
    };
    open().map_err(|source| ListenError { address, source })
}

impl BoundListener {
    fn adopt(socket: Socket) -> io::Result<BoundListener> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_socket();
        Ok(BoundListener { socket, address: address.ok_or(io::ErrorKind::InvalidInput)? })
    }

    /// Returns the address, with the port that the kernel chose if none was requested.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to accept connections. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`], for example if another root process that shares the address by `SO_REUSEADDR` listened first.
    pub fn listen(self) -> Result<TcpListener, ListenError> {
        let BoundListener { socket, address } = self;
        let listen = || {
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        listen().map_err(|source| ListenError { address, source })
    }
}

/// Accepts a socket that another process of the daemon bound.
impl TryFrom<OwnedFd> for BoundListener {
    type Error = io::Error;

    fn try_from(socket: OwnedFd) -> io::Result<BoundListener> {
        BoundListener::adopt(socket.into())
    }
}

impl AsFd for BoundListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
