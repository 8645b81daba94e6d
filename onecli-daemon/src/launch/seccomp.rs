//! A system call filter that closes the ways around the cgroup hooks.
//!
//! The hooks see IPv4 and IPv6 sockets. Families that they do not see (packet, vsock, XDP, ...) cannot be opened:
//! `socket(2)` is limited to unix, IPv4, IPv6 and netlink. `io_uring` opens sockets without a system call of their
//! own (`IORING_OP_SOCKET`, Linux 5.19) and is refused as if the kernel had none, which programs are ready for.
//! Other calling conventions number their calls differently: x32 is answered like a kernel without x32, foreign
//! architectures (32-bit programs) are killed.
//!
//! Two services of the kernel say on the wire what a process tells them, by no socket of its own: joining a multicast
//! group announces the group's address (IGMP, MLD), and `request_key(2)` has a helper outside the cgroup ask DNS for a
//! name (keyutils' `dns_resolver`). Groups cannot be joined; keys are refused as if the kernel had none, which also
//! keeps the session keyring of the person who started the agent to itself.
//!
//! `TIOCSTI` and `TIOCLINUX` type into the terminal that the agent shares with the person who started it; what
//! they type runs as that person once the agent has ended.

use std::io;

use super::LaunchError;

/// seccomp(2): `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
/// The low half of an argument. The kernel declares the arguments filtered here as `int` and `unsigned int`, so
/// the high half counts for nothing; all supported architectures are little-endian.
const OFFSET_ARG0: u32 = 16;
const OFFSET_ARG1: u32 = 24;
const OFFSET_ARG2: u32 = 32;

/// linux/audit.h: machine number, 64 bits, little-endian.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;
#[cfg(target_arch = "riscv64")]
const ARCH: u32 = 0xC000_00F3;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("the seccomp filter needs this architecture's audit number (linux/audit.h)");

/// `__X32_SYSCALL_BIT`. No other architecture numbers its calls this high.
const X32_BIT: u32 = 0x4000_0000;

const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// asm-generic/ioctls.h, the same on the supported architectures.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

/// linux/in.h, linux/in6.h: the options that join a group, by level. The last two of each are the same
/// (`MCAST_JOIN_GROUP`, `MCAST_JOIN_SOURCE_GROUP`), and libc does not name them.
const JOINS: [(i32, [i32; 4]); 2] = [
    (libc::IPPROTO_IP, [libc::IP_ADD_MEMBERSHIP, libc::IP_ADD_SOURCE_MEMBERSHIP, 42, 46]),
    (libc::IPPROTO_IPV6, [libc::IPV6_ADD_MEMBERSHIP, IPV6_JOIN_ANYCAST, 42, 46]),
];
const IPV6_JOIN_ANYCAST: i32 = 27;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
}

/// Classic BPF (`linux/bpf_common.h`): the operations used here.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: offset }
}

fn give(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: action }
}

/// Skips `skip` instructions if the loaded word is `value`.
fn skip_if_equal(value: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter { code: JUMP_IF_EQUAL, jt: skip, jf: 0, k: value }
}

/// Skips `skip` instructions unless the loaded word is `value`.
fn skip_unless_equal(value: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: skip, k: value }
}

/// Skips `skip` instructions unless the loaded word is at least `value`.
fn skip_below(value: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: skip, k: value }
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// The filter, in the order in which it is run.
fn program() -> Vec<libc::sock_filter> {
    let mut filter = vec![
        load(OFFSET_ARCH),
        skip_if_equal(ARCH, 1),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(OFFSET_NR),
        skip_below(X32_BIT, 1),
        give(errno(libc::ENOSYS)),
        skip_unless_equal(number(libc::SYS_io_uring_setup), 1),
        give(errno(libc::ENOSYS)),
        skip_if_equal(number(libc::SYS_add_key), 2),
        skip_if_equal(number(libc::SYS_request_key), 1),
        skip_unless_equal(number(libc::SYS_keyctl), 1),
        give(errno(libc::ENOSYS)),
        skip_unless_equal(number(libc::SYS_ioctl), 6),
        load(OFFSET_ARG1),
        skip_unless_equal(TIOCSTI, 1),
        give(errno(libc::EPERM)),
        skip_unless_equal(TIOCLINUX, 1),
        give(errno(libc::EPERM)),
        give(ALLOW),
    ];
    let joins: Vec<_> = JOINS.iter().flat_map(|(level, options)| refuse_option(*level, options)).collect();
    let length = u8::try_from(joins.len()).unwrap_or(u8::MAX);
    filter.push(skip_unless_equal(number(libc::SYS_setsockopt), length + 1));
    filter.extend(joins);
    filter.push(give(ALLOW));
    filter.extend([
        skip_if_equal(number(libc::SYS_socket), 2),
        skip_if_equal(number(libc::SYS_socketpair), 1),
        give(ALLOW),
        load(OFFSET_ARG0),
    ]);
    for family in FAMILIES {
        filter.extend([skip_unless_equal(family.cast_unsigned(), 1), give(ALLOW)]);
    }
    filter.push(give(errno(libc::EAFNOSUPPORT)));
    filter
}

