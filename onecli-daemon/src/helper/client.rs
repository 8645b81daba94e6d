//! The daemon's side: starts the helper or connects to it, and sends requests.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use onecli_model::CgroupName;
use onecli_sys::kernel::KernelConfig;
use onecli_sys::privilege::{self, Channel, PrivilegeError};
use parking_lot::Mutex;

use super::protocol::{Answer, Kind, NamespaceScan, Request, ScanResult, receive, send};
use super::server;

/// The time limit for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of attempts to connect to a helper that closes the connection before its first message, and the pause
/// in between.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// The reason why the helper did not execute a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    /// The connection is unusable: its next message may be the answer to another request.
    #[error("the helper process does not answer: {0}")]
    Gone(String),
    /// This request failed; the connection remains usable.
    #[error("the helper process could not execute the request: {0}")]
    Refused(String),
}

/// The daemon's side.
pub(crate) struct Helper {
    /// Allows one request at a time. `None` once an answer was missed.
    channel: Mutex<Option<Channel>>,
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Helper(..)")
    }
}

/// New sockets in one network namespace.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The inode number of the namespace.
    pub(crate) netns: u64,
    /// The cookie of the namespace, as in flows.
    pub(crate) cookie: u64,
    /// The sockets.
    pub(crate) sockets: Vec<(Kind, OwnedFd)>,
}

impl Helper {
    /// Forks the helper. This process has one thread and all its capabilities, and is in the daemon's cgroup. Sockets
    /// that the helper opens are therefore created outside every agent's cgroup.
    pub(crate) fn start(config: &KernelConfig) -> Result<Helper, PrivilegeError> {
        let channel = privilege::fork(c"onecli-helper", |daemon| server::serve(&daemon, config))?;
        channel
            .set_patience(PATIENCE)
            .map_err(|source| PrivilegeError::Fork { step: "setsockopt(SO_RCVTIMEO)", source })?;
        Ok(Helper { channel: Mutex::new(Some(channel)) })
    }

    /// Connects to the helper that runs as a service, and returns the maps of the programs that it attached. A helper
    /// may exit on the first connection because the agents root was replaced. The next connection starts it again.
    pub(crate) fn connect(socket: &Path) -> Result<(Helper, Vec<OwnedFd>), HelperError> {
        let gone = |error: std::io::Error| HelperError::Gone(format!("{}: {error}", socket.display()));
        for _ in 0..TRIES {
            let channel = Channel::connect(socket).map_err(gone)?;
            channel.set_patience(PATIENCE).map_err(gone)?;
            match receive(&channel).map_err(gone)? {
                Some((Answer::Maps, maps)) => {
                    return Ok((Helper { channel: Mutex::new(Some(channel)) }, maps));
                }
                Some((other, _)) => return Err(HelperError::Gone(unexpected(&other))),
                None => std::thread::sleep(PAUSE),
            }
        }
        Err(HelperError::Gone("it refuses this process (see its log for the reason)".to_owned()))
    }

    /// Creates an agent's cgroup if it is missing.
    pub(crate) fn make_cgroup(&self, name: &CgroupName) -> Result<(), String> {
        self.change(&Request::MakeCgroup(name.clone()))
    }

    /// Kills all processes in an agent's cgroup.
    pub(crate) fn kill_cgroup(&self, name: &CgroupName) -> Result<(), String> {
        self.change(&Request::KillCgroup(name.clone()))
    }

    /// Removes an agent's cgroup with its nested cgroups.
    pub(crate) fn remove_cgroup(&self, name: &CgroupName) -> Result<(), String> {
        self.change(&Request::RemoveCgroup(name.clone()))
    }

    fn change(&self, request: &Request) -> Result<(), String> {
        self.ask(request, |answer, _| match answer {
            Answer::Done(done) => Ok(Some(done)),
            other => Err(unexpected(&other)),
        })
        .unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Checks that all programs are still attached; the error names the problem. Blocks until the helper has
    /// answered.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.ask(&Request::Check, |answer, _| match answer {
            Answer::Health(health) => Ok(Some(health)),
            other => Err(unexpected(&other)),
        })
        .unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Opens missing sockets in an agent's namespaces. Blocks until the helper has answered.
    pub(crate) fn scan(&self, scan: NamespaceScan) -> Result<(Vec<Opened>, ScanResult), HelperError> {
        let mut opened = Vec::new();
        let scanned = self.ask(&Request::Scan(scan), |answer, sockets| match answer {
            Answer::Opened { netns, cookie, sockets: kinds } if kinds.len() == sockets.len() => {
                opened.push(Opened { netns, cookie, sockets: kinds.into_iter().zip(sockets).collect() });
                Ok(None)
            }
            Answer::Scanned(scanned) => Ok(Some(Ok(scanned))),
            Answer::Failed(reason) => Ok(Some(Err(HelperError::Refused(reason)))),
            other => Err(unexpected(&other)),
        })??;
        Ok((opened, scanned))
    }

    /// Sends a request and processes answers up to the last one.
    fn ask<T>(
        &self,
        request: &Request,
        mut take: impl FnMut(Answer, Vec<OwnedFd>) -> Result<Option<T>, String>,
    ) -> Result<T, HelperError> {
        let mut place = self.channel.lock();
        // Put back only after the last answer.
        let channel = place.take().ok_or_else(|| HelperError::Gone("it ended earlier".to_owned()))?;
        let gone = |error: std::io::Error| HelperError::Gone(error.to_string());
        send(&channel, request, &[]).map_err(gone)?;
        loop {
            let Some((answer, sockets)) = receive(&channel).map_err(gone)? else {
                return Err(HelperError::Gone("it has ended".to_owned()));
            };
            if let Some(last) = take(answer, sockets).map_err(HelperError::Gone)? {
                *place = Some(channel);
                return Ok(last);
            }
        }
    }
}

fn unexpected(answer: &Answer) -> String {
    format!("it sent an unexpected answer: {answer:?}")
}
