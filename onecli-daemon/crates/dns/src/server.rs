//! The DNS server: one socket for each agent's resolver address.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use onecli_audit::Fold;
use onecli_model::{Agent, AgentId, AgentName, CgroupName, Code};
use onecli_policy::{CaptureMode, ClientEvidence};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::address::candidates;
use super::answer::QueryHandler;
use super::denied::PendingQueries;
use super::message::{MAX_QUERY, Transport};
use super::name_budget::NameBudget;

/// The maximum number of concurrent queries of one agent, over UDP and TCP. Further datagrams are dropped.
const IN_FLIGHT: usize = 64;
/// The maximum number of concurrent TCP connections of one agent.
pub(super) const STREAMS: usize = 16;
/// The time that accepted queries may take when the server closes.
const CLOSING: Duration = Duration::from_secs(2);
/// The interval at which an agent's refusals are checked for due records.
const SWEEP: Duration = Duration::from_secs(1);
/// The pause after a socket failed.
const PAUSE: Duration = Duration::from_millis(50);

/// The agent that a query belongs to, by the address it arrived at or the kernel's record of a connection.
///
/// A process of the host outside every agent's cgroup can send to the address as well. It learns which names that
/// agent may resolve and nothing else. It uses up that agent's limits only and appears in the log as that agent. An
/// agent cannot do so to another: the kernel refuses its UDP except to port 53, and sends that to its own resolver.
#[derive(Debug)]
pub struct DnsClient {
    pub(super) agent: AgentId,
    pub(super) name: AgentName,
    pub(super) evidence: ClientEvidence,
    pub(super) refusals: Mutex<Fold<(String, Code)>>,
    pub(super) pending: Mutex<PendingQueries>,
    pub(super) name_budget: tokio::sync::Mutex<NameBudget>,
    pub(super) queries: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
}

