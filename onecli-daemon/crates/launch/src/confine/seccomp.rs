//! A system call filter that closes the ways around the cgroup hooks.
//!
//! The hooks see IPv4 and IPv6 sockets. Families that they do not see (packet, vsock, XDP, ...) cannot be opened:
//! `socket(2)` is limited to unix, IPv4, IPv6 and netlink. `io_uring` opens sockets without a separate system call
//! (`IORING_OP_SOCKET`, Linux 5.19). It fails as on a kernel without it, which programs handle.
//!
//! Two services of the kernel send data of a process to the network without a socket of the process. Joining a
//! multicast group announces the group's address (IGMP, MLD). `request_key(2)` makes a helper outside the cgroup query
//! DNS for a name (keyutils' `dns_resolver`). Groups cannot be joined. Keys fail as on a kernel without them, which
//! also hides the session keyring of the user who started the agent.
//!
//! In a directory that is mapped to the agent, its files belong to the caller outside: one with the set-user-ID bit
//! would run with the caller's rights. The bits cannot be set. `openat2(2)`, whose mode a filter cannot see, fails as
//! on a kernel without it. Extended attributes cannot be set either, because file capabilities are one of them: the
//! call fails as on a file system without any, which programs handle. A snapshot of Btrfs would copy a file of the
//! owner with its bit.
//!
//! `TIOCSTI` and `TIOCLINUX` type into the terminal that the agent shares with the user who started it. That input runs
//! with the user's rights once the agent has ended.

use onecli_sys::privilege::{Filter, Verdict};

use crate::error::LaunchError;

const FAMILIES: [u32; 4] = [
    libc::AF_UNIX.cast_unsigned(),
    libc::AF_INET.cast_unsigned(),
    libc::AF_INET6.cast_unsigned(),
    libc::AF_NETLINK.cast_unsigned(),
];

/// asm-generic/ioctls.h, the same on the supported architectures.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

/// linux/in.h, linux/in6.h: the options that join a group, by level. The last two of each are the same
/// (`MCAST_JOIN_GROUP`, `MCAST_JOIN_SOURCE_GROUP`), and libc does not name them.
const JOINS: [(u32, [u32; 4]); 2] = [
    (
        libc::IPPROTO_IP.cast_unsigned(),
        [libc::IP_ADD_MEMBERSHIP.cast_unsigned(), libc::IP_ADD_SOURCE_MEMBERSHIP.cast_unsigned(), 42, 46],
    ),
    (
        libc::IPPROTO_IPV6.cast_unsigned(),
        [libc::IPV6_ADD_MEMBERSHIP.cast_unsigned(), IPV6_JOIN_ANYCAST, 42, 46],
    ),
];
const IPV6_JOIN_ANYCAST: u32 = 27;

/// linux/stat.h: set-user-ID, set-group-ID.
const SET_ID: u32 = 0o6000;
/// Calls that set the mode of a file, and the index of that argument.
const MODES: &[(libc::c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (SYS_FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
];
/// The number is the same on every architecture (Linux 6.6); the libc crate does not name it on all.
const SYS_FCHMODAT2: libc::c_long = 452;
/// open(2) reads the mode only with a flag that may create a file.
const MAKES: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)).cast_unsigned();
/// Calls that open a file, and the indexes of flags and mode.
const OPENS: &[(libc::c_long, u8, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, 2),
    (libc::SYS_openat, 2, 3),
    // Its files are in a file system that overlayfs accepts as a layer (mqueue).
    (libc::SYS_mq_open, 1, 2),
];

/// Calls that set an extended attribute. `security.capability` is one (capabilities(7)), and a filter cannot read
/// names.
const SET_ATTRIBUTES: [libc::c_long; 4] =
    [libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr, SYS_SETXATTRAT];
