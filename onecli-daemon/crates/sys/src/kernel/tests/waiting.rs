//! Connections between SYN and accept: they give no other process an identity, and one agent's do not block others.
#![allow(unsafe_code, reason = "TCP_REPAIR has no safe binding")]

use std::{
    io,
    mem::size_of_val,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use onecli_common::{Stat, TupleKey, names::WAITING_MAX};
use socket2::{Domain, Socket, Type};

use super::{
    child::{Client, wait},
    fixture::{Fixture, PATIENCE, TRANSPARENT_PORT},
};
use crate::kernel::{AgentEntry, syn};

const FROM: &str = "127.0.0.1:4321";

/// `linux/tcp.h`. The second value of `TCP_REPAIR` switches it off without a probe.
const TCP_REPAIR: libc::c_int = 19;
const TCP_REPAIR_QUEUE: libc::c_int = 20;
const TCP_QUEUE_SEQ: libc::c_int = 21;
const TCP_SEND_QUEUE: u32 = 2;
const REPAIR_OFF: u32 = u32::MAX;

fn set(socket: &Socket, option: libc::c_int, value: u32) {
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap();
    // SAFETY: the option's value is 4 bytes, as the length states.
    let result = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, value, length)
    };
    assert_eq!(result, 0, "option {option}: {}", io::Error::last_os_error());
}

/// An announcement waits that no connection will use. An unmanaged process makes the same 4-tuple with the same initial
/// sequence number. An unprivileged process can achieve that too, with patience: the number begins where the socket's
/// last connection ended, and the kernel's addition to the clock is the same in a namespace in which the process can
/// listen.
#[test]
fn guessed_sequence_number_gives_no_identity() {
    let Some(mut fixture) = Fixture::new("kernel::guessed_sequence_number_gives_no_identity") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, TRANSPARENT_PORT).into();
    drop(fixture.listener4.take());
    let busy = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    busy.set_reuse_address(true).unwrap();
    busy.bind(&address.into()).unwrap();
    fixture.redirect.stamp(&busy).unwrap();
    busy.listen(0).unwrap();
    let fill = TcpStream::connect(address).unwrap();
    assert_eq!(Client::run(&fixture, &agent, &["abandon", "192.0.2.7:443", FROM]).errno(), 0);
    drop((busy.accept().unwrap(), fill));
    let [waiting]: [TupleKey; 1] = fixture.announcements().try_into().unwrap();

    let forge = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        socket.bind(&FROM.parse::<SocketAddr>().unwrap().into()).unwrap();
        for (option, value) in [
            (TCP_REPAIR, 1),
            (TCP_REPAIR_QUEUE, TCP_SEND_QUEUE),
            (TCP_QUEUE_SEQ, waiting.isn),
            (TCP_REPAIR, REPAIR_OFF),
        ] {
            set(&socket, option, value);
        }
        socket.connect(&address.into()).unwrap();
        (busy.accept().unwrap().0, socket)
    };
    let (accepted, socket) = forge();
    let syn = syn::take(&accepted).unwrap().expect("a saved SYN");
    drop((accepted, socket));
    // The forgery must match in these fields, or the test shows nothing.
    assert_eq!((syn.seq, u32::from(syn.from_port)), (waiting.isn, waiting.client_port));
    let mut forged = 0;
    for _ in 0..20 {
        let (accepted, _socket) = forge();
        forged += u32::from(fixture.redirect.flow(&accepted).unwrap().is_some());
    }
    // One in 65,536.
    assert_eq!(forged, 0);
    assert_eq!(fixture.announced(), 1, "the announcement is still there, and unused");
}

/// While the daemon accepts nothing, one agent's connections wait up to a limit, and another agent's wait not far
/// behind. Connections that were held back are retried automatically.
#[test]
fn one_agents_connections_leave_room_for_anothers() {
    /// More than may wait.
    const MANY: u64 = WAITING_MAX + 300;
    let Some(fixture) = Fixture::new("kernel::one_agents_connections_leave_room_for_anothers") else {
        return;
    };
    let agents = ["a.slice", "b.slice"].map(|name| {
        let cgroup = fixture.agent(name);
        let id = fixture.id_of(&cgroup);
        fixture.redirect.set_agent(id, AgentEntry { index: 1, flags: 0, dns_addr: [0; 4] }).unwrap();
        (cgroup, id)
    });
    let [(flooding, flooding_id), (other, other_id)] = &agents;
    let mut flood = start(&fixture, flooding, MANY);
    flood.until_ready();
    let stat = |stat| fixture.redirect.stat(stat).unwrap();
    let waiting = u64::try_from(fixture.announced()).unwrap();
    // A few are forgiven while they are made.
    assert!((WAITING_MAX..WAITING_MAX + 100).contains(&waiting), "{waiting} wait");
    assert!(stat(Stat::Held) >= MANY - waiting, "{} held", stat(Stat::Held));
    let mut second = start(&fixture, other, 3);
    second.until_ready();
    let mut seen = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < usize::try_from(MANY + 3).unwrap() && Instant::now() < deadline {
        let (_, flow) = fixture.accept4();
        seen.push(flow.expect("a flow").agent_cgroup_id);
    }
    let place = seen.iter().position(|id| id == other_id).expect("the other agent's connection came");
    assert!(place < usize::try_from(WAITING_MAX + 100).unwrap(), "behind {place} others");
    assert_eq!(seen.iter().filter(|id| *id == other_id).count(), 3);
    assert_eq!(
        seen.iter().filter(|id| *id == flooding_id).count() as u64,
        MANY,
        "connections that were held arrive"
    );
    flood.go_on();
    second.go_on();
    assert_eq!((flood.finish().errno(), second.finish().errno()), (0, 0));
}

fn start(fixture: &Fixture, cgroup: &Path, connections: u64) -> Client {
    Client::start(fixture, cgroup, &["pile", "192.0.2.7:443", &connections.to_string()])
}

/// The child: makes `connections` at once; reports when they wait, and holds them until [`Client::go_on`].
pub(super) fn pile(address: &str, connections: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().expect("an address");
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let sockets: Vec<Socket> = (0..connections.parse().expect("a number"))
        .map(|_: u64| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&address.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
                _ => Ok(socket),
            }
        })
        .collect::<io::Result<_>>()?;
    wait();
    drop(sockets);
    Ok(())
}
