//! The serving process's use of the kernel programs' maps: look flows up, maintain the agents' entries, read counters.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, SkStorage};
use nix::time::{ClockId, clock_gettime};
use onecli_common::{AgentEntry, Ident, IdentFlags, Stat, TupleKey, names};
use onecli_model::flow::Flow;
use parking_lot::Mutex;
use socket2::{SockRef, Type};

use super::{
    attach::attach,
    bpffs::Pins,
    config::KernelConfig,
    decode::{address, comm, halves},
    denials::Denials,
    error::KernelError,
    netns::netns_cookie,
    program_log::KernelLog,
    syn::{self, Syn},
};

/// Creates an entry, and changes no existing one: bpf(2).
const BPF_NOEXIST: u64 = 1;

/// Handles of the pinned maps. It holds no link and no program, so an attacker in this process cannot detach them.
pub struct Redirect {
    announced: Mutex<HashMap<MapData, TupleKey, Ident>>,
    listeners: Mutex<SkStorage<MapData, u32>>,
    agents: Mutex<HashMap<MapData, u64, AgentEntry>>,
    taken: Mutex<HashMap<MapData, u64, u64>>,
    stats: PerCpuArray<MapData, u64>,
    denials: Mutex<Option<MapData>>,
    log: Mutex<Option<KernelLog>>,
    identified: AtomicU64,
    unidentified: AtomicU64,
}

/// The maps that it consists of, in the order in which they are passed.
const MAPS: [&str; 6] =
    [names::TUP, names::LISTENERS, names::AGENTS, names::TAKEN, names::STATS, names::DENY];

impl Redirect {
    /// Loads and attaches the programs, or replaces those that an earlier daemon attached, and opens the maps.
    ///
    /// Enforcement outlives this value and this process, until [`detach`](super::detach).
    pub fn attach(config: &KernelConfig) -> Result<Self, KernelError> {
        let log = attach(config)?;
        let mut redirect = Self::open(&config.bpffs_dir)?;
        redirect.log = Mutex::new(log);
        Ok(redirect)
    }

    /// Opens the maps that [`attach`](Self::attach) pinned, in this process or another.
    pub fn open(bpffs_dir: &Path) -> Result<Self, KernelError> {
        let pins = Pins::below(bpffs_dir);
        Self::of(|name| MapData::from_pin(pins.map(name)).map_err(KernelError::map("open pinned", name)))
    }

    /// Adopts the maps that another process opened with [`open_maps`].
    pub fn adopt(maps: Vec<OwnedFd>) -> Result<Self, KernelError> {
        let found = maps.len();
        let mut named: BTreeMap<&str, OwnedFd> = MAPS.into_iter().zip(maps).collect();
        Self::of(|name| match named.remove(name) {
            Some(descriptor) => MapData::from_fd(descriptor).map_err(KernelError::map("adopt", name)),
            None => Err(KernelError::MissingMap { name, found }),
        })
    }

