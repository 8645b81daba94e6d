//! Maps and the globals the loader sets. Names, sizes and layouts are those of `onecli_common`.

use core::ptr;

use aya_ebpf::{
    Global,
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
    },
    btf_maps::{HashMap, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    cty::c_void,
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use onecli_common::{
    AgentEntry, Deny, Ident, Stat, TupleKey, Waiting,
    names::{AGENTS_ENTRIES, DENY_BYTES, RESERVED_PORTS_COUNT, STAMP, TUP_ENTRIES},
};

#[btf_map]
pub(crate) static SOCKETS: SkStorage<Ident> = SkStorage::new();
#[btf_map]
pub(crate) static BORN: Inherited<u64> = Inherited::new();
#[btf_map]
pub(crate) static TUP: LruHashMap<TupleKey, Ident, TUP_ENTRIES> = LruHashMap::new();
#[btf_map]
pub(crate) static AGENTS: HashMap<u64, AgentEntry, AGENTS_ENTRIES> = HashMap::new();
#[btf_map]
pub(crate) static WAITING: LruHashMap<u64, Waiting, AGENTS_ENTRIES> = LruHashMap::new();
#[btf_map]
pub(crate) static TAKEN: HashMap<u64, u64, AGENTS_ENTRIES> = HashMap::new();
#[btf_map]
pub(crate) static STATS13: PerCpuArray<u64, { Stat::COUNT }> = PerCpuArray::new();
#[btf_map]
pub(crate) static DENY: RingBuf<Deny, DENY_BYTES> = RingBuf::new();
/// The number of recent refusals reported per agent. It matters to one load of the programs only, so it is not pinned.
#[btf_map]
pub(crate) static TOLD: LruHashMap<u64, Told, AGENTS_ENTRIES> = LruHashMap::new();
#[btf_map]
pub(crate) static LISTENERS: SkStorage<u32> = SkStorage::new();

/// Level of the agents' cgroups; the root of cgroup2 is 0. The default matches no agent.
#[unsafe(no_mangle)]
pub(crate) static AGENT_LEVEL: Global<u32> = Global::new(u32::MAX >> 1);
/// Cgroup id of the agents root. The default is no cgroup's id.
#[unsafe(no_mangle)]
pub(crate) static AGENTS_ROOT: Global<u64> = Global::new(u64::MAX);
/// Cookie of the daemon's own network namespace. The default matches every namespace: nothing is held back.
#[unsafe(no_mangle)]
pub(crate) static HOME_NETNS: Global<u64> = Global::new(0);
/// Offset of `sk_kern_sock` in `struct sock`, bits.
#[unsafe(no_mangle)]
pub(crate) static KERN_SOCK: Global<u32> = Global::new(0);
/// Offset of `sk_allocation` in `struct sock`, bits.
#[unsafe(no_mangle)]
pub(crate) static ALLOCATION: Global<u32> = Global::new(0);
/// Port of the transparent listener, host byte order.
#[unsafe(no_mangle)]
pub(crate) static TRANSPARENT_PORT: Global<u32> = Global::new(0);
/// Port of the agents' resolver, host byte order.
#[unsafe(no_mangle)]
pub(crate) static RESOLVER_PORT: Global<u32> = Global::new(0);
/// Ports that no managed process may bind, host byte order; 0 for unused entries.
#[unsafe(no_mangle)]
pub(crate) static RESERVED_PORTS: Global<[u16; RESERVED_PORTS_COUNT]> =
    Global::new([0; RESERVED_PORTS_COUNT]);

/// Reported refusals of one agent; the key is the agent's cgroup id.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Told {
    /// Start of the current second, nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) ktime: u64,
    /// Refusals reported since then.
    pub(crate) number: u64,
}

/// Socket storage that an accepted socket inherits from its listener (`BPF_F_CLONE`). Kernel 5.2.
///
/// aya's `SkStorage` has fixed flags. The layout is the one that loaders expect of a map (`repr(C)`: in this order).
#[repr(C)]
pub(crate) struct Inherited<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: a description for the loader; the pointers are null and never followed.
unsafe impl<T> Sync for Inherited<T> {}

impl<T> Inherited<T> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

/// Records the cgroup in which a new socket is created. Returns `false` if there is no memory.
///
/// # Safety
///
/// As for [`record`].
#[inline(always)]
pub(crate) unsafe fn bear(sk: *mut c_void, agent_cgid: u64) -> bool {
    let map = ptr::from_ref(&BORN).cast_mut().cast();
    // SAFETY: the caller vouches for `sk`; the helper returns null or a value that stays valid until the program ends.
    let born = unsafe {
        bpf_sk_storage_get(map, sk, ptr::null_mut(), u64::from(BPF_SK_STORAGE_GET_F_CREATE)).cast::<u64>().as_mut()
    };
    born.map(|born| *born = agent_cgid).is_some()
}

/// Returns the agent's cgroup in which a socket, or the listener that accepted it, was created.
///
/// # Safety
///
/// As for [`record`].
#[inline(always)]
pub(crate) unsafe fn born_in(sk: *mut c_void) -> Option<u64> {
    let map = ptr::from_ref(&BORN).cast_mut().cast();
    // SAFETY: as above.
    unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), 0).cast::<u64>().as_ref() }.copied()
}

/// The action for a socket that has no record in a map.
pub(crate) enum Absent {
    /// Return no record.
    Leave,
    /// Create a record of zeroes.
    Zero,
}

/// Returns the record of socket `sk` in `map`.
///
/// aya's own `SkStorage` methods accept only a `SockAddrContext`.
///
/// # Safety
///
/// `sk` is a socket the verifier knows: the context of `sock_create`, or the checked `sk` field of another context.
#[inline(always)]
pub(crate) unsafe fn record<'a>(
    map: &SkStorage<Ident>,
    sk: *mut c_void,
    absent: Absent,
) -> Option<&'a mut Ident> {
    const CREATE: u64 = BPF_SK_STORAGE_GET_F_CREATE as u64;
    let map = ptr::from_ref(map).cast_mut().cast();
    let flags = match absent {
        Absent::Leave => 0,
        Absent::Zero => CREATE,
    };
    // SAFETY: the caller vouches for `sk`. The helper returns null or a value that stays
    // valid until the program ends.
    unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), flags).cast::<Ident>().as_mut() }
}

/// Whether socket `sk` has the daemon's stamp.
///
/// # Safety
///
/// As for [`record`].
#[inline(always)]
pub(crate) unsafe fn stamped(sk: *mut c_void) -> bool {
    let map = ptr::from_ref(&LISTENERS).cast_mut().cast();
    // SAFETY: the caller vouches for `sk`; the helper returns null or a value that stays valid until the program ends.
    let stamp = unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), 0).cast::<u32>().as_ref() };
    stamp.is_some_and(|&stamp| stamp == STAMP)
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(stat: Stat) {
    if let Some(value) = STATS13.get_ptr_mut(stat as u32) {
        // SAFETY: the slot belongs to this CPU, and programs do not interleave within it: migration is disabled while
        // they run. A nested run may lose an increment, which is acceptable for a statistic.
        unsafe { *value += 1 }
    }
}
