//! The launcher's clients: waiting connections, callers without authorisation, and running commands.
//!
//! Every process of the host may connect, so callers without authorisation get little: a place in a queue of
//! connections, and a few processes. A user's connections wait for each other, not for another user's.
#![allow(unsafe_code, reason = "fork(2)")]

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use onecli_model::Clock as _;
use onecli_sys::SystemClock;

use crate::error::EXIT_NOT_STARTED;
use crate::process::child::leave;
use crate::protocol::wire::{LauncherMessage, LauncherSocket};
use crate::worker::permission::{Authorised, Caller};

/// Running commands of one user, and of all users.
const MAX_PER_USER: usize = 128;
const MAX: usize = 1024;
/// Processes for unauthorised callers, of one user and of all. Each holds a frame of 4 KiB.
const MAX_ASKED_PER_USER: usize = 4;
const MAX_ASKED: usize = 64;
/// A caller that is not authorised after this time may lose its process to a user who has none. Authorisation takes
/// some milliseconds.
const GRACE: Duration = Duration::from_millis(200);
/// Connections that wait for such a process, of one user and of all. Each is a file descriptor.
const MAX_WAITING_PER_USER: usize = 128;
const MAX_WAITING: usize = 512;

/// Serves one client in its own process.
pub(crate) type Work<'w> = &'w dyn Fn(&LauncherSocket, &Caller, Authorised<'_>);

/// A process for one client.
struct Worker {
    pid: Pid,
    /// The user to whom it is charged.
    uid: u32,
    /// Present until its caller is authorised.
    gate: Option<UnixStream>,
    since: Instant,
}

/// A connection that waits for a process.
struct Waiting {
    stream: UnixStream,
    caller: Caller,
    /// The user to whom it is charged.
    account: u32,
}

/// The launcher's clients. In both lists the oldest come first.
#[derive(Default)]
pub(crate) struct ClientList {
    waiting: VecDeque<Waiting>,
    workers: Vec<Worker>,
}

impl ClientList {
    /// Adds a connection, which is charged to the user `account`. A caller at its limit is refused. If all users
    /// together are at the limit, the user with the most connections loses the newest.
    pub(crate) fn add(&mut self, stream: UnixStream, caller: Caller, account: u32) {
        let waiting = self.waiting_of(account);
        let running = self.running_of(account);
        if waiting >= MAX_WAITING_PER_USER || running >= MAX_PER_USER || self.running() >= MAX {
            let message = format!(
                "{running} of your commands run or left processes, and {waiting} wait: end some first"
            );
            let _ = LauncherSocket::accepted(stream)
                .send(&LauncherMessage::Failed { code: EXIT_NOT_STARTED, message }, &[]);
            return;
        }
        self.waiting.push_back(Waiting { stream, caller, account });
        if self.waiting.len() > MAX_WAITING {
            let most =
                self.waiting.iter().map(|waiting| waiting.account).max_by_key(|uid| self.waiting_of(*uid));
            let newest = self.waiting.iter().rposition(|waiting| Some(waiting.account) == most);
            newest.and_then(|at| self.waiting.remove(at));
        }
    }

    /// Starts processes for waiting connections, within the limits.
    ///
    /// # Errors
    /// Those of fork(2). The connection is lost.
    pub(crate) fn start(&mut self, work: Work<'_>) -> Result<(), Errno> {
        while let Some(Waiting { stream, caller, account }) = self.next() {
            let (ours, theirs) = UnixStream::pair().map_err(|_| Errno::EMFILE)?;
            // SAFETY: the launcher has one thread, so the child finds every lock as this thread left it.
            match unsafe { fork() }? {
                ForkResult::Child => {
                    drop(ours);
                    // Otherwise other callers' connections would stay open with this process.
                    self.waiting.clear();
                    self.workers.clear();
                    leave(|| work(&LauncherSocket::accepted(stream), &caller, &|| pass(&theirs)))
                }
                ForkResult::Parent { child } => {
                    let since = SystemClock.instant();
                    self.workers.push(Worker { pid: child, uid: account, gate: Some(ours), since });
                }
            }
        }
        Ok(())
    }

    /// Returns the next connection to serve: the oldest of a user with the fewest processes. If all clients are used, a
    /// user who has more of them loses one.
    fn next(&mut self) -> Option<Waiting> {
        let owned = self.waiting.iter().map(|waiting| self.asked_of(waiting.account)).enumerate();
        let (at, own) = owned.min_by_key(|(_, own)| *own).filter(|(_, own)| *own < MAX_ASKED_PER_USER)?;
        if self.asked() >= MAX_ASKED {
            let victim = self.victim(own)?;
            // It has started nothing yet, because it first waits for `settle`.
            let _ = kill(self.workers[victim].pid, Signal::SIGKILL);
            self.workers.remove(victim);
        }
        self.waiting.remove(at)
    }

    /// Returns the oldest unauthorised worker of the user with the most, if removing it is fairer to a user with `own`
    /// of them.
    fn victim(&self, own: usize) -> Option<usize> {
        let late = self.workers.iter().enumerate().filter(|(_, worker)| {
            worker.gate.is_some() && SystemClock.instant().duration_since(worker.since) >= GRACE
        });
        let most = late.clone().map(|(_, worker)| self.asked_of(worker.uid)).max()?;
        let is_fairer = own == 0 || most > own + 1;
        late.clone().find(|(_, worker)| is_fairer && self.asked_of(worker.uid) == most).map(|(at, _)| at)
    }

    /// Whether a connection waits that can be served once another one's [`GRACE`] has passed.
    pub(crate) fn is_full(&self) -> bool {
        !self.waiting.is_empty() && self.asked() >= MAX_ASKED
    }

    /// Files to poll: if one is readable, call [`settle`](Self::settle).
    pub(crate) fn gates(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.workers.iter().filter_map(|worker| worker.gate.as_ref()).map(|gate| gate.as_fd())
    }

    /// Releases workers whose callers were authorised, and removes those that ended.
    pub(crate) fn settle(&mut self) {
        while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) =
            waitpid(None, Some(WaitPidFlag::WNOHANG))
        {
            self.workers.retain(|worker| worker.pid != pid);
        }
        for worker in &mut self.workers {
            let Some(gate) = &mut worker.gate else { continue };
            if gate.set_nonblocking(true).is_ok() && matches!(gate.read(&mut [0]), Ok(0 | 1)) {
                let _ = gate.write(&[1]);
                worker.gate = None;
            }
        }
    }

    fn waiting_of(&self, uid: u32) -> usize {
        self.waiting.iter().filter(|waiting| waiting.account == uid).count()
    }

    fn asked(&self) -> usize {
        self.workers.iter().filter(|worker| worker.gate.is_some()).count()
    }

    fn asked_of(&self, uid: u32) -> usize {
        self.workers.iter().filter(|worker| worker.gate.is_some() && worker.uid == uid).count()
    }

    fn running(&self) -> usize {
        self.workers.len() - self.asked()
    }

    fn running_of(&self, uid: u32) -> usize {
        self.workers.iter().filter(|worker| worker.gate.is_none() && worker.uid == uid).count()
    }
}

