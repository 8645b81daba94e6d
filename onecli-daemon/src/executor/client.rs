//! The daemon's side: starts the executor or connects to it, and reads the outcome of a command.

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::unistd::{Uid, User};
use onecli_config::Config;
use onecli_model::{SourceCommand, error_chain};
use onecli_sys::privilege::{self, Channel};
use onecli_vault::sources::exec::Executor;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use zeroize::Zeroizing;

use super::protocol::{LARGEST, PRINTED, Request};
use super::server;

/// The time limit for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// The daemon's side.
#[derive(Debug, Clone)]
pub(crate) struct HostExecutor(Arc<Connection>);

#[derive(Debug)]
enum Connection {
    Child(Mutex<Channel>),
    Service(PathBuf),
    Unavailable(String),
}

impl HostExecutor {
    /// Forks the executor, or stores the socket of the executor service. This process has one thread, and no secret
    /// is in memory yet.
    pub(crate) fn start(config: &Config) -> HostExecutor {
        let connection = if let Some(socket) = &config.executor_socket {
            Connection::Service(socket.clone())
        } else if config.helper_socket.is_some() || !Uid::effective().is_root() {
            Connection::Unavailable(
                "onecli-daemon was started without privileges and without --executor-socket".to_owned(),
            )
        } else {
            fork(&config.backend.exec.user)
        };
        HostExecutor(Arc::new(connection))
    }

    /// Returns the reason why commands cannot run; `None` if they can.
    pub(crate) fn off(&self) -> Option<&str> {
        match &*self.0 {
            Connection::Unavailable(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Returns the uids that agents must not have: the executor's, and the daemon's if it is a service. A daemon that a
/// user starts may serve agents with that user's uid.
pub(crate) fn own_uids(config: &Config) -> Vec<u32> {
    let executor = User::from_name(&config.backend.exec.user).ok().flatten().map(|user| user.uid);
    let daemon = config.helper_socket.is_some().then(Uid::effective);
    executor.into_iter().chain(daemon).map(Uid::as_raw).collect()
}

fn fork(name: &str) -> Connection {
    let found = User::from_name(name).ok().flatten();
    let Some(user) = found.filter(|user| !user.uid.is_root()) else {
        return Connection::Unavailable(format!(
            "commands run as the user '{name}' ([backend.exec] user), which is root or does not exist: create a user \
             (useradd --system {name}), and restart the daemon"
        ));
    };
    match privilege::fork(c"onecli-executor", move |daemon| server::child(&daemon, &user)) {
        Ok(channel) => Connection::Child(Mutex::new(channel)),
        Err(error) => Connection::Unavailable(error_chain(&error)),
    }
}

impl Connection {
    /// Passes a command to the executor. Blocks until it is accepted.
    fn ask(&self, request: &Request, outcome: OwnedFd) -> Result<(), String> {
        let message = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let lost = |error: io::Error| format!("the executor process does not answer: {error}");
        match self {
            Connection::Child(channel) => {
                let channel = channel.lock();
                channel.send(&message, &[outcome]).map_err(lost)
            }
            Connection::Service(socket) => {
                let channel = Channel::connect(socket).map_err(lost)?;
                channel.send(&message, &[outcome]).map_err(lost)
            }
            Connection::Unavailable(reason) => Err(reason.clone()),
        }
    }
}

#[async_trait]
impl Executor for HostExecutor {
    async fn run(&self, command: &SourceCommand) -> Result<Zeroizing<Vec<u8>>, String> {
        let (outcome, theirs) = io::pipe().map_err(|error| error.to_string())?;
        let (connection, request) = (Arc::clone(&self.0), Request { command: command.clone() });
        let running = async {
            let asking = tokio::task::spawn_blocking(move || connection.ask(&request, theirs.into()));
            asking.await.map_err(|error| error.to_string())??;
            read(outcome).await
        };
        let late = |_| format!("the executor process did not answer within {PATIENCE:?}");
        tokio::time::timeout(PATIENCE, running).await.map_err(late)?
    }
}

/// Reads an outcome to its end.
async fn read(from: PipeReader) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: io::Error| format!("the executor process does not answer: {error}");
    let pipe = pipe::Receiver::from_owned_fd(from.into()).map_err(failed)?;
    // Fixed size: a reallocation would leave a copy in memory that is never zeroed.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST + 2));
    let mut pipe = pipe.take(LARGEST as u64 + 1);
    while pipe.read_buf(&mut *bytes).await.map_err(failed)? > 0 {}
    match bytes.first() {
        Some(&PRINTED) => {
            bytes.remove(0);
            Ok(bytes)
        }
        Some(_) => Err(String::from_utf8_lossy(&bytes[1..]).into_owned()),
        None => Err("the executor process did not run the command (see its log for the reason)".to_owned()),
    }
}