impl DnsClient {
    pub(super) fn new(agent: &Agent) -> DnsClient {
        DnsClient {
            agent: agent.id,
            name: agent.name.clone(),
            // According to the kernel: it alone delivers datagrams here, and only those of this cgroup.
            evidence: ClientEvidence {
                mode: CaptureMode::Transparent,
                cgroup: Some(agent.cgroup.clone()),
                token: None,
            },
            refusals: Mutex::default(),
            pending: Mutex::default(),
            name_budget: tokio::sync::Mutex::default(),
            queries: Arc::new(Semaphore::new(IN_FLIGHT)),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    fn is(&self, agent: &Agent) -> bool {
        self.name == agent.name && self.evidence.cgroup.as_ref() == Some(&agent.cgroup)
    }
}

/// Marks a socket as the daemon's, so that the kernel lets queries through to it. After a crash, another process may
/// have bound the address.
pub type SocketMark = Box<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync>;

/// Holds the agents' sockets between two daemons, so that a query sent in between is answered late instead of
/// refused.
pub trait SocketStore: Send + Sync {
    /// Takes the stored socket of an agent out of the store.
    fn take(&self, agent: AgentId) -> Option<std::net::UdpSocket>;
    /// Stores an agent's socket.
    fn store(&self, agent: AgentId, socket: BorrowedFd<'_>);
    /// Removes an agent's socket from the store.
    fn remove(&self, agent: AgentId);
}

/// The agents' resolver.
pub struct Server {
    pub(super) handler: Arc<QueryHandler>,
    port: u16,
    stamp: SocketMark,
    socket_store: Option<Box<dyn SocketStore>>,
    listening: Mutex<HashMap<AgentId, Listening>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("port", &self.port).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Listening {
    address: Ipv4Addr,
    client: Arc<DnsClient>,
    task: Serving,
    /// The same address in other network namespaces, by their inode numbers.
    elsewhere: HashMap<u64, Serving>,
}

/// Answers queries from one socket until it is dropped.
#[derive(Debug)]
struct Serving {
    task: JoinHandle<()>,
    /// Stops the reading of queries. Queries that wait in the socket belong to its next owner.
    stop: CancellationToken,
}

impl Serving {
    fn start(
        handler: &Arc<QueryHandler>,
        client: &Arc<DnsClient>,
        socket: UdpSocket,
        address: Ipv4Addr,
    ) -> Serving {
        let stop = CancellationToken::new();
        let served = serve_datagrams(Arc::clone(handler), Arc::clone(client), socket, address, stop.clone());
        Serving { task: tokio::spawn(served), stop }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Returns a server without sockets. Its sockets will have `port`, which the kernel programs know.
    pub fn new(handler: QueryHandler, port: u16, stamp: SocketMark) -> Server {
        Server { handler: Arc::new(handler), port, stamp, socket_store: None, listening: Mutex::default() }
    }

    /// Sets a store for sockets that outlive this server.
    #[must_use]
    pub fn with_socket_store(mut self, socket_store: Box<dyn SocketStore>) -> Server {
        self.socket_store = Some(socket_store);
        self
    }

    /// Serves exactly these agents. Disabled agents are served too, so that they receive the reason. Returns the
    /// address of each agent, which stays the same for as long as the agent is served. An agent for which no socket
    /// could be opened has none. Must be called in a tokio runtime.
    pub fn serve<'a>(&self, agents: impl Iterator<Item = &'a Agent>) -> HashMap<AgentId, Ipv4Addr> {
        let agents: HashMap<AgentId, &Agent> = agents.map(|agent| (agent.id, agent)).collect();
        self.handler.synthetic.retain(|agent| agents.contains_key(&agent));
        let mut listening = self.listening.lock();
        listening.retain(|id, one| {
            let stays = agents.get(id).is_some_and(|agent| one.client.is(agent));
            if !stays {
                self.handler.report_rest(&one.client);
                if let Some(socket_store) = &self.socket_store {
                    socket_store.remove(*id);
                }
            }
            stays
        });
        let mut missing: Vec<&Agent> =
            agents.into_values().filter(|agent| !listening.contains_key(&agent.id)).collect();
        // Ids are ordered by time. If two agents prefer the same address, the older one gets it again after a
        // restart.
        missing.sort_unstable_by_key(|agent| agent.id);
        for agent in missing {
            match self.listen(agent) {
                Ok(one) => {
                    listening.insert(agent.id, one);
                }
                Err(error) => tracing::error!(agent = %agent.name, %error, "the agent has no DNS socket"),
            }
        }
        listening.iter().map(|(id, one)| (*id, one.address)).collect()
    }

    /// Closes every socket and writes outstanding records. Accepted queries are answered first, within two seconds.
    /// Later queries wait in the socket for the next server if the store holds it.
    pub async fn close(&self) {
        let mut all: Vec<Listening> = {
            let mut listening = self.listening.lock();
            listening.drain().map(|(_, one)| one).collect()
        };
        let mut serving: Vec<&mut Serving> = Vec::new();
        for one in &mut all {
            serving.push(&mut one.task);
            serving.extend(one.elsewhere.values_mut());
        }
        for one in &serving {
            one.stop.cancel();
        }
        let finish = async {
            for one in serving {
                // A task that panicked has no queries left.
                let _ = (&mut one.task).await;
            }
        };
        let _ = tokio::time::timeout(CLOSING, finish).await;
        for one in &all {
            self.handler.report_rest(&one.client);
        }
    }

    /// Records the denied queries of an agent that no connection has followed so far.
    pub fn record_denied(&self, agent: AgentId) {
        let listening = self.listening.lock();
        if let Some(one) = listening.get(&agent) {
            self.handler.report_unconnected(&one.client);
        }
    }

    /// Returns the agent whose DNS queries arrive on a connection from this cgroup.
    pub fn client(&self, cgroup: &CgroupName) -> Option<Arc<DnsClient>> {
        let listening = self.listening.lock();
        let mut clients = listening.values().map(|one| &one.client);
        clients.find(|client| client.evidence.cgroup.as_ref() == Some(cgroup)).cloned()
    }

    fn listen(&self, agent: &Agent) -> io::Result<Listening> {
        let (socket, address) = if let Some(kept) = self.stored_socket(agent.id) {
            kept
        } else {
            let bound = bind(agent.id, self.port)?;
            if let Some(socket_store) = &self.socket_store {
                socket_store.store(agent.id, bound.0.as_fd());
            }
            bound
        };
        (self.stamp)(socket.as_fd())?;
        let client = Arc::new(DnsClient::new(agent));
        let task = Serving::start(&self.handler, &client, socket, address);
        Ok(Listening { address, client, task, elsewhere: HashMap::new() })
    }

    /// Takes the socket that the previous daemon had for the agent, if its address is still one of the agent's
    /// candidates.
    fn stored_socket(&self, agent: AgentId) -> Option<(UdpSocket, Ipv4Addr)> {
        let socket = self.socket_store.as_ref()?.take(agent)?;
        let SocketAddr::V4(bound) = socket.local_addr().ok()? else { return None };
        if bound.port() != self.port || !candidates(agent).any(|address| address == *bound.ip()) {
            return None;
        }
        socket.set_nonblocking(true).ok()?;
        Some((UdpSocket::from_std(socket).ok()?, *bound.ip()))
    }

    /// Answers the agent of this cgroup in another network namespace too, through a socket with its address there.
    /// Does nothing if the agent has no address or now has another one. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot register the socket, or the kernel programs cannot stamp it.
    pub fn serve_in(&self, netns: u64, cgroup: &CgroupName, socket: std::net::UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let IpAddr::V4(address) = socket.local_addr()?.ip() else { return Ok(()) };
        let socket = UdpSocket::from_std(socket)?;
        (self.stamp)(socket.as_fd())?;
        let mut listening = self.listening.lock();
        let is_its = |one: &&mut Listening| one.client.evidence.cgroup.as_ref() == Some(cgroup);
        if let Some(one) = listening.values_mut().find(is_its).filter(|one| one.address == address) {
            let serving = Serving::start(&self.handler, &one.client, socket, address);
            one.elsewhere.insert(netns, serving);
        }
        Ok(())
    }

    /// Returns the other network namespaces in which the agent of this cgroup is answered.
    pub fn namespaces(&self, cgroup: &CgroupName) -> Vec<u64> {
        let listening = self.listening.lock();
        let is_its = |one: &&Listening| one.client.evidence.cgroup.as_ref() == Some(cgroup);
        listening.values().find(is_its).map(|one| one.elsewhere.keys().copied().collect()).unwrap_or_default()
    }

    /// Closes every agent's socket in another network namespace.
    pub fn leave(&self, netns: u64) {
        let mut listening = self.listening.lock();
        for one in listening.values_mut() {
            one.elsewhere.remove(&netns);
        }
    }
}

/// Binds to the first free address for the agent. Without `SO_REUSEADDR`, no other socket can bind the same address.
fn bind(agent: AgentId, port: u16) -> io::Result<(UdpSocket, Ipv4Addr)> {
    let mut failed = io::Error::from(io::ErrorKind::AddrInUse);
    for address in candidates(agent) {
        match std::net::UdpSocket::bind((address, port)) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                return Ok((UdpSocket::from_std(socket)?, address));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Sends a datagram from the address that the socket is bound to.
///
/// A socket that was bound while its namespace had no route (`IP_FREEBIND`, before the loopback is up) has no source
/// address: the kernel treated the bound address as a broadcast address.
async fn send_from(socket: &UdpSocket, from: Ipv4Addr, data: &[u8], to: SocketAddr) -> io::Result<()> {
    let SocketAddr::V4(to) = to else { return Err(io::ErrorKind::InvalidInput.into()) };
    let source = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
    let info =
        libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
    let send = || {
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let data = [IoSlice::new(data)];
        let to = SockaddrIn::from(to);
        Ok(sendmsg(socket.as_raw_fd(), &data, &control, MsgFlags::MSG_NOSIGNAL, Some(&to))?)
    };
    socket.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Answers from `address` until it is stopped, then finishes the queries it accepted. Aborting the task also ends the
/// queries in progress.
async fn serve_datagrams(
    handler: Arc<QueryHandler>,
    client: Arc<DnsClient>,
    socket: UdpSocket,
    address: Ipv4Addr,
    stop: CancellationToken,
) {
    let socket = Arc::new(socket);
    let mut queries = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    // One byte more than the limit, to distinguish a message that is too large from one that just fits.
    let mut buffer = vec![0; MAX_QUERY + 1];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) if length <= MAX_QUERY => {
                    let Ok(place) = Arc::clone(&client.queries).try_acquire_owned() else { continue };
                    let query = buffer[..length].to_vec();
                    let (handler, client, socket) = (Arc::clone(&handler), Arc::clone(&client), Arc::clone(&socket));
                    queries.spawn(async move {
                        if let Some(answer) = handler.answer(&client, &query, Transport::Datagram).await {
                            // A failure means that the client no longer waits.
                            let _ = send_from(&socket, address, &answer, from).await;
                        }
                        drop(place);
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(agent = %client.name, %error, "an agent's DNS socket failed");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = queries.join_next() => {}
            _ = sweep.tick() => handler.report(&client),
            () = stop.cancelled() => break,
        }
    }
    while queries.join_next().await.is_some() {}
}