/// The worker's side: reports that its caller is authorised, and waits until the launcher has recorded that. The worker
/// continues if the launcher has exited.
fn pass(mut gate: &UnixStream) {
    let _ = gate.write(&[1]);
    let _ = gate.read(&mut [0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32) -> Caller {
        Caller { uid, gid: uid, cgroup: None }
    }

    /// Connects as `uid`. Returns the client's end.
    fn connect(clients: &mut ClientList, uid: u32) -> UnixStream {
        let (client, server) = UnixStream::pair().unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        clients.add(server, caller(uid), uid);
        client
    }

    /// Kills every process of the test.
    struct Ended(ClientList);

    impl Drop for Ended {
        fn drop(&mut self) {
            for worker in &self.0.workers {
                let _ = kill(worker.pid, Signal::SIGKILL);
                let _ = waitpid(worker.pid, None);
            }
        }
    }

    /// A client that never sends anything.
    fn stall(_: &LauncherSocket, _: &Caller, _: Authorised<'_>) {
        std::thread::sleep(Duration::from_mins(1));
    }

    /// Serves the caller with uid 99; the others stay silent.
    fn answer(socket: &LauncherSocket, caller: &Caller, authorised: Authorised<'_>) {
        if caller.uid != 99 {
            return stall(socket, caller, authorised);
        }
        authorised();
        nix::unistd::write(socket.as_fd(), b"ok").unwrap();
    }

    #[test]
    fn silent_callers_do_not_block_others() {
        let mut clients = Ended(ClientList::default());
        let silent: Vec<UnixStream> =
            (0..40).flat_map(|uid| [uid; 8]).map(|uid| connect(&mut clients.0, uid)).collect();
        clients.0.start(&stall).unwrap();
        assert_eq!((clients.0.asked(), clients.0.asked_of(0) <= MAX_ASKED_PER_USER), (MAX_ASKED, true));
        // Another user is served once the silent ones had their time, however many still wait.
        let mut client = connect(&mut clients.0, 99);
        clients.0.start(&answer).unwrap();
        assert_eq!(clients.0.asked_of(99), 0);
        assert!(clients.0.is_full());
        std::thread::sleep(GRACE);
        clients.0.start(&answer).unwrap();
        assert_eq!(clients.0.asked(), MAX_ASKED);
        while clients.0.workers.iter().any(|worker| worker.uid == 99) {
            clients.0.settle();
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut answer = [0; 2];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ok");
        drop(silent);
    }

    /// A user has 65,536 of them. Counted separately, each would be a user with few connections.
    #[test]
    fn subordinate_users_count_as_their_owner() {
        let mut clients = ClientList::default();
        let (client, server) = UnixStream::pair().unwrap();
        clients.add(server, caller(99), 99);
        let mut flood = Vec::new();
        for uid in 0..512 {
            let (client, server) = UnixStream::pair().unwrap();
            clients.add(server, caller(100_000 + uid), 1);
            flood.push(client);
        }
        assert_eq!((clients.waiting_of(99), clients.waiting_of(1)), (1, MAX_WAITING_PER_USER));
        let others: Vec<UnixStream> = (200..600).map(|uid| connect(&mut clients, uid)).collect();
        assert!(clients.waiting_of(599) == 1, "the newest user waits too");
        drop((client, flood, others));
    }

    #[test]
    fn waiting_connections_are_limited_per_user_and_in_total() {
        let mut clients = ClientList::default();
        let mut of_one: Vec<UnixStream> =
            (0..=MAX_WAITING_PER_USER).map(|_| connect(&mut clients, 1)).collect();
        assert_eq!(clients.waiting.len(), MAX_WAITING_PER_USER);
        let mut answer = String::new();
        of_one.pop().unwrap().read_to_string(&mut answer).unwrap();
        assert!(answer.contains("128 wait"), "{answer}");
        let others: Vec<UnixStream> = (2..1002).map(|uid| connect(&mut clients, uid)).collect();
        assert_eq!(clients.waiting.len(), MAX_WAITING);
        assert!(clients.waiting_of(1) < 3, "the user with the most loses the newest");
        drop(others);
    }
}
