//! The CLI's side of the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use onecli_api::{DEFAULT_SOCKET, ErrorBody, ErrorDetail, HELP};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::output::Report;
use super::unit::{UnitState, unit_state};

/// A command that takes longer than this has failed.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Room for the largest request, so that a credential in it is not copied about as the buffer grows.
const REQUEST_CAPACITY: usize = 96 * 1024;

/// Where the daemon says what went wrong.
const DAEMON_LOG: &str = "see the daemon's log ('journalctl -u onecli-daemon')";
/// The usual reason for an answer of another form.
pub(super) const SAME_VERSION: &str =
    "use the same version of onecli and onecli-daemon ('onecli --version', 'onecli status')";

/// Why the daemon gave no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody answers.
    #[error(
        "no OneCLI daemon answers on {}: {source}\n\
         help: start it ('systemctl start onecli-daemon'), or name its socket with --socket or ONECLI_SOCKET",
        socket.display()
    )]
    NotReachable {
        /// The socket.
        socket: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The socket's file permissions keep us out.
    #[error("you may not open {}\nhelp: use sudo, or join the group 'onecli'", .0.display())]
    SocketDenied(PathBuf),
    /// The daemon went away in the middle.
    #[error("the daemon broke the connection off: {0}\nhelp: {DAEMON_LOG}")]
    BrokenOff(String),
    /// Nothing answers, and the service manager knows why.
    #[error(
        "the daemon is not reachable: onecli-daemon.service failed{}\n\
         help: 'onecli doctor' shows what is wrong, and 'journalctl -u onecli-daemon' the daemon's log",
        .0.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
    )]
    Failed(Option<String>),
    /// The daemon took too long.
    #[error("the daemon gave no answer within {} seconds\nhelp: {DAEMON_LOG}", .0.as_secs())]
    Timeout(Duration),
    /// The daemon said no.
    #[error("{}{}", .0.message, Hint(&.0.hint))]
    Refused(ErrorDetail),
    /// The daemon said that we may not.
    #[error("{}{}", .0.message, Hint(&.0.hint))]
    NotPermitted(ErrorDetail),
    /// The request or the answer is not JSON as we know it.
    #[error("cannot understand the daemon: {0}\nhelp: {SAME_VERSION}")]
    Json(#[from] serde_json::Error),
    /// The process has no means left to talk.
    #[error("cannot start talking to the daemon: {0}")]
    Runtime(io::Error),
}

/// The next step as an error's text has it.
struct Hint<'h>(&'h str);

impl std::fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{HELP}{}", self.0) }
    }
}

impl ClientError {
    /// Does no daemon answer, or not any more?
    pub(super) fn is_gone(&self) -> bool {
        matches!(
            self,
            ClientError::NotReachable { .. }
                | ClientError::BrokenOff(_)
                | ClientError::Timeout(_)
                | ClientError::Failed(_)
        )
    }

    /// A word for programs.
    fn code(&self) -> &str {
        match self {
            ClientError::NotReachable { .. } | ClientError::Failed(_) => "daemon_not_reachable",
            ClientError::SocketDenied(_) => "not_permitted",
            ClientError::BrokenOff(_) => "connection_lost",
            ClientError::Timeout(_) => "timeout",
            ClientError::Refused(detail) | ClientError::NotPermitted(detail) => &detail.code,
            ClientError::Json(_) => "unreadable_answer",
            ClientError::Runtime(_) => "failed",
        }
    }

    pub(super) fn report(&self) -> Report {
        match self {
            // The daemon's text may hold what an agent chose: it is not searched for a hint.
            ClientError::Refused(detail) | ClientError::NotPermitted(detail) => Report {
                code: detail.code.clone(),
                message: detail.message.clone(),
                hint: detail.hint.clone(),
            },
            other => Report::new(other.code(), other),
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            ClientError::NotReachable { .. }
            | ClientError::Failed(_)
            | ClientError::BrokenOff(_)
            | ClientError::Timeout(_) => 3,
            ClientError::SocketDenied(_) | ClientError::NotPermitted(_) => 4,
            ClientError::Refused(_) | ClientError::Json(_) | ClientError::Runtime(_) => 1,
        }
    }
}