/// The number is the same on every architecture (Linux 6.13); the libc crate does not name it on all.
const SYS_SETXATTRAT: libc::c_long = 463;
/// linux/btrfs.h: `BTRFS_IOC_SNAP_CREATE`, `BTRFS_IOC_SNAP_CREATE_V2`.
const SNAPSHOTS: [u32; 2] = [0x5000_9401, 0x5000_9417];

/// Builds the filter.
fn filter() -> Filter {
    let not_permitted = Verdict::Refuse(libc::EPERM);
    let modes = MODES
        .iter()
        .fold(base(), |filter, &(call, mode)| filter.where_any_bit(call, mode, SET_ID, not_permitted));
    let opens = OPENS.iter().fold(modes, |filter, &(call, flags, mode)| {
        filter.where_bits_of_both(call, (flags, MAKES), (mode, SET_ID), not_permitted)
    });
    opens
        .always(&[libc::SYS_openat2], Verdict::Refuse(libc::ENOSYS))
        .always(&SET_ATTRIBUTES, Verdict::Refuse(libc::EOPNOTSUPP))
        .where_is(libc::SYS_ioctl, 1, &SNAPSHOTS, Verdict::Refuse(libc::ENOTTY))
        .otherwise(Verdict::Allow)
}

fn base() -> Filter {
    let no_family = Verdict::Refuse(libc::EAFNOSUPPORT);
    Filter::new()
        .always(&[libc::SYS_io_uring_setup], Verdict::Refuse(libc::ENOSYS))
        .always(&[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl], Verdict::Refuse(libc::ENOSYS))
        .where_both(libc::SYS_setsockopt, (1, JOINS[0].0), (2, &JOINS[0].1), Verdict::Refuse(libc::EPERM))
        .where_both(libc::SYS_setsockopt, (1, JOINS[1].0), (2, &JOINS[1].1), Verdict::Refuse(libc::EPERM))
        .where_is(libc::SYS_ioctl, 1, &[TIOCSTI, TIOCLINUX], Verdict::Refuse(libc::EPERM))
        .where_is_not(libc::SYS_socket, 0, &FAMILIES, no_family)
        .where_is_not(libc::SYS_socketpair, 0, &FAMILIES, no_family)
}

/// Installs the filter on this thread, which must be the process's only one. It holds for every later program of the
/// process.
pub(crate) fn install() -> Result<(), LaunchError> {
    filter().install().map_err(|source| LaunchError::Confine { step: "prctl(PR_SET_SECCOMP)", source })
}

#[cfg(test)]
mod tests {
    use onecli_sys::privilege::filter::testing::{I386, NATIVE, verdict};

    use super::*;

    fn run(call: libc::c_long, args: [u64; 2]) -> Verdict {
        verdict(&filter(), NATIVE, call, [args[0], args[1], 0])
    }

