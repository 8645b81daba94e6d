//! bpf(2) calls on pinned links and other attachments of cgroup programs, which aya does not offer.
#![allow(unsafe_code, reason = "bpf(2) has no safe binding for these commands")]

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

// Commands of bpf(2), `enum bpf_cmd` of linux/bpf.h.
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `BPF_LINK_TYPE_TRACING`, which includes links of the BPF LSM.
const LINK_TYPE_TRACING: u32 = 2;
/// `BPF_LINK_TYPE_CGROUP`.
const LINK_TYPE_CGROUP: u32 = 3;

/// The object to which a link attaches its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The cgroup with this id; 0 once it is removed, which leaves the link defunct.
    Cgroup(u64),
    /// A function of the kernel, for the whole machine.
    Kernel,
}

/// The kernel's information about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Id of the attached program.
    pub(super) program_id: u32,
    /// The object that it is attached to.
    pub(super) target: Target,
    /// `enum bpf_attach_type`.
    pub(super) attach_type: u32,
}

/// Opens a pinned link. Kernel 5.7.
pub(super) fn open(pin: &Path) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that `BPF_OBJ_*` reads.
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attr = Attr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: `attr` is what the command reads, and `path` lives until after the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Queries a link. Returns an error of kind `InvalidInput` if its target is neither a cgroup nor a function of the
/// kernel.
pub(super) fn info(link: &impl AsFd) -> io::Result<LinkInfo> {
    /// `struct bpf_link_info`, with the part of its variants that both link types need.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        link_type: u32,
        id: u32,
        prog_id: u32,
        hole: u32,
        /// `cgroup`: the cgroup's id, and the attach type. `tracing`: the attach type, and the type of the target.
        variant: [u32; 4],
    }
    /// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut attr = Attr {
        bpf_fd: link.as_fd().as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(mem::size_of::<Info>()).unwrap_or(0),
        info: (&raw mut info) as u64,
    };
    // SAFETY: `attr` is what the command reads; the kernel writes at most `info_len` bytes to `info`.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let [first, second, third, _] = info.variant;
    let (target, attach_type) = match info.link_type {
        LINK_TYPE_CGROUP => {
            // Little-endian, as the programs are.
            (Target::Cgroup(u64::from(first) | u64::from(second) << 32), third)
        }
        LINK_TYPE_TRACING => (Target::Kernel, first),
        other => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a link of type {other}, which belongs to no cgroup"),
            ));
        }
    };
    Ok(LinkInfo { program_id: info.prog_id, target, attach_type })
}

/// Replaces the program of a link atomically: the old or the new one runs at every moment. Kernel 5.7.
///
/// The kernel checks the program's type but not its attach type: it would run a connect4 program at connect6. The
/// caller compares [`LinkInfo::attach_type`].
pub(super) fn update(link: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    /// The part of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr {
        link_fd: link.as_fd().as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_fd().as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: `attr` is what the command reads; both descriptors are open for the duration of the call.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }?;
    Ok(())
}

/// Ends a link's effect before it returns. Removing its pin also does so, but some time later. Kernel 5.9.
pub(super) fn detach(link: &impl AsFd) -> io::Result<()> {
    let mut link_fd = link.as_fd().as_raw_fd().cast_unsigned();
    // SAFETY: the command reads one descriptor, which is open for the duration of the call.
    unsafe { bpf(BPF_LINK_DETACH, &mut link_fd) }?;
    Ok(())
}

/// The attachments at one hook of one cgroup, without ancestors and descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// No program.
    Nothing,
    /// Programs that allow others beside them, as links always do.
    Shared,
    /// A program that a descendant's replaces (`BPF_F_ALLOW_OVERRIDE`).
    Overridable,
    /// A program that excludes others.
    Exclusive,
}

/// Returns id and tag of every program in the kernel. The tag is a digest of its instructions, without maps and
/// globals. Programs that cannot be queried are left out.
pub(super) fn program_tags() -> Vec<(u32, u64)> {
    aya::programs::loaded_programs().flatten().map(|program| (program.id(), program.tag())).collect()
}

/// Queries the attachments of a cgroup, by links or by `BPF_PROG_ATTACH`. Kernel 4.15.
pub(super) fn attached(cgroup: &impl AsFd, attach_type: u32) -> io::Result<Sharing> {
    /// `BPF_F_ALLOW_OVERRIDE`.
    const ALLOW_OVERRIDE: u32 = 1;
    /// `BPF_F_ALLOW_MULTI`.
    const ALLOW_MULTI: u32 = 2;
    /// The part of `union bpf_attr` that `BPF_PROG_QUERY` reads and writes. It is complete, because the kernel writes
    /// without checking its size (`revision`, since 6.17).
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        hole: u32,
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let target_fd = cgroup.as_fd().as_raw_fd().cast_unsigned();
    let mut attr = Attr { target_fd, attach_type, ..Attr::default() };
    // SAFETY: `attr` is what the command reads and writes; without room for ids it returns their number.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    Ok(match attr.attach_flags {
        _ if attr.prog_cnt == 0 => Sharing::Nothing,
        flags if flags & ALLOW_MULTI != 0 => Sharing::Shared,
        flags if flags & ALLOW_OVERRIDE != 0 => Sharing::Overridable,
        _ => Sharing::Exclusive,
    })
}

/// Calls bpf(2). Fields of `union bpf_attr` beyond `T` count as zero.
///
/// # Safety
///
/// `T` is `repr(C)` or an integer, has the layout that `command` reads, and its pointers are valid for it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: by the caller's guarantee, and `attr` has the given size.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), mem::size_of::<T>()) };
    libc::c_int::try_from(result).ok().filter(|&result| result >= 0).ok_or_else(io::Error::last_os_error)
}