/// Asks the daemon, one question per connection. Nothing of it lives on between questions: no thread, no file.
pub(super) struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Client {
        Client::patient(socket, TIMEOUT)
    }

    /// Gives up a question after `patience`.
    pub(super) fn patient(socket: PathBuf, patience: Duration) -> Client {
        Client { socket, patience }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None::<&()>)
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Some(body))
    }

    /// A POST that says all by its path.
    pub(super) fn act<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::POST, path, None::<&()>)
    }

    pub(super) fn put<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::PUT, path, None::<&()>)
    }

    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::DELETE, path, None::<&()>)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let mut bytes = Zeroizing::new(Vec::new());
        if let Some(body) = body {
            bytes.reserve_exact(REQUEST_CAPACITY);
            serde_json::to_writer(&mut *bytes, body)?;
        }
        block_on(async {
            let whole = async {
                let answer = self.send(method, path, bytes).await?;
                Ok::<_, ClientError>(answer.collect().await.map_err(|error| broken_off(&error))?.to_bytes())
            };
            let answer = tokio::time::timeout(self.patience, whole)
                .await
                .map_err(|_| ClientError::Timeout(self.patience))??;
            Ok(serde_json::from_slice(&answer)?)
        })
        .map_err(|error| self.explained(error))
    }

    /// A daemon that failed at its start is told apart from one that does not run: systemd keeps its socket open.
    fn explained(&self, error: ClientError) -> ClientError {
        if !error.is_gone() {
            return error;
        }
        match self.unit_state() {
            Some(UnitState::Failed(reason)) => ClientError::Failed(reason),
            _ => error,
        }
    }

    /// What systemd knows of the daemon behind this socket.
    pub(super) fn unit_state(&self) -> Option<UnitState> {
        if self.socket == Path::new(DEFAULT_SOCKET) { unit_state() } else { None }
    }

    /// Reads an answer line by line, for as long as it goes on. `each` gets a line without its end; its error
    /// ends the reading.
    pub(super) fn lines<E: From<ClientError>>(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        block_on_any(async {
            let mut answer = self.send(Method::GET, path, Zeroizing::default()).await?;
            let mut rest = Vec::new();
            while let Some(frame) = answer.frame().await {
                let Ok(data) = frame.map_err(|error| broken_off(&error))?.into_data() else { continue };
                rest.extend_from_slice(&data);
                let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
                for line in rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    each(line)?;
                }
                rest.drain(..whole);
            }
            Ok(())
        })
    }

    /// Reads an answer that is a file, for as long as it takes.
    pub(super) fn bytes<E: From<ClientError>>(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        block_on_any(async {
            let mut answer = self.send(Method::GET, path, Zeroizing::default()).await?;
            // An answer that ends early is an error here: its length, or its last chunk, is missing.
            while let Some(frame) = answer.frame().await {
                if let Ok(data) = frame.map_err(|error| broken_off(&error))?.into_data() {
                    each(&data)?;
                }
            }
            Ok(())
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Incoming, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::SocketDenied(self.socket.clone()),
            _ => ClientError::NotReachable { socket: self.socket.clone(), source },
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken_off(&error))?;
        // Ends with the runtime; what goes wrong in it shows in the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "onecli")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from_owner(body)))
            .map_err(|error| ClientError::BrokenOff(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| broken_off(&error))?;
        let status = response.status();
        let answer = response.into_body();
        if status.is_success() {
            return Ok(answer);
        }
        let answer = answer.collect().await.map_err(|error| broken_off(&error))?.to_bytes();
        let detail = serde_json::from_slice::<ErrorBody>(&answer)?.error;
        Err(match status {
            StatusCode::FORBIDDEN => ClientError::NotPermitted(detail),
            _ => ClientError::Refused(detail),
        })
    }
}

fn broken_off(error: &hyper::Error) -> ClientError {
    ClientError::BrokenOff(error.to_string())
}

fn block_on<T>(future: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    block_on_any(future)
}

/// A runtime on this thread alone, gone when this returns: what `run` does next needs a process of one thread.
fn block_on_any<T, E: From<ClientError>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
    runtime.block_on(future)
}