    fn of(mut open: impl FnMut(&'static str) -> Result<MapData, KernelError>) -> Result<Self, KernelError> {
        let typed = |name: &'static str| KernelError::map("use", name);
        Ok(Self {
            announced: Mutex::new(Map::LruHashMap(open(names::TUP)?).try_into().map_err(typed(names::TUP))?),
            listeners: Mutex::new(
                Map::SkStorage(open(names::LISTENERS)?).try_into().map_err(typed(names::LISTENERS))?,
            ),
            agents: Mutex::new(Map::HashMap(open(names::AGENTS)?).try_into().map_err(typed(names::AGENTS))?),
            taken: Mutex::new(Map::HashMap(open(names::TAKEN)?).try_into().map_err(typed(names::TAKEN))?),
            stats: Map::PerCpuArray(open(names::STATS)?).try_into().map_err(typed(names::STATS))?,
            denials: Mutex::new(Some(open(names::DENY)?)),
            log: Mutex::new(None),
            identified: AtomicU64::new(0),
            unidentified: AtomicU64::new(0),
        })
    }

    /// Takes the kernel's record of an accepted connection, in some microseconds. A second call finds none. Returns
    /// `None` if the client is not a managed process.
    ///
    /// A record belongs to one SYN, identified also by its sequence number: see [`TupleKey`].
    pub fn flow(&self, accepted: &impl AsFd) -> Result<Option<Flow>, KernelError> {
        let flow = self.announcement(accepted)?.as_ref().map(flow).transpose()?;
        let counter = if flow.is_some() { &self.identified } else { &self.unidentified };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(flow)
    }

    fn announcement(&self, accepted: &impl AsFd) -> Result<Option<Ident>, KernelError> {
        let Some(syn) = syn::take(accepted).map_err(KernelError::Accepted)? else { return Ok(None) };
        let netns = netns_cookie(accepted).map_err(KernelError::Accepted)?;
        let key = key(&syn, netns);
        let mut announced = self.announced.lock();
        let ident = match announced.get(&key, 0) {
            Ok(ident) => ident,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(KernelError::map("read", names::TUP)(error)),
        };
        // The daemon's clock is an argument elsewhere. The record's time comes from the kernel's clock, so this reads
        // the same one.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::MAX, Duration::from);
        let age = now.saturating_sub(Duration::from_nanos(ident.ktime));
        if age > Duration::from_nanos(names::TUP_LIFE) {
            return Ok(None);
        }
        match announced.remove(&key) {
            // The kernel has evicted the entry meanwhile.
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(KernelError::map("write", names::TUP))?,
        }
        drop(announced);
        self.make_room(ident.agent_cgid)?;
        Ok(Some(ident))
    }

    /// Counts one connection of an agent as accepted, so that one more may wait.
    fn make_room(&self, agent_cgid: u64) -> Result<(), KernelError> {
        let mut taken = self.taken.lock();
        let number = match taken.get(&agent_cgid, 0) {
            Ok(number) => number,
            // Removed meanwhile.
            Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(KernelError::map("read", names::TAKEN)(error)),
        };
        taken.insert(agent_cgid, number.wrapping_add(1), 0).map_err(KernelError::map("write", names::TAKEN))
    }

    /// Marks a bound or listening TCP socket, or the UDP socket of a resolver, as the daemon's. Managed processes are
    /// redirected to no other. The mark belongs to the socket, so a process that receives the socket from the service
    /// manager inherits it. The kernel saves the SYNs of its connections, for [`flow`](Self::flow).
    pub fn stamp(&self, listener: &impl AsFd) -> Result<(), KernelError> {
        if SockRef::from(listener).r#type().map_err(KernelError::Listener)? == Type::STREAM {
            syn::keep(listener).map_err(KernelError::Listener)?;
        }
        let mut listeners = self.listeners.lock();
        listeners
            .insert(&listener.as_fd().as_raw_fd(), names::STAMP, 0)
            .map_err(KernelError::map("write", names::LISTENERS))
    }

    /// Adds an agent to the kernel's map by its cgroup id, or changes its entry.
    pub fn set_agent(&self, cgroup_id: u64, entry: AgentEntry) -> Result<(), KernelError> {
        // A panic elsewhere leaves the handle intact: it holds a descriptor and no state.
        let mut agents = self.agents.lock();
        agents.insert(cgroup_id, entry, 0).map_err(KernelError::map("write", names::AGENTS))?;
        let mut taken = self.taken.lock();
        match taken.insert(cgroup_id, 0, BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::AlreadyExists => Ok(()),
            inserted => inserted.map_err(KernelError::map("write", names::TAKEN)),
        }
    }

    /// Removes an agent from the kernel's map. Its connections are still redirected, and its DNS is refused. It is no
    /// error if the id is unknown.
    pub fn remove_agent(&self, cgroup_id: u64) -> Result<(), KernelError> {
        forget(&self.agents, names::AGENTS, cgroup_id)?;
        forget(&self.taken, names::TAKEN, cgroup_id)
    }

