//! The helper: a process that keeps the privileges which the serving process does not have.
//!
//! It does three things, for the daemon alone: it looks whether the kernel programs are attached, opens sockets in the
//! network namespaces of managed processes, and makes, empties and removes the agents' cgroups. It cannot detach:
//! `onecli-daemon --detach` does, run by root.
//!
//! It is a child of the daemon's, forked while that still had its privileges; or, under a service manager, a service of its
//! own ([`service`]), which has attached the programs before and hands their maps to a daemon that never was privileged.

mod duties;
mod protocol;
pub(super) mod service;

pub(super) use protocol::{Kind, Survey, Surveyed};

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use onecli_model::CgroupName;
use onecli_sys::kernel::KernelConfig;
use onecli_sys::privilege::{self, Channel, PrivilegeError};

use protocol::{Answer, Request, receive, send};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a helper that ends before it says anything is connected to, and how long is waited in between.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// Why the helper did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    /// It is of no use any more: what it says next may be the answer to another question.
    #[error("the helper process does not answer: {0}")]
    Gone(String),
    /// This once.
    #[error("the helper process could not do it: {0}")]
    Refused(String),
}

/// The daemon's side.
pub(super) struct Helper {
    /// One question at a time. `None` once an answer was missed.
    channel: Mutex<Option<Channel>>,
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Helper(..)")
    }
}

/// New sockets in one network namespace.
#[derive(Debug)]
pub(super) struct Opened {
    /// Inode number of the namespace.
    pub(super) netns: u64,
    /// Its cookie, as flows have it.
    pub(super) cookie: u64,
    /// The sockets.
    pub(super) sockets: Vec<(Kind, OwnedFd)>,
}

impl Helper {
    /// Forks the helper. This process has one thread, all its capabilities, and is in the daemon's cgroup: what the
    /// helper opens is born outside every agent's.
    pub(super) fn start(config: &KernelConfig) -> Result<Helper, PrivilegeError> {
        let channel = privilege::fork(c"onecli-helper", |daemon| duties::serve(&daemon, config))?;
        channel
            .set_patience(PATIENCE)
            .map_err(|source| PrivilegeError::Fork { step: "setsockopt(SO_RCVTIMEO)", source })?;
        Ok(Helper { channel: Mutex::new(Some(channel)) })
    }

    /// Connects to the helper that is a service; it gives the maps of the programs it attached. One that ends at the sight
    /// of a daemon, because the agents root is another than it knew, is started again by the next connection.
    pub(super) fn connect(socket: &Path) -> Result<(Helper, Vec<OwnedFd>), HelperError> {
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
        Err(HelperError::Gone("it refuses this process (its log says why)".to_owned()))
    }

    /// Makes an agent's cgroup if it is missing.
    pub(super) fn make_cgroup(&self, name: &CgroupName) -> Result<(), String> {
        self.change(&Request::MakeCgroup(name.clone()))
    }

    /// Kills what runs in an agent's cgroup.
    pub(super) fn kill_cgroup(&self, name: &CgroupName) -> Result<(), String> {
        self.change(&Request::KillCgroup(name.clone()))
    }

    /// Removes an agent's cgroup, with what is nested in it.
    pub(super) fn remove_cgroup(&self, name: &CgroupName) -> Result<(), String> {
        self.change(&Request::RemoveCgroup(name.clone()))
    }

    fn change(&self, request: &Request) -> Result<(), String> {
        self.ask(request, |answer, _| match answer {
            Answer::Done(done) => Ok(Some(done)),
            other => Err(unexpected(&other)),
        })
        .unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Are all programs still where they were attached? Says what is wrong. Blocks for as long as it takes.
    pub(super) fn check(&self) -> Result<(), String> {
        self.ask(&Request::Check, |answer, _| match answer {
            Answer::Health(health) => Ok(Some(health)),
            other => Err(unexpected(&other)),
        })
        .unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Opens what is missing in an agent's namespaces. Blocks for as long as it takes.
    pub(super) fn survey(&self, survey: Survey) -> Result<(Vec<Opened>, Surveyed), HelperError> {
        let mut opened = Vec::new();
        let surveyed = self.ask(&Request::Survey(survey), |answer, sockets| match answer {
            Answer::Opened { netns, cookie, sockets: kinds } if kinds.len() == sockets.len() => {
                opened.push(Opened { netns, cookie, sockets: kinds.into_iter().zip(sockets).collect() });
                Ok(None)
            }
            Answer::Surveyed(surveyed) => Ok(Some(Ok(surveyed))),
            Answer::Failed(reason) => Ok(Some(Err(HelperError::Refused(reason)))),
            other => Err(unexpected(&other)),
        })??;
        Ok((opened, surveyed))
    }

    /// Asks, and takes answers until one of them is the last.
    fn ask<T>(
        &self,
        request: &Request,
        mut take: impl FnMut(Answer, Vec<OwnedFd>) -> Result<Option<T>, String>,
    ) -> Result<T, HelperError> {
        let mut place = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        // Goes back only after the last answer.
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
    format!("an answer to another question: {answer:?}")
}
