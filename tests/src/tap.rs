//! A TCP proxy on loopback that fails on request: it refuses, stalls, closes in the middle, or sends its own response.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

/// The treatment of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Forwards bytes.
    None,
    /// Closes it at once.
    Refuse,
    /// Reads the request and never responds.
    Stall,
    /// Closes it after this many bytes of the response.
    CutAfter(usize),
    /// Sends these bytes as the response, after the first bytes of the request.
    Answer(Vec<u8>),
}

/// The proxy, which runs until this is dropped.
pub struct Tap {
    address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    connections: Arc<AtomicU64>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Forwards connections to `target`.
    #[must_use]
    pub fn start(target: SocketAddr) -> Tap {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind 127.0.0.1");
        let address = listener.local_addr().expect("its address");
        let fault = Arc::new(Mutex::new(Fault::None));
        let connections = Arc::new(AtomicU64::new(0));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (fault, connections, stopped) =
                (Arc::clone(&fault), Arc::clone(&connections), Arc::clone(&stopped));
            let open = Arc::clone(&open);
            move || {
                for client in listener.incoming().flatten() {
                    if stopped.load(SeqCst) {
                        return;
                    }
                    connections.fetch_add(1, SeqCst);
                    let fault = fault.lock().clone();
                    let held = client.try_clone();
                    open.lock().extend(client.try_clone());
                    std::thread::spawn(move || {
                        serve(client, target, &fault);
                        // `cut` holds the connection open too.
                        held.map(|client| client.shutdown(Shutdown::Both)).ok();
                    });
                }
            }
        });
        Tap { address, fault, connections, open, stopped, thread: Some(thread) }
    }

    /// The address of its listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the treatment of new connections. Open connections are not affected.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    /// Closes the open connections.
    pub fn cut(&self) {
        for open in self.open.lock().drain(..) {
            open.shutdown(Shutdown::Both).ok();
        }
    }

    /// The number of connections so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(SeqCst)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(mut client: TcpStream, target: SocketAddr, fault: &Fault) {
    // A connection outlives its test by at most this time.
    let patience = Some(Duration::from_mins(1));
    client.set_read_timeout(patience).ok();
    match fault {
        Fault::Refuse => {}
        Fault::Stall => {
            let mut buffer = [0; 4096];
            while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
        }
        Fault::Answer(bytes) => {
            let mut buffer = [0; 4096];
            if client.read(&mut buffer).is_ok_and(|n| n > 0) {
                client.write_all(bytes).ok();
            }
        }
        Fault::None | Fault::CutAfter(_) => {
            let Ok(server) = TcpStream::connect(target) else { return };
            server.set_read_timeout(patience).ok();
            let most = if let Fault::CutAfter(bytes) = fault { *bytes } else { usize::MAX };
            let (from, to) = (client.try_clone(), server.try_clone());
            let (Ok(from), Ok(to)) = (from, to) else { return };
            let up = std::thread::spawn(move || pass(from, to, usize::MAX));
            pass(server, client, most);
            up.join().ok();
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut most: usize) {
    let mut buffer = [0; 16 << 10];
    while most > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer) else { break };
        let send = read.min(most);
        if to.write_all(&buffer[..send]).is_err() {
            break;
        }
        most -= send;
    }
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}
