//! The CLI's side of the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::admin::api::{ErrorBody, ErrorDetail};

/// A command that takes longer than this has failed.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Room for the largest request, so that a credential in it is not copied about as the buffer grows.
const REQUEST_CAPACITY: usize = 96 * 1024;

/// Why the daemon gave no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nobody answers.
    #[error(
        "no OneCLI daemon answers on {}: {source}\n\
         start it ('systemctl start onecli-daemon'), or name its socket with --socket or ONECLI_SOCKET",
        socket.display()
    )]
    NotReachable {
        /// The socket.
        socket: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The socket's file permissions keep us out.
    #[error("you may not open {}: use sudo, or join the group 'onecli'", .0.display())]
    SocketDenied(PathBuf),
    /// The daemon went away in the middle.
    #[error("the daemon broke the connection off: {0}; see its log")]
    BrokenOff(String),
    /// The daemon took too long.
    #[error("the daemon gave no answer within {} seconds; see its log", TIMEOUT.as_secs())]
    Timeout,
    /// The daemon said no.
    #[error("{}{}", .0.message, Hint(&.0.hint))]
    Refused(ErrorDetail),
    /// The daemon said that we may not.
    #[error("{}{}", .0.message, Hint(&.0.hint))]
    NotPermitted(ErrorDetail),
    /// The request or the answer is not JSON as we know it.
    #[error("cannot understand the daemon: {0}; are onecli and onecli-daemon of the same version?")]
    Json(#[from] serde_json::Error),
    /// The process has no means left to talk.
    #[error("cannot start talking to the daemon: {0}")]
    Runtime(io::Error),
}

struct Hint<'h>(&'h str);

impl std::fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "\n{}", self.0) }
    }
}

impl ClientError {
    /// Does no daemon answer, or not any more?
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, ClientError::NotReachable { .. } | ClientError::BrokenOff(_) | ClientError::Timeout)
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            ClientError::NotReachable { .. } | ClientError::BrokenOff(_) | ClientError::Timeout => 3,
            ClientError::SocketDenied(_) | ClientError::NotPermitted(_) => 4,
            ClientError::Refused(_) | ClientError::Json(_) | ClientError::Runtime(_) => 1,
        }
    }
}

/// Asks the daemon, one question per connection. Nothing of it lives on between questions: no thread, no file.
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Client {
        Client { socket }
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
            let answer = tokio::time::timeout(TIMEOUT, whole).await.map_err(|_| ClientError::Timeout)??;
            Ok(serde_json::from_slice(&answer)?)
        })
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
