//! Messages with descriptors between the daemon and its helper.
#![allow(unsafe_code, reason = "descriptors that arrive become owned")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4,
    connect, getsockopt, recvmsg, sendmsg, setsockopt, socket, socketpair, sockopt,
};
use nix::sys::time::TimeVal;

/// Longest message, bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// Descriptors in one message.
const MAX_DESCRIPTORS: usize = 8;

/// One end of a socket pair that preserves message boundaries (`SOCK_SEQPACKET`) and carries descriptors (`SCM_RIGHTS`,
/// unix(7)).
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Creates both ends.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Channel(one), Channel(other)))
    }

    /// Connects to a socket of this kind that another process listens on. Waits until that process accepts.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2).
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Channel(socket))
    }

    /// Waits until a process connects to a listening socket of this kind.
    ///
    /// # Errors
    /// Those of accept4(2).
    pub fn accept(listener: &OwnedFd) -> io::Result<Channel> {
        let accepted = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the kernel has just made the descriptor for this process, and nothing else refers to it.
        Ok(Channel(unsafe { OwnedFd::from_raw_fd(accepted) }))
    }

    /// Returns the user and the process that connected (`SO_PEERCRED`, unix(7)).
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn peer(&self) -> io::Result<(u32, i32)> {
        let credentials = getsockopt(&self.0, sockopt::PeerCredentials)?;
        Ok((credentials.uid(), credentials.pid()))
    }

    /// Makes [`receive`](Self::receive) fail if no message arrives within `limit`.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_patience(&self, limit: Duration) -> io::Result<()> {
        let seconds = limit.as_secs().try_into().map_err(io::Error::other)?;
        let limit = TimeVal::new(seconds, limit.subsec_micros().into());
        Ok(setsockopt(&self.0, sockopt::ReceiveTimeout, &limit)?)
    }

    /// Sends a message, which must not be empty.
    ///
    /// # Errors
    /// Those of sendmsg(2); `InvalidInput` for an empty or too long message or too many descriptors.
    pub fn send(&self, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        if message.is_empty() || message.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Waits for a message. Returns `None` if the other end is closed.
    ///
    /// # Errors
    /// Those of recvmsg(2); `InvalidData` for a message that is too long.
    pub fn receive(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let (length, whole, descriptors) = {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(self.0.as_raw_fd(), &mut buffers, Some(&mut control), flags)?;
            let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
            (message.bytes, !message.flags.intersects(cut), own(message.cmsgs()?))
        };
        if !whole {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.truncate(length);
        Ok((length > 0).then_some((bytes, descriptors)))
    }

    /// Returns the descriptor itself.
    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Creates a channel from a descriptor that was one.
    pub(super) fn from_descriptor(descriptor: OwnedFd) -> Channel {
        Channel(descriptor)
    }
}

/// Returns the descriptors that came with a message.
fn own(control: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    for part in control {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            // SAFETY: the kernel has just made these descriptors for this process, and nothing else refers to them.
            all.extend(descriptors.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn message_boundaries_are_preserved_and_descriptors_arrive_with_their_message() {
        let (one, other) = Channel::pair().unwrap();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        one.send(b"first", &[]).unwrap();
        one.send(b"second", &[far.into()]).unwrap();
        let (first, none) = other.receive().unwrap().unwrap();
        assert_eq!((first.as_slice(), none.len()), (b"first".as_slice(), 0));
        let (second, mut passed) = other.receive().unwrap().unwrap();
        assert_eq!((second.as_slice(), passed.len()), (b"second".as_slice(), 1));
        let mut far = std::os::unix::net::UnixStream::from(passed.remove(0));
        near.write_all(b"x").unwrap();
        let mut got = [0];
        far.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"x");
        drop(one);
        assert!(other.receive().unwrap().is_none(), "the closed end is reported");
    }

    #[test]
    fn peer_is_identified_by_user_and_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper.sock");
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let ours = Channel::connect(&path).unwrap();
        let theirs = Channel::accept(&listener).unwrap();
        let this = (nix::unistd::geteuid().as_raw(), i32::try_from(std::process::id()).unwrap());
        assert_eq!(theirs.peer().unwrap(), this);
        ours.send(b"hello", &[]).unwrap();
        assert_eq!(theirs.receive().unwrap().unwrap().0, b"hello");
    }

    #[test]
    fn receive_times_out_and_message_size_is_limited() {
        let (one, other) = Channel::pair().unwrap();
        other.set_patience(Duration::from_millis(20)).unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(one.send(&[], &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let long = vec![0; MAX_MESSAGE + 1];
        assert_eq!(one.send(&long, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
