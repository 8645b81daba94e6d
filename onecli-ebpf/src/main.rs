//! OneCLI's kernel programs.
//!
//! Attached to the agents root, so that every cgroup below it inherits them: [`sock_create`], [`bind`], [`connect`],
//! [`datagram`], [`peer`], [`egress`] and [`ingress`]. Attached to the root of cgroup2: [`guard`]. Attached to the
//! whole machine, if the kernel allows it: [`security`]. The identity of a connection:
//!
//! ```text
//! socket() ─ sock_create ─► SOCKETS[socket]          the agent in which it was created
//! connect() ─ connect4/6 ─► SOCKETS[socket]          the requested endpoint; destination rewritten
//! SYN ─ egress ───────────► TUP[netns, 4-tuple]      the 4-tuple is complete only now
//! accept() ─ the daemon ──► removes it from TUP      by the SYN that the kernel saved for it
//! ```
//!
//! Everything that is not recognised is refused: with `EPERM` here, or by the daemon, which finds no flow for it.
//!
//! Minimum kernel: 5.12 for all programs together (socket storage in `sock_create`); each program names its own
//! minimum. The daemon needs 5.14.
#![no_std]
#![no_main]

mod bind;
mod connect;
mod context;
mod datagram;
mod deny;
mod egress;
mod guard;
mod ingress;
mod listener;
mod maps;
mod peer;
mod security;
mod sock_create;

/// A program's verdict: the operation continues.
const ALLOW: i32 = 1;
/// A program's verdict: the system call fails with `EPERM`.
const REFUSE: i32 = 0;

/// Read by the kernel, which accepts programs of the BPF LSM only under the GPL. Hence the licences of this crate and
/// of `onecli-common`. No helper used here needs it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 7] = *b"GPL v2\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No path of these programs panics; the verifier would reject this loop if one did.
    loop {}
}