    /// Returns the kernel's counters by name, summed over the CPUs. Each counts since the maps were first pinned. Those
    /// of accepted connections count since this was opened.
    pub fn stats(&self) -> Result<Vec<(&'static str, u64)>, KernelError> {
        let mut stats = Vec::with_capacity(Stat::COUNT + 2);
        for stat in Stat::ALL {
            stats.push((stat.name(), self.stat(stat)?));
        }
        stats.push(("connections_identified", self.identified.load(Ordering::Relaxed)));
        stats.push(("connections_unidentified", self.unidentified.load(Ordering::Relaxed)));
        Ok(stats)
    }

    /// Returns one counter, summed over the CPUs.
    pub(super) fn stat(&self, stat: Stat) -> Result<u64, KernelError> {
        let values = self.stats.get(&(stat as u32), 0).map_err(KernelError::map("read", names::STATS))?;
        Ok(values.iter().sum())
    }

    /// Returns the refusals, for the one task that reads them; `None` if they were taken already. Call it inside a
    /// tokio runtime.
    pub fn take_denials(&self) -> Result<Option<Denials>, KernelError> {
        let mut denials = self.denials.lock();
        denials.take().map(Denials::new).transpose()
    }

    /// Returns the programs' log, for the one task that reads it. `None` if it is off, was taken, or belongs to another
    /// process that attached the programs.
    pub fn take_log(&self) -> Option<KernelLog> {
        self.log.lock().take()
    }
}

/// Opens the pinned maps of a [`Redirect`], for a process that cannot open them: see [`Redirect::adopt`].
pub fn open_maps(bpffs_dir: &Path) -> Result<Vec<OwnedFd>, KernelError> {
    let pins = Pins::below(bpffs_dir);
    let open = |name: &&'static str| {
        let map = MapData::from_pin(pins.map(name)).map_err(KernelError::map("open pinned", name))?;
        map.fd().as_fd().try_clone_to_owned().map_err(KernelError::bpffs("open", pins.map(name)))
    };
    MAPS.iter().map(open).collect()
}

/// Removes an entry that may be gone already.
fn forget<V: aya::Pod>(
    map: &Mutex<HashMap<MapData, u64, V>>,
    name: &'static str,
    cgroup_id: u64,
) -> Result<(), KernelError> {
    match map.lock().remove(&cgroup_id) {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(KernelError::map("write", name)),
    }
}

/// Returns the key of the record for a connection that began with `syn`.
fn key(syn: &Syn, netns: u64) -> TupleKey {
    TupleKey {
        netns,
        client_addr: syn.from,
        server_addr: syn.to,
        client_port: u32::from(syn.from_port),
        server_port: u32::from(syn.to_port),
        isn: syn.seq,
        drawn: syn.drawn,
    }
}

/// Decodes a record, and rejects one that OneCLI's programs cannot have written.
fn flow(ident: &Ident) -> Result<Flow, KernelError> {
    let corrupt = |what| KernelError::Corrupt { map: names::TUP, what };
    if ident.flags & IdentFlags::REDIRECTED == 0 {
        return Err(corrupt("the connection was not redirected"));
    }
    if ident.agent_cgid == 0 {
        return Err(corrupt("it names no agent"));
    }
    let (pid, _thread) = halves(ident.pid_tgid);
    let (gid, uid) = halves(ident.uid_gid);
    Ok(Flow {
        original_destination: address(ident.orig_addr, ident.orig_port),
        agent_cgroup_id: ident.agent_cgid,
        current_cgroup_id: ident.current_cgid,
        netns_cookie: ident.netns,
        uid,
        gid,
        pid,
        comm: comm(&ident.comm),
        socket_cookie: ident.sock_cookie,
    })
}
