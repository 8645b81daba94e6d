//! Sockets from outside, moved or passed into an agent's cgroup.
#![allow(unsafe_code, reason = "a descriptor received becomes a socket")]

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read as _},
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use onecli_common::Stat;
use socket2::{Domain, Socket, Type};

use super::{
    child::Client,
    fixture::{Fixture, accept, listen},
};
use crate::kernel::{Hook, Reason, bpffs::Pins};

/// A process that is moved into a cgroup cannot use a socket that it brings along. The guard refuses it, without a
/// security module in front.
#[test]
fn a_process_that_is_moved_in_cannot_connect() {
    let Some(fixture) = Fixture::new("kernel::a_process_that_is_moved_in_cannot_connect") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut denials = {
        let _context = runtime.enter();
        fixture.redirect.take_denials().unwrap().expect("the only reader")
    };
    fixture.without_security_module();
    let (agent, outside) = (fixture.agent("a.slice"), fixture.unmanaged());
    let nested = fixture.agent("a.slice/nested");
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let elsewhere6 = listen("[::1]:7777".parse().unwrap());
    for cgroup in [&agent, &nested, &fixture.config.agents_root] {
        let path = fixture.tree().path(cgroup).unwrap();
        let path = path.to_str().unwrap();
        for (address, work, hook) in [
            ("127.0.0.1:7777", "connect_from", Hook::Connect4),
            ("[::1]:7777", "connect_from", Hook::Connect6),
            ("127.0.0.1:7777", "udp_send_from", Hook::Sendmsg4),
            ("[::1]:7777", "udp_send_from", Hook::Sendmsg6),
        ] {
            let findings = Client::run(&fixture, &outside, &[work, address, path]);
            assert_eq!(findings.errno(), libc::EPERM, "{work} {address} from {path}");
            let denial = runtime.block_on(denials.next()).unwrap();
            assert_eq!((denial.reason, denial.hook), (Reason::NoBirthRecord, hook));
            assert_eq!(denial.destination, Some(address.parse().unwrap()));
        }
    }
    for listener in [elsewhere, elsewhere6] {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// A descriptor received over a Unix socket cannot be used either.
#[test]
fn a_passed_socket_cannot_connect() {
    let Some(fixture) = Fixture::new("kernel::a_passed_socket_cannot_connect") else {
        return;
    };
    fixture.without_security_module();
    let agent = fixture.agent("a.slice");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let client = Client::start(&fixture, &agent, &["received", path.to_str().unwrap(), "127.0.0.1:7777"]);
    let (stream, _) = listener.accept().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let fds = [socket.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None).unwrap();
    assert_eq!(client.finish().errno(), libc::EPERM);
    elsewhere.set_nonblocking(true).unwrap();
    assert_eq!(elsewhere.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(fixture.redirect.stat(Stat::Denied).unwrap(), 1);
}

/// Data that a process sends over a connection that was made outside passes no cgroup hook, because those run by the
/// socket's cgroup. The BPF LSM refuses it, if the kernel runs its programs. Elsewhere the launcher closes the gap:
/// agents start in their cgroup with three descriptors and a private `/run`.
#[test]
fn connection_made_outside_is_refused_by_the_bpf_lsm() {
    let Some(fixture) = Fixture::new("kernel::connection_made_outside_is_refused_by_the_bpf_lsm") else {
        return;
    };
    let (agent, outside) = (fixture.agent("a.slice"), fixture.unmanaged());
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let path = fixture.tree().path(&agent).unwrap();
    let work = ["connected_from", "127.0.0.1:7777", path.to_str().unwrap()];
    let mut client = Client::start_ready(&fixture, &outside, &work);
    let mut stream = accept(&elsewhere).unwrap();
    client.go_on();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut said = Vec::new();
    let _end = (&mut stream).take(6).read_to_end(&mut said);
    if Pins::below(&fixture.config.bpffs_dir).are_secured() {
        assert_eq!(said, b"", "the connection is closed without data");
        assert_eq!(client.finish().errno(), libc::EPERM);
    } else {
        assert_eq!(said, b"secret");
        client.finish();
    }
}

/// The child: receives a socket over a Unix socket and connects it.
pub(super) fn receive(path: &str, address: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().expect("an address");
    let stream = UnixStream::connect(path)?;
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::empty())?;
    let fd = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: a descriptor that the kernel has just made for this process.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd.expect("a descriptor")) });
    socket.connect(&address.into())
}
