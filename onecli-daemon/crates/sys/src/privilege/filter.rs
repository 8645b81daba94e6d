//! System call filters (seccomp(2)), built rule by rule.
//!
//! Arguments are compared by their low 32 bits. The kernel declares the filtered ones as `int` or `unsigned int` and
//! ignores the high half. All supported architectures are little-endian.

use std::io;

/// seccomp(2): `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

/// linux/audit.h: machine number, 64 bits, little-endian.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;
#[cfg(target_arch = "riscv64")]
const ARCH: u32 = 0xC000_00F3;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("seccomp filters need this architecture's audit number (linux/audit.h)");

/// `__X32_SYSCALL_BIT`. No other architecture has call numbers this high.
const X32_BIT: u32 = 0x4000_0000;

/// Classic BPF (`linux/bpf_common.h`): the operations used here.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The result of a filter for a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call is made.
    Allow,
    /// The call fails with this `errno` and is not made.
    Refuse(i32),
    /// The process is killed.
    Kill,
}

impl Verdict {
    fn action(self) -> u32 {
        match self {
            Verdict::Allow => libc::SECCOMP_RET_ALLOW,
            Verdict::Refuse(errno) => libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(),
            Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// A filter. Rules are checked in the order in which they were added, and the first match decides.
///
/// Other calling conventions number their calls differently. x32 calls fail as on a kernel without x32; processes of
/// foreign architectures (32-bit programs) are killed.
#[derive(Clone)]
pub struct Filter(Vec<libc::sock_filter>);

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} instructions)", self.0.len())
    }
}

impl Default for Filter {
    fn default() -> Self {
        Filter::new()
    }
}

impl Filter {
    /// Creates a filter for this architecture's calls.
    pub fn new() -> Filter {
        Filter(vec![
            load(OFFSET_ARCH),
            jump(JUMP_IF_EQUAL, ARCH, 1, 0),
            give(Verdict::Kill),
            load(OFFSET_NR),
            jump(JUMP_IF_AT_LEAST, X32_BIT, 0, 1),
            give(Verdict::Refuse(libc::ENOSYS)),
        ])
    }

    /// Matches these calls with any arguments.
    #[must_use]
    pub fn always(self, calls: &[libc::c_long], verdict: Verdict) -> Filter {
        calls.iter().fold(self, |filter, &call| filter.rule(call, vec![give(verdict)]))
    }

    /// Matches a call whose argument (the first is 0) has one of these values.
    #[must_use]
    pub fn where_is(self, call: libc::c_long, argument: u8, values: &[u32], verdict: Verdict) -> Filter {
        let mut body = vec![load_argument(argument)];
        for &value in values {
            body.extend([jump(JUMP_IF_EQUAL, value, 0, 1), give(verdict)]);
        }
        self.rule(call, body)
    }

    /// Matches a call in which one argument has this value and another has one of these values.
    #[must_use]
    pub fn where_both(
        self,
        call: libc::c_long,
        (argument, value): (u8, u32),
        (other, values): (u8, &[u32]),
        verdict: Verdict,
    ) -> Filter {
        let mut body = vec![load_argument(other)];
        for &value in values {
            body.extend([jump(JUMP_IF_EQUAL, value, 0, 1), give(verdict)]);
        }
        let mut all = vec![load_argument(argument), jump(JUMP_IF_EQUAL, value, 0, short(body.len()))];
        all.append(&mut body);
        self.rule(call, all)
    }

    /// Matches a call whose argument has none of these values.
    #[must_use]
    pub fn where_is_not(self, call: libc::c_long, argument: u8, values: &[u32], verdict: Verdict) -> Filter {
        let mut body = vec![load_argument(argument)];
        // Each match jumps behind the verdict.
        for (left, &value) in (1..=values.len()).rev().zip(values) {
            body.push(jump(JUMP_IF_EQUAL, value, short(left), 0));
        }
        body.push(give(verdict));
        self.rule(call, body)
    }

    /// Matches a call whose argument has one of these bits set.
    #[must_use]
    pub fn where_any_bit(self, call: libc::c_long, argument: u8, bits: u32, verdict: Verdict) -> Filter {
        let body = vec![load_argument(argument), jump(JUMP_IF_ANY_BIT, bits, 0, 1), give(verdict)];
        self.rule(call, body)
    }

    /// Matches a call in which two arguments each have one of these bits set.
    #[must_use]
    pub fn where_bits_of_both(
        self,
        call: libc::c_long,
        (argument, bits): (u8, u32),
        (other, others): (u8, u32),
        verdict: Verdict,
    ) -> Filter {
        let body = vec![
            load_argument(argument),
            jump(JUMP_IF_ANY_BIT, bits, 0, 3),
            load_argument(other),
            jump(JUMP_IF_ANY_BIT, others, 0, 1),
            give(verdict),
        ];
        self.rule(call, body)
    }

    /// Matches every call that no rule decided.
    #[must_use]
    pub fn otherwise(mut self, verdict: Verdict) -> Filter {
        self.0.push(give(verdict));
        self
    }

    fn rule(mut self, call: libc::c_long, body: Vec<libc::sock_filter>) -> Filter {
        let number = u32::try_from(call).unwrap_or(u32::MAX);
        self.0.extend([load(OFFSET_NR), jump(JUMP_IF_EQUAL, number, 0, short(body.len()))]);
        self.0.extend(body);
        self
    }

