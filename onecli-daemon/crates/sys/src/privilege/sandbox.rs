//! The system call filters of the daemon's processes.

use super::process::only_thread;
use super::{Filter, PrivilegeError, Verdict};

/// Installs a filter on the serving process. An attacker who takes the process over cannot execute another program,
/// inspect other processes, change its view of the file system or the network, or use bpf(2) except to read and write
/// maps.
///
/// uid 0 without capabilities may still open pinned links and programs with `bpf(2)`; the filter allows no command for
/// that. No filter can check a path; `kernel` describes where the pins are stored.
///
/// # Errors
/// [`PrivilegeError::Threads`], [`PrivilegeError::Process`].
pub fn filter_serving() -> Result<(), PrivilegeError> {
    only_thread()?;
    let failed = |source| PrivilegeError::Process { step: "prctl(PR_SET_SECCOMP)", source };
    serving().install().map_err(failed)
}

/// Commands of bpf(2), `enum bpf_cmd`: look up, update, delete an element.
const MAP_COMMANDS: [u32; 3] = [1, 2, 3];

/// Flags of clone(2) for namespaces (`CLONE_NEW*`).
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// System calls that a server of connections does not need, but an attacker in its process does.
const NEEDLESS: [libc::c_long; 34] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_personality,
];

/// System calls that execute another program.
const EXEC: [libc::c_long; 2] = [libc::SYS_execve, libc::SYS_execveat];

fn serving() -> Filter {
    let refused = Verdict::Refuse(libc::EPERM);
    needless()
        .where_is_not(libc::SYS_bpf, 0, &MAP_COMMANDS, refused)
        .always(&EXEC, refused)
        .otherwise(Verdict::Allow)
}

/// Installs a filter on the process that runs commands, and so on the commands. They may be any program of the host.
/// Only calls that serve to escape from an unprivileged user are refused.
///
/// # Errors
/// [`PrivilegeError::Threads`], [`PrivilegeError::Process`].
pub fn filter_executor() -> Result<(), PrivilegeError> {
    only_thread()?;
    let failed = |source| PrivilegeError::Process { step: "prctl(PR_SET_SECCOMP)", source };
    executor().install().map_err(failed)
}

fn executor() -> Filter {
    needless().always(&[libc::SYS_bpf], Verdict::Refuse(libc::EPERM)).otherwise(Verdict::Allow)
}

fn needless() -> Filter {
    let refused = Verdict::Refuse(libc::EPERM);
    Filter::new()
        .always(&NEEDLESS, refused)
        .where_any_bit(libc::SYS_clone, 0, NEW_NAMESPACES, refused)
        // The flags of clone3(2) are behind a pointer. C libraries fall back to clone(2).
        .always(&[libc::SYS_clone3], Verdict::Refuse(libc::ENOSYS))
}

/// Installs a filter on the helper. It allows only calls that open sockets in other network namespaces and query links.
///
/// # Errors
/// [`PrivilegeError::Threads`], [`PrivilegeError::Process`].
pub fn filter_helper() -> Result<(), PrivilegeError> {
    only_thread()?;
    let failed = |source| PrivilegeError::Process { step: "prctl(PR_SET_SECCOMP)", source };
    helper().install().map_err(failed)
}

/// Commands of bpf(2): `BPF_OBJ_GET`, `BPF_OBJ_GET_INFO_BY_FD`.
const LINK_COMMANDS: [u32; 2] = [7, 15];

/// System calls that the helper's work needs.
const HELPFUL: [libc::c_long; 23] = [
    // Messages and the log; a service waits for daemons.
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_write,
    libc::SYS_close,
    // Cgroups and processes.
    libc::SYS_openat,
    libc::SYS_read,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    // Namespaces and sockets.
    libc::SYS_setns,
    libc::SYS_bind,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    // The time, for the log, on systems that read it with a system call.
    libc::SYS_clock_gettime,
    libc::SYS_ioctl,
];

