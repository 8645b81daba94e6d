//! Connections that a test holds itself. All received bytes are searched for watched values ([`canary`]), also those
//! that the test does not read.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;

use crate::canary;

/// The overlap of two searches: this many earlier bytes are searched again with new ones. No form of a value is longer.
const OVERLAP: usize = 64 * 1024;

/// A stream that searches incoming bytes as they are read.
#[derive(Debug)]
pub struct Grepped<S> {
    stream: S,
    last: Vec<u8>,
}

impl<S> Grepped<S> {
    /// Searches the bytes read from `stream`, for example the plain text of a TLS connection.
    pub fn new(stream: S) -> Self {
        Self { stream, last: Vec::new() }
    }

    fn got(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(bytes);
        canary::assert_clean("a socket", &self.last);
        let old = self.last.len().saturating_sub(OVERLAP);
        self.last.drain(..old);
    }
}

impl<S: Read> Read for Grepped<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.got(&buffer[..read]);
        Ok(read)
    }
}

impl<S: Write> Write for Grepped<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A TCP connection with a daemon. Drop also searches bytes that arrived and were not read.
#[derive(Debug)]
pub struct Socket(Grepped<TcpStream>);

impl Socket {
    /// Connects to `address`.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).map(Self::from)
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(Grepped::new(stream))
    }
}

/// Gives access to the socket options. Reads through this are not searched.
impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0.stream
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if std::thread::panicking() || self.0.stream.set_nonblocking(true).is_err() {
            return;
        }
        let mut buffer = [0; 16 * 1024];
        while self.0.read(&mut buffer).is_ok_and(|read| read > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// A search for absent values is only useful if it finds present ones.
    #[test]
    fn what_a_socket_gets_is_looked_at_read_or_not() {
        let value = "watched-canary-s0cket";
        canary::watch(value);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sent = |bytes: &[u8]| {
            let socket = Socket::connect(listener.local_addr().unwrap()).unwrap();
            let mut server = listener.accept().unwrap().0;
            server.write_all(bytes).unwrap();
            drop(server);
            socket
        };
        let mut clean = sent(b"watched-canary-s0ck");
        let mut all = Vec::new();
        clean.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 19);
        drop(clean);
        let mut dirty = sent(b"..watched-canary-s0cket");
        // One byte at a time.
        let read = catch_unwind(AssertUnwindSafe(|| while dirty.read(&mut [0]).unwrap() > 0 {}));
        assert!(read.is_err());
        std::mem::forget(dirty);
        let unread = sent(b"..watched-canary-s0cket");
        // The value has arrived when the end of the stream has.
        unread.peek(&mut [0; 64]).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(unread))).is_err());
    }
}
