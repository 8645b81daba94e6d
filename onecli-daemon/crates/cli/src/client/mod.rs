//! The client side of the admin socket.

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

use crate::host::systemd_unit::{UnitState, unit_state};

/// The time limit for a command.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Room for the largest request, so that a growing buffer does not leave copies of a credential behind.
const REQUEST_CAPACITY: usize = 96 * 1024;

/// The place where the daemon reports errors.
const DAEMON_LOG: &str = "see the daemon's log ('journalctl -u onecli-daemon')";
/// The usual cause of a response in an unexpected form.
pub(crate) const SAME_VERSION: &str =
    "use the same version of onecli and onecli-daemon ('onecli --version', 'onecli status')";

/// Why the daemon gave no valid response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No process listens on the socket.
    #[error(
        "no OneCLI daemon answers on {}: {source}\n\
         help: start it ('systemctl start onecli-daemon'), or name its socket with --socket or ONECLI_SOCKET",
        socket.display()
    )]
    NotReachable {
        /// The socket.
        socket: PathBuf,
        /// The error of connect(2).
        source: io::Error,
    },
    /// The socket's file permissions deny access.
    #[error("you may not open {}\nhelp: use sudo, or join the group 'onecli'", .0.display())]
    SocketDenied(PathBuf),
    /// The daemon closed the connection during the response.
    #[error("the daemon closed the connection: {0}\nhelp: {DAEMON_LOG}")]
    BrokenOff(String),
    /// No daemon listens, and the service manager knows the reason.
    #[error(
        "the daemon is not reachable: onecli-daemon.service failed{}\n\
         help: 'onecli doctor' shows the cause, and 'journalctl -u onecli-daemon' the daemon's log",
        .0.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
    )]
    Failed(Option<String>),
    /// The daemon did not respond in time.
    #[error("the daemon did not respond within {} seconds\nhelp: {DAEMON_LOG}", .0.as_secs())]
    Timeout(Duration),
    /// The daemon refused the request.
    #[error("{}{}", .0.message, Hint(&.0.hint))]
    Refused(ErrorDetail),
    /// The caller has no permission.
    #[error("{}{}", .0.message, Hint(&.0.hint))]
    NotPermitted(ErrorDetail),
    /// The request or the response is not the expected JSON.
    #[error("cannot parse the daemon's response: {0}\nhelp: {SAME_VERSION}")]
    Json(#[from] serde_json::Error),
    /// The process lacks resources for communication.
    #[error("cannot start the connection to the daemon: {0}")]
    Runtime(io::Error),
}

/// The next step, as part of an error's text.
struct Hint<'h>(&'h str);

impl std::fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{HELP}{}", self.0) }
    }
}

impl ClientError {
    /// Returns whether the daemon does not run or has disconnected.
    pub(crate) fn is_disconnected(&self) -> bool {
        matches!(
            self,
            ClientError::NotReachable { .. }
                | ClientError::BrokenOff(_)
                | ClientError::Timeout(_)
                | ClientError::Failed(_)
        )
    }

    /// Returns the machine-readable code.
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

    pub(crate) fn report(&self) -> ErrorDetail {
        match self {
            // The daemon's text may contain text from an agent, so it is not searched for a hint.
            ClientError::Refused(detail) | ClientError::NotPermitted(detail) => detail.clone(),
            other => ErrorDetail::new(other.code(), other),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
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

/// A client of the daemon, with one request per connection. No thread or file stays open between requests.
pub(crate) struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Client {
        Client::with_timeout(socket, TIMEOUT)
    }

    /// Creates a client whose requests time out after `timeout`.
    pub(crate) fn with_timeout(socket: PathBuf, timeout: Duration) -> Client {
        Client { socket, timeout }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None::<&()>)
    }

    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Some(body))
    }

    /// Sends a POST without a body.
    pub(crate) fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::POST, path, None::<&()>)
    }

    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::PUT, path, None::<&()>)
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
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
            let answer = tokio::time::timeout(self.timeout, whole)
                .await
                .map_err(|_| ClientError::Timeout(self.timeout))??;
            Ok(serde_json::from_slice(&answer)?)
        })
        .map_err(|error| self.with_unit_failure(error))
    }

    /// Distinguishes a daemon that failed at its start from one that does not run: systemd keeps the socket open in
    /// both cases.
    fn with_unit_failure(&self, error: ClientError) -> ClientError {
        if !error.is_disconnected() {
            return error;
        }
        match self.unit_state() {
            Some(UnitState::Failed(reason)) => ClientError::Failed(reason),
            _ => error,
        }
    }

    /// Returns systemd's state of the daemon behind this socket.
    pub(crate) fn unit_state(&self) -> Option<UnitState> {
        if self.socket == Path::new(DEFAULT_SOCKET) { unit_state() } else { None }
    }

    /// Reads a response line by line until it ends. `each` receives a line without its line break; its error ends the
    /// reading.
    pub(crate) fn lines<E: From<ClientError>>(
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

    /// Reads a response that is a file, without a time limit.
    pub(crate) fn bytes<E: From<ClientError>>(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        block_on_any(async {
            let mut answer = self.send(Method::GET, path, Zeroizing::default()).await?;
            // A response that ends early is an error here, because its length or its last chunk is missing.
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
        // The task ends with the runtime. Its errors appear in the response.
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

/// Runs a future on a runtime of this thread only, dropped on return. The next steps of `run` need a single-threaded
/// process.
fn block_on_any<T, E: From<ClientError>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
    runtime.block_on(future)
}