/// System calls that every Rust program needs: memory, locks, randomness for hash maps, exit.
const ORDINARY: [libc::c_long; 15] = [
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// `PROT_EXEC` of mmap(2): the process cannot add code.
const EXECUTABLE: u32 = libc::PROT_EXEC.cast_unsigned();

fn helper() -> Filter {
    let refused = Verdict::Refuse(libc::EPERM);
    let families = [libc::AF_INET.cast_unsigned(), libc::AF_INET6.cast_unsigned()];
    Filter::new()
        .where_any_bit(libc::SYS_mmap, 2, EXECUTABLE, refused)
        .where_is(libc::SYS_bpf, 0, &LINK_COMMANDS, Verdict::Allow)
        .where_is(libc::SYS_socket, 0, &families, Verdict::Allow)
        .always(&HELPFUL, Verdict::Allow)
        .always(&ORDINARY, Verdict::Allow)
        .otherwise(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privilege::filter::testing::{NATIVE, verdict};

    #[test]
    fn serving_filter_allows_maps_and_threads_and_refuses_escapes() {
        let refused = Verdict::Refuse(libc::EPERM);
        // pthread_create(3) of glibc 2.36, and fork(2).
        let (thread, fork) = (0x003d_0f00, 17);
        let cases = [
            (libc::SYS_bpf, 1, Verdict::Allow),
            (libc::SYS_bpf, 2, Verdict::Allow),
            (libc::SYS_bpf, 3, Verdict::Allow),
            // BPF_MAP_CREATE, _PROG_LOAD, _OBJ_PIN, _OBJ_GET, _PROG_DETACH, _LINK_UPDATE, _LINK_DETACH.
            (libc::SYS_bpf, 0, refused),
            (libc::SYS_bpf, 5, refused),
            (libc::SYS_bpf, 6, refused),
            (libc::SYS_bpf, 7, refused),
            (libc::SYS_bpf, 9, refused),
            (libc::SYS_bpf, 29, refused),
            (libc::SYS_bpf, 34, refused),
            (libc::SYS_bpf, 1 << 32 | 7, refused),
            (libc::SYS_clone, thread, Verdict::Allow),
            (libc::SYS_clone, fork, Verdict::Allow),
            (libc::SYS_clone, u64::from(libc::CLONE_NEWUSER.cast_unsigned()), refused),
            (libc::SYS_clone, u64::from(libc::CLONE_NEWNS.cast_unsigned()), refused),
            (libc::SYS_clone3, 0, Verdict::Refuse(libc::ENOSYS)),
            (libc::SYS_unshare, 0, refused),
            (libc::SYS_execve, 0, refused),
            (libc::SYS_accept4, 0, Verdict::Allow),
            (libc::SYS_openat, 0, Verdict::Allow),
        ];
        for (call, first, expected) in cases {
            assert_eq!(verdict(&serving(), NATIVE, call, [first, 0, 0]), expected, "{call} {first}");
        }
    }

    #[test]
    fn executor_filter_allows_ordinary_programs_and_refuses_escapes() {
        let refused = Verdict::Refuse(libc::EPERM);
        for (call, first, expected) in [
            (libc::SYS_execve, 0, Verdict::Allow),
            (libc::SYS_clone, 17, Verdict::Allow),
            (libc::SYS_socket, 2, Verdict::Allow),
            (libc::SYS_bpf, 1, refused),
            (libc::SYS_ptrace, 0, refused),
            (libc::SYS_unshare, 0, refused),
            (libc::SYS_clone, u64::from(libc::CLONE_NEWUSER.cast_unsigned()), refused),
            (libc::SYS_clone3, 0, Verdict::Refuse(libc::ENOSYS)),
            (libc::SYS_mount, 0, refused),
            (libc::SYS_keyctl, 0, refused),
        ] {
            assert_eq!(verdict(&executor(), NATIVE, call, [first, 0, 0]), expected, "{call} {first}");
        }
    }
}
