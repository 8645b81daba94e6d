//! OneCLI's kernel programs.
//!
//! Attached to the agents root, so that every cgroup below it inherits them: [`sock_create`], [`bind`],
//! [`connect`], [`datagram`], [`peer`], [`egress`] and [`ingress`]; on the root of cgroup2: [`guard`]; for the whole machine, where the
//! kernel lets them: [`security`]. A connection's identity travels
//!
//! ```text
//! socket() ─ sock_create ─► SOCKETS[socket]          who was born here
//! connect() ─ connect4/6 ─► SOCKETS[socket]          whom it asked for; destination rewritten
//! SYN ─ egress ───────────► TUP[netns, 4-tuple]      the 4-tuple is complete only now
//! accept() ─ the daemon ──► takes it from TUP        by the SYN that its kernel kept for it
//! ```
//!
//! Everything that is not recognised is refused: with `EPERM` here, or by the daemon for want of a flow.
//!
//! Minimum kernel: 5.12 for all programs together (socket storage in `sock_create`); each program names its own. The
//! daemon needs 5.14.
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

/// A program's verdict: go on.
const ALLOW: i32 = 1;
/// A program's verdict: the system call fails with `EPERM`.
const REFUSE: i32 = 0;

/// Read by the kernel, which takes programs of the BPF LSM under the GPL alone: hence the choice of licences that this crate
/// and `onecli-common` give. No helper used here needs it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 7] = *b"GPL v2\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No path of these programs panics; the verifier would refuse this loop if one did.
    loop {}
}