/// For `setsockopt(2)`: these options of a level.
fn refuse_option(level: i32, options: &[i32; 4]) -> Vec<libc::sock_filter> {
    let mut body = vec![load(OFFSET_ARG2)];
    for option in options {
        body.extend([skip_unless_equal(option.cast_unsigned(), 1), give(errno(libc::EPERM))]);
    }
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    let mut all = vec![load(OFFSET_ARG1), skip_unless_equal(level.cast_unsigned(), length)];
    all.append(&mut body);
    all
}

/// Puts the filter on this thread, which must be the process's only one, and on all that it becomes.
/// `no_new_privs` must be set.
#[expect(unsafe_code, reason = "prctl(PR_SET_SECCOMP) has no wrapper")]
pub(super) fn install() -> Result<(), LaunchError> {
    let failed = |source| LaunchError::Confine { step: "prctl(PR_SET_SECCOMP)", source };
    let mut filter = program();
    let length = u16::try_from(filter.len()).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads `len` instructions at `filter` during the call; both outlive it.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    if result == 0 { Ok(()) } else { Err(failed(io::Error::last_os_error())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn run(arch: u32, nr: u32, args: [u64; 2]) -> u32 {
        run3(arch, nr, [args[0], args[1], 0])
    }

    fn run3(arch: u32, nr: u32, args: [u64; 3]) -> u32 {
        let low_half = |argument: u64| (argument & 0xFFFF_FFFF).try_into().unwrap();
        let filter = program();
        let (mut at, mut word) = (0, 0);
        loop {
            let instruction = filter[at];
            at += 1;
            match instruction.code {
                LOAD_WORD => {
                    word = match instruction.k {
                        OFFSET_NR => nr,
                        OFFSET_ARCH => arch,
                        OFFSET_ARG0 => low_half(args[0]),
                        OFFSET_ARG1 => low_half(args[1]),
                        OFFSET_ARG2 => low_half(args[2]),
                        other => panic!("loads {other}"),
                    }
                }
                JUMP_IF_EQUAL | JUMP_IF_AT_LEAST => {
                    let holds = if instruction.code == JUMP_IF_EQUAL {
                        word == instruction.k
                    } else {
                        word >= instruction.k
                    };
                    at += usize::from(if holds { instruction.jt } else { instruction.jf });
                }
                RETURN => return instruction.k,
                other => panic!("operation {other}"),
            }
        }
    }

    #[test]
    fn only_families_that_the_hooks_see() {
        let socket = number(libc::SYS_socket);
        for call in [socket, number(libc::SYS_socketpair)] {
            for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
                let family = u64::from(family.cast_unsigned());
                assert_eq!(run(ARCH, call, [family, 0]), ALLOW, "{family}");
                // The kernel takes an int: what stands above it does not make another family of it.
                assert_eq!(run(ARCH, call, [family | 1 << 32, 0]), ALLOW, "{family}");
            }
            for family in
                [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_XDP, libc::AF_ALG, libc::AF_BLUETOOTH, 0, -1]
            {
                assert_eq!(
                    run(ARCH, call, [u64::from(family.cast_unsigned()), 0]),
                    errno(libc::EAFNOSUPPORT),
                    "{family}"
                );
            }
        }
    }

    #[test]
    fn no_other_way_to_a_socket() {
        assert_eq!(run(ARCH, number(libc::SYS_io_uring_setup), [0, 0]), errno(libc::ENOSYS));
        assert_eq!(run(ARCH, X32_BIT | number(libc::SYS_socket), [17, 0]), errno(libc::ENOSYS));
        // i386, where socketcall(2) hides its arguments.
        assert_eq!(run(0x4000_0003, 102, [0, 0]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn nothing_is_typed_into_the_terminal() {
        let ioctl = number(libc::SYS_ioctl);
        for request in [TIOCSTI, TIOCLINUX] {
            assert_eq!(run(ARCH, ioctl, [0, u64::from(request)]), errno(libc::EPERM));
            assert_eq!(run(ARCH, ioctl, [0, u64::from(request) | 1 << 32]), errno(libc::EPERM));
        }
        assert_eq!(run(ARCH, ioctl, [0, libc::TIOCGWINSZ]), ALLOW);
    }

    #[test]
    fn the_kernel_says_nothing_for_an_agent() {
        for call in [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl] {
            assert_eq!(run(ARCH, number(call), [0, 0]), errno(libc::ENOSYS));
        }
        let set = |level: i32, option: i32| {
            let [level, option] = [level, option].map(|value| u64::from(value.cast_unsigned()));
            run3(ARCH, number(libc::SYS_setsockopt), [0, level | 1 << 32, option | 1 << 32])
        };
        for (level, options) in JOINS {
            for option in options {
                assert_eq!(set(level, option), errno(libc::EPERM), "{level} {option}");
                // The same number at another level is another option.
                assert_eq!(set(libc::SOL_SOCKET, option), ALLOW, "{option}");
                assert_eq!(set(libc::IPPROTO_TCP, option), ALLOW, "{option}");
            }
            assert_eq!(set(level, libc::IP_TTL), ALLOW);
        }
    }

    #[test]
    fn the_rest_is_allowed() {
        for call in
            [libc::SYS_read, libc::SYS_connect, libc::SYS_clone, libc::SYS_execve, libc::SYS_exit_group]
        {
            assert_eq!(run(ARCH, number(call), [17, u64::from(TIOCSTI)]), ALLOW);
        }
    }
}
