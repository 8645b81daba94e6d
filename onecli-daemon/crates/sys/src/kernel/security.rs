//! The BPF LSM: detects whether this kernel runs its programs, and attaches them.
#![allow(unsafe_code, reason = "lsm_list_modules(2) has no safe binding")]

use std::{error::Error, fs, io, sync::OnceLock};

use aya::{
    Btf,
    programs::{Lsm, links::FdLink},
};

use super::btf::Kernel;

/// The list of active security modules, if securityfs is mounted, which systemd does.
const LIST: &str = "/sys/kernel/security/lsm";
/// `LSM_ID_BPF` of linux/lsm.h.
const LSM_ID_BPF: u64 = 109;
/// `lsm_list_modules(2)`: the same number on every architecture. Linux 6.8.
const LSM_LIST_MODULES: libc::c_long = 461;

/// Whether programs of the BPF LSM run. They can be attached to a kernel that never calls them: `bpf` must be in its
/// list of security modules, which the boot parameter `lsm=` sets. False if neither the list nor the system call is
/// available.
///
/// Determined once: it does not change while the kernel runs, and the helper's filter does not allow the call.
pub(super) fn is_active() -> bool {
    static ACTIVE: OnceLock<bool> = OnceLock::new();
    *ACTIVE.get_or_init(|| match fs::read_to_string(LIST) {
        Ok(list) => list.trim().split(',').any(|name| name == "bpf"),
        Err(_) => listed().is_ok_and(|modules| modules.contains(&LSM_ID_BPF)),
    })
}

/// Returns ids of the active security modules.
fn listed() -> io::Result<Vec<u64>> {
    /// More than exist.
    const ROOM: usize = 64;
    let mut modules = vec![0_u64; ROOM];
    let mut bytes = u32::try_from(size_of_val(modules.as_slice())).map_err(io::Error::other)?;
    // SAFETY: the call writes at most `bytes` bytes to `modules`, and their number to `bytes`.
    let count = unsafe { libc::syscall(LSM_LIST_MODULES, modules.as_mut_ptr(), &raw mut bytes, 0) };
    modules.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
    Ok(modules)
}

/// The kernel's type information that loading such programs requires. Read at attach, and dropped afterwards.
pub(super) struct Security {
    types: Btf,
    marks: (u32, u32),
}

impl Security {
    /// Returns `None` if the kernel runs no such program, or does not show which sockets are its own: a refusal could
    /// then hit the kernel's sockets.
    pub(super) fn of_kernel() -> Option<Self> {
        if !is_active() {
            return None;
        }
        let kernel = Kernel::read().ok()?;
        let marks = (kernel.bit_offset("sock", "sk_kern_sock")?, kernel.bit_offset("sock", "sk_allocation")?);
        Some(Self { types: Btf::from_sys_fs().ok()?, marks })
    }

    /// Returns the offsets of `sk_kern_sock` and `sk_allocation` in `struct sock`, bits.
    pub(super) fn marks(&self) -> (u32, u32) {
        self.marks
    }

    /// Passes a program to the verifier, as one for `hook` of the kernel's list of security hooks.
    pub(super) fn verify(&self, program: &mut Lsm, hook: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(program.load(hook, &self.types)?)
    }
}

/// Attaches a program, and returns its link.
pub(super) fn link_program(program: &mut Lsm) -> Result<FdLink, Box<dyn Error + Send + Sync>> {
    let id = program.attach()?;
    Ok(program.take_link(id)?.into())
}