    /// Installs the filter, together with the `no_new_privs` that it requires, on this thread, which must be the
    /// process's only one. It holds for every later program of the process.
    ///
    /// # Errors
    /// Those of prctl(2).
    #[expect(unsafe_code, reason = "prctl(PR_SET_SECCOMP) has no wrapper")]
    pub fn install(mut self) -> io::Result<()> {
        nix::sys::prctl::set_no_new_privs()?;
        let length = u16::try_from(self.0.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len: length, filter: self.0.as_mut_ptr() };
        // SAFETY: the kernel reads `len` instructions at `filter` during the call; both outlive it.
        let result =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: offset }
}

/// Loads the low half of an argument.
fn load_argument(argument: u8) -> libc::sock_filter {
    load(OFFSET_ARGS + 8 * u32::from(argument))
}

fn give(verdict: Verdict) -> libc::sock_filter {
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: verdict.action() }
}

/// Skips `yes` instructions if the comparison of the loaded word holds, else `no`.
fn jump(code: u16, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: yes, jf: no, k: value }
}

/// The length of a jump. Rules are far shorter than the maximum; a longer one would let its call through to the next
/// rule.
fn short(length: usize) -> u8 {
    let jump = u8::try_from(length);
    debug_assert!(jump.is_ok(), "a rule of {length} instructions");
    jump.unwrap_or(u8::MAX)
}

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, reason = "a fixture")]
pub mod testing {
    //! Runs filters, for tests.

    use super::{
        ARCH, Filter, JUMP_IF_ANY_BIT, JUMP_IF_AT_LEAST, JUMP_IF_EQUAL, LOAD_WORD, OFFSET_ARCH, OFFSET_ARGS,
        OFFSET_NR, RETURN, Verdict,
    };

    /// This machine's architecture.
    pub const NATIVE: u32 = ARCH;
    /// i386, where socketcall(2) hides its arguments.
    pub const I386: u32 = 0x4000_0003;

    /// Runs the filter as the kernel does.
    pub fn verdict<const N: usize>(
        filter: &Filter,
        arch: u32,
        call: libc::c_long,
        args: [u64; N],
    ) -> Verdict {
        let nr = u32::try_from(call).unwrap();
        let (mut at, mut word) = (0, 0);
        loop {
            let instruction = filter.0[at];
            at += 1;
            let holds = match instruction.code {
                LOAD_WORD => {
                    word = match instruction.k {
                        OFFSET_NR => nr,
                        OFFSET_ARCH => arch,
                        offset => {
                            let argument = usize::try_from((offset - OFFSET_ARGS) / 8).unwrap();
                            (args[argument] & 0xFFFF_FFFF).try_into().unwrap()
                        }
                    };
                    continue;
                }
                RETURN => {
                    return match instruction.k {
                        libc::SECCOMP_RET_ALLOW => Verdict::Allow,
                        libc::SECCOMP_RET_KILL_PROCESS => Verdict::Kill,
                        other => Verdict::Refuse((other & libc::SECCOMP_RET_DATA).try_into().unwrap()),
                    };
                }
                JUMP_IF_EQUAL => word == instruction.k,
                JUMP_IF_AT_LEAST => word >= instruction.k,
                JUMP_IF_ANY_BIT => word & instruction.k != 0,
                other => panic!("operation {other}"),
            };
            at += usize::from(if holds { instruction.jt } else { instruction.jf });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{I386, NATIVE, verdict};
    use super::*;

    #[test]
    fn rules_apply_only_to_their_call_and_value() {
        const NO: Verdict = Verdict::Refuse(libc::EPERM);
        let filter = Filter::new()
            .always(&[libc::SYS_ptrace, libc::SYS_mount], NO)
            .where_is(libc::SYS_ioctl, 1, &[7, 9], NO)
            .where_is_not(libc::SYS_bpf, 0, &[1, 2, 3], NO)
            .where_any_bit(libc::SYS_clone, 0, 0b1100, NO)
            .otherwise(Verdict::Allow);
        let cases = [
            (libc::SYS_ptrace, [0, 0, 0], NO),
            (libc::SYS_mount, [1, 2, 3], NO),
            (libc::SYS_ioctl, [7, 8, 9], Verdict::Allow),
            (libc::SYS_ioctl, [0, 7, 0], NO),
            (libc::SYS_ioctl, [0, 9 | 1 << 32, 0], NO),
            (libc::SYS_bpf, [1, 0, 0], Verdict::Allow),
            (libc::SYS_bpf, [3 | 1 << 32, 0, 0], Verdict::Allow),
            (libc::SYS_bpf, [4, 1, 1], NO),
            (libc::SYS_clone, [0b0011, 0b1100, 0], Verdict::Allow),
            (libc::SYS_clone, [0b0111, 0, 0], NO),
            (libc::SYS_read, [0, 7, 0b1100], Verdict::Allow),
        ];
        for (call, args, expected) in cases {
            assert_eq!(verdict(&filter, NATIVE, call, args), expected, "{call} {args:?}");
            assert_eq!(verdict(&filter, I386, call, args), Verdict::Kill);
            let x32 = libc::c_long::from(X32_BIT) | call;
            assert_eq!(verdict(&filter, NATIVE, x32, args), Verdict::Refuse(libc::ENOSYS));
        }
    }
}