    #[test]
    fn only_families_that_the_hooks_see_are_allowed() {
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
                let family = u64::from(family.cast_unsigned());
                assert_eq!(run(call, [family, 0]), Verdict::Allow, "{family}");
                // The kernel reads an int: the upper half does not make another family of it.
                assert_eq!(run(call, [family | 1 << 32, 0]), Verdict::Allow, "{family}");
            }
            for family in
                [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_XDP, libc::AF_ALG, libc::AF_BLUETOOTH, 0, -1]
            {
                let asked = [u64::from(family.cast_unsigned()), 0];
                assert_eq!(run(call, asked), Verdict::Refuse(libc::EAFNOSUPPORT), "{family}");
            }
        }
    }

    #[test]
    fn io_uring_and_i386_sockets_are_refused() {
        assert_eq!(run(libc::SYS_io_uring_setup, [0, 0]), Verdict::Refuse(libc::ENOSYS));
        assert_eq!(verdict(&filter(), I386, 102, [0, 0, 0]), Verdict::Kill);
    }

    #[test]
    fn typing_into_the_terminal_is_refused() {
        for request in [TIOCSTI, TIOCLINUX] {
            let refused = Verdict::Refuse(libc::EPERM);
            assert_eq!(run(libc::SYS_ioctl, [0, u64::from(request)]), refused);
            assert_eq!(run(libc::SYS_ioctl, [0, u64::from(request) | 1 << 32]), refused);
        }
        assert_eq!(run(libc::SYS_ioctl, [0, libc::TIOCGWINSZ]), Verdict::Allow);
    }

    #[test]
    fn keys_and_multicast_joins_are_refused() {
        for call in [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl] {
            assert_eq!(run(call, [0, 0]), Verdict::Refuse(libc::ENOSYS));
        }
        let set = |level: u32, option: u32| {
            let [level, option] = [level, option].map(u64::from);
            verdict(&filter(), NATIVE, libc::SYS_setsockopt, [0, level | 1 << 32, option | 1 << 32])
        };
        for (level, options) in JOINS {
            for option in options {
                assert_eq!(set(level, option), Verdict::Refuse(libc::EPERM), "{level} {option}");
                // The same number at another level is another option.
                assert_eq!(set(libc::SOL_SOCKET.cast_unsigned(), option), Verdict::Allow, "{option}");
                assert_eq!(set(libc::IPPROTO_TCP.cast_unsigned(), option), Verdict::Allow, "{option}");
            }
            assert_eq!(set(level, libc::IP_TTL.cast_unsigned()), Verdict::Allow);
        }
    }

    #[test]
    fn set_id_bits_and_attributes_are_refused() {
        let refused = Verdict::Refuse(libc::EPERM);
        let ask = |call: libc::c_long, at: u8, value: u32| {
            let mut args = [0; 4];
            args[usize::from(at)] = u64::from(value);
            verdict(&filter(), NATIVE, call, args)
        };
        for &(call, at) in MODES {
            for (mode, expected) in [
                (0o4755, refused),
                (0o2755, refused),
                (0o6000, refused),
                (0o1777, Verdict::Allow),
                (0o755, Verdict::Allow),
            ] {
                assert_eq!(ask(call, at, mode), expected, "{call} {mode:o}");
            }
        }
        let open = |flags: i32, mode: u32| {
            let args = [0, 0, u64::from(flags.cast_unsigned()), u64::from(mode)];
            verdict(&filter(), NATIVE, libc::SYS_openat, args)
        };
        assert_eq!(open(libc::O_CREAT | libc::O_WRONLY, 0o4755), refused);
        assert_eq!(open(libc::O_TMPFILE | libc::O_RDWR, 0o2755), refused);
        assert_eq!(open(libc::O_CREAT, 0o644), Verdict::Allow);
        let queue = |mode: u32| {
            let args = [0, u64::from(libc::O_CREAT.cast_unsigned()), u64::from(mode), 0];
            verdict(&filter(), NATIVE, libc::SYS_mq_open, args)
        };
        assert_eq!((queue(0o4700), queue(0o2700), queue(0o600)), (refused, refused, Verdict::Allow));
        for call in SET_ATTRIBUTES {
            assert_eq!(run(call, [0, 0]), Verdict::Refuse(libc::EOPNOTSUPP));
        }
        assert_eq!(run(libc::SYS_getxattr, [0, 0]), Verdict::Allow);
        for snapshot in SNAPSHOTS {
            assert_eq!(run(libc::SYS_ioctl, [0, u64::from(snapshot)]), Verdict::Refuse(libc::ENOTTY));
        }
        // The mode is ignored if no file is created.
        assert_eq!(open(libc::O_RDONLY | libc::O_DIRECTORY, 0o6777), Verdict::Allow);
        assert_eq!(run(libc::SYS_openat2, [0, 0]), Verdict::Refuse(libc::ENOSYS));
    }

    #[test]
    fn other_calls_are_allowed() {
        for call in
            [libc::SYS_read, libc::SYS_connect, libc::SYS_clone, libc::SYS_execve, libc::SYS_exit_group]
        {
            assert_eq!(run(call, [17, u64::from(TIOCSTI)]), Verdict::Allow);
        }
    }
}
