//! OneCLI's kernel programs.
//!
//! Attached to the agents root, so that every cgroup below it inherits them: [`sock_create`], [`bind`],
//! [`connect`], [`datagram`], [`peer`] and the client half of [`tcp`]. Attached to the daemon's cgroup: the server half of
//! [`tcp`]. A connection's identity travels
//!
//! ```text
//! socket() ─ sock_create ─► SOCKETS[socket]          who was born here
//! connect() ─ connect4/6 ─► SOCKETS[socket]          whom it asked for; destination rewritten
//! SYN ─ tcp_client ───────► TUP[netns, 4-tuple]      the 4-tuple is complete only now
//! ACK ─ tcp_server ───────► FLOWS[accepted socket]   what the daemon reads by its fd
//! ```
//!
//! Everything that is not recognised is refused: with `EPERM` here, or by the daemon for want of a flow.
//!
//! Minimum kernel: 5.15 for all programs together (netns cookie in `sock_ops`); each program names its own.
#![no_std]
#![no_main]

mod bind;
mod connect;
mod context;
mod datagram;
mod deny;
mod egress;
mod guard;
mod listener;
mod maps;
mod peer;
mod sock_create;
mod tcp;

/// A program's verdict: go on.
const ALLOW: i32 = 1;
/// A program's verdict: the system call fails with `EPERM`.
const REFUSE: i32 = 0;

/// Read by the kernel. No helper used here is reserved to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No path of these programs panics; the verifier would refuse this loop if one did.
    loop {}
}
