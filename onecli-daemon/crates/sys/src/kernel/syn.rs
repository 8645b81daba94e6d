//! The SYN of an accepted connection, which the kernel saves for a listener with `TCP_SAVE_SYN` (tcp(7), Linux 4.2; RFC
//! 9293 for the header).
#![allow(unsafe_code, reason = "getsockopt(TCP_SAVED_SYN) has no safe binding")]

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _},
};

use onecli_common::mapped;

/// Options of level `IPPROTO_TCP`, `linux/tcp.h`.
const TCP_SAVE_SYN: libc::c_int = 27;
const TCP_SAVED_SYN: libc::c_int = 28;

/// The longest IPv4 or IPv6 header of a local SYN, and the longest TCP header.
const LONGEST: usize = 60 + 60;

/// The client and server of a connection, as in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syn {
    /// Network byte order, IPv4 mapped.
    pub(super) from: [u8; 16],
    /// Network byte order, IPv4 mapped.
    pub(super) to: [u8; 16],
    /// Host byte order.
    pub(super) from_port: u16,
    /// Host byte order.
    pub(super) to_port: u16,
    /// The initial sequence number.
    pub(super) seq: u32,
    /// The random number that the kernel drew for the packet: [`TupleKey::drawn`](onecli_common::TupleKey::drawn).
    pub(super) drawn: u32,
}

/// Makes the kernel save the SYN of each connection to a TCP listener, which need not listen yet.
pub(super) fn keep(listener: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(mem::size_of_val(&on)).unwrap_or(0);
    // SAFETY: the option's value is an int, of the length said.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_SAVE_SYN,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the SYN of an accepted connection, once. Returns `None` if it was taken already, the listener did not request
/// it, or the handshake used SYN cookies, for which the kernel saves nothing.
pub(super) fn take(accepted: &impl AsFd) -> io::Result<Option<Syn>> {
    let mut headers = [0_u8; LONGEST];
    let mut length = libc::socklen_t::try_from(headers.len()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes, which `headers` has.
    let result = unsafe {
        libc::getsockopt(
            accepted.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_SAVED_SYN,
            headers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = usize::try_from(length).unwrap_or(0).min(headers.len());
    Ok(parse(&headers[..length]))
}

/// Parses an IP header without extensions, and the TCP header behind it.
pub(super) fn parse(headers: &[u8]) -> Option<Syn> {
    const FLOW_LABEL: u32 = 0xf_ffff;
    let (from, to, length, drawn) = match headers.first()? >> 4 {
        4 => {
            let words = usize::from(headers[0] & 0xf);
            let id = u16::from_be_bytes(array(headers, 4)?);
            (mapped(array(headers, 12)?), mapped(array(headers, 16)?), words * 4, u32::from(id))
        }
        6 => {
            let label = u32::from_be_bytes(array(headers, 0)?) & FLOW_LABEL;
            (array(headers, 8)?, array(headers, 24)?, 40, label)
        }
        _ => return None,
    };
    Some(Syn {
        from,
        to,
        from_port: u16::from_be_bytes(array(headers, length)?),
        to_port: u16::from_be_bytes(array(headers, length + 2)?),
        seq: u32::from_be_bytes(array(headers, length + 4)?),
        drawn,
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
