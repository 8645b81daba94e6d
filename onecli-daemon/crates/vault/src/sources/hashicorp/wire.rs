//! The HTTP client for the server: bounded in time and size, without redirects, with retries where they are safe.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use onecli_model::Host;
use onecli_tls::ServiceTls;
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::error::BackendError;

/// The largest response, in bytes.
const LARGEST: usize = 1 << 20;
/// The most idle connections.
const MOST_IDLE: usize = 4;
/// The most tries of a request, if the server asks to retry.
const TRIES: u32 = 4;
/// The pause before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest `Retry-After` that is respected.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Characters that would end a path, or have another meaning in it.
const PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// The server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    host: Host,
    port: u16,
}

impl Address {
    /// Parses `https://HOST[:PORT]`; `http://` is for loopback addresses only. The default port is 8200.
    ///
    /// # Errors
    /// [`BackendError::Address`].
    pub fn parse(text: &str) -> Result<Address, BackendError> {
        let bad = |reason: &str| BackendError::Address(format!("'{}' {reason}", shown(text)));
        let uri: Uri = text.parse().map_err(|_| bad("is not a URL such as https://vault.example:8200"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("needs https:// before the host")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("has a path; only scheme, host and port belong there"));
        }
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("contains user information"));
        }
        let host: Host = authority.host().parse().map_err(|_| bad("has no usable host"))?;
        let port = authority.port_u16().unwrap_or(8200);
        let loopback = match &host {
            Host::Name(name) => name == "localhost",
            Host::V4(_) | Host::V6(_) => host.as_ip().is_some_and(|ip: IpAddr| ip.is_loopback()),
        };
        if !tls && !loopback {
            return Err(bad("would send the token in the clear: use https://"));
        }
        Ok(Address { tls, host, port })
    }

    /// Whether the connection uses TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::V6(ip) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// One request.
pub(super) struct Call<'c> {
    /// The method.
    pub(super) method: Method,
    /// The path below `/v1/`.
    pub(super) path: &'c str,
    /// The query after `?`, encoded.
    pub(super) query: Option<&'c str>,
    /// The caller's token.
    pub(super) token: Option<Arc<Zeroizing<String>>>,
    /// The body, in JSON.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    /// Whether it may be sent again if it is unknown whether it arrived.
    pub(super) repeatable: bool,
}

impl<'c> Call<'c> {
    /// Builds a read of `path`.
    pub(super) fn get(path: &'c str) -> Call<'c> {
        Call { method: Method::GET, path, query: None, token: None, body: None, repeatable: true }
    }

    /// Builds a post of `body` as JSON.
    pub(super) fn post(path: &'c str, body: &impl Serialize) -> Result<Call<'c>, BackendError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| BackendError::Answer { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Call {
            method: Method::POST,
            path,
            query: None,
            token: None,
            body: Some(Zeroizing::new(body)),
            repeatable: false,
        })
    }

    /// Adds the caller's token.
    pub(super) fn by(self, token: &Arc<Zeroizing<String>>) -> Call<'c> {
        Call { token: Some(Arc::clone(token)), ..self }
    }
}

/// The server's response.
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The body, zeroed when dropped.
    pub(super) body: Zeroizing<Vec<u8>>,
    retry_after: Option<Duration>,
}

/// The connection to the server.
pub(super) struct Wire {
    address: Address,
    tls: Option<ServiceTls>,
    namespace: Option<HeaderValue>,
    timeout: Duration,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
}

/// The connection was closed before anything was sent on it.
struct Died;

impl Wire {
    pub(super) fn new(
        address: Address,
        tls: Option<ServiceTls>,
        namespace: Option<HeaderValue>,
        timeout: Duration,
    ) -> Wire {
        Wire { address, tls, namespace, timeout, idle: Arc::default() }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_ref().and_then(|value| value.to_str().ok())
    }

    /// Sends a request, and retries if the server asks for it, all within the configured time.
    ///
    /// # Errors
    /// [`BackendError`] if there is no response, or the response says that the server cannot serve now. Other
    /// statuses are returned.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Answer, BackendError> {
        let timed_out =
            |_| BackendError::TimedOut { address: self.address.to_string(), within: self.timeout };
        tokio::time::timeout(self.timeout, self.tries(call)).await.map_err(timed_out)?
    }

    async fn tries(&self, call: &Call<'_>) -> Result<Answer, BackendError> {
        let mut pause = FIRST_PAUSE;
        for left in (0..TRIES).rev() {
            let outcome = self.once(call).await;
            let retry_after = outcome.as_ref().ok().and_then(|answer| answer.retry_after);
            let failed = match outcome {
                Ok(answer) => match refusal_of(answer.status) {
                    None => return Ok(answer),
                    Some(refusal) => refusal,
                },
                Err(error) if call.repeatable => error,
                Err(error) => return Err(error),
            };
            let again = matches!(
                failed,
                BackendError::NotCaughtUp | BackendError::RateLimited | BackendError::Standby(_)
            ) || matches!(failed, BackendError::Unreachable { .. });
            if left == 0 || !again {
                return Err(failed);
            }
            tokio::time::sleep(retry_after.unwrap_or(pause)).await;
            pause *= 2;
        }
        Err(BackendError::NotCaughtUp)
    }

    async fn once(&self, call: &Call<'_>) -> Result<Answer, BackendError> {
        let kept = self.idle.lock().pop();
        if let Some(sender) = kept
            && let Ok(answer) = self.send(sender, call).await?
        {
            return Ok(answer);
        }
        let sender = self.connect().await?;
        self.send(sender, call).await?.map_err(|Died| self.unreachable(&"the connection was closed at once"))
    }

    /// Sends on this connection. Returns [`Died`] only if nothing was sent.
    async fn send(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        call: &Call<'_>,
    ) -> Result<Result<Answer, Died>, BackendError> {
        if sender.ready().await.is_err() {
            return Ok(Err(Died));
        }
        let response = match sender.try_send_request(self.request(call)?).await {
            Ok(response) => response,
            Err(mut failed) => {
                if failed.take_message().is_some() {
                    return Ok(Err(Died));
                }
                return Err(self.unreachable(&failed.error()));
            }
        };
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        let mut incoming = Limited::new(response.into_body(), LARGEST);
        let mut body = Zeroizing::new(Vec::new());
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| self.unreachable(&error))?;
            if let Some(data) = frame.data_ref() {
                // Grown manually: a reallocation would leave a copy behind that is not zeroed.
                if body.capacity() - body.len() < data.len() {
                    let mut larger = Zeroizing::new(Vec::with_capacity(2 * (body.len() + data.len()) + 4096));
                    larger.extend_from_slice(&body);
                    body = larger;
                }
                body.extend_from_slice(data);
            }
        }
        let mut idle = self.idle.lock();
        if idle.len() < MOST_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
        drop(idle);
        Ok(Ok(Answer { status, body, retry_after }))
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, BackendError> {
        let path = utf8_percent_encode(call.path, PATH);
        let target = match call.query {
            Some(query) => format!("/v1/{path}?{query}"),
            None => format!("/v1/{path}"),
        };
        let body = call.body.as_ref().map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body));
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(target)
            .header(header::HOST, self.address.to_string())
            // Vault refuses requests from a browser that follows a link: a browser cannot set this header.
            .header("x-vault-request", "true");
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(token) = &call.token {
            let mut value = HeaderValue::from_str(token).map_err(|_| BackendError::Login {
                method: "token",
                reason: "the token contains characters that a header cannot carry".to_owned(),
            })?;
            value.set_sensitive(true);
            request = request.header("x-vault-token", value);
        }
        request
            .body(Full::new(body))
            .map_err(|error| BackendError::Answer { path: call.path.to_owned(), reason: error.to_string() })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, BackendError> {
        let tcp = match self.address.host.as_ip() {
            Some(ip) => TcpStream::connect((ip, self.address.port)).await,
            None => TcpStream::connect((self.address.host.to_string(), self.address.port)).await,
        }
        .map_err(|error| self.unreachable(&error))?;
        let _ = tcp.set_nodelay(true);
        match &self.tls {
            None => self.shake(TokioIo::new(tcp)).await,
            Some(tls) => {
                let stream = tls.connect(&self.address.host, tcp).await;
                self.shake(TokioIo::new(stream.map_err(|error| self.unreachable(&error))?)).await
            }
        }
    }

    async fn shake<I>(&self, io: I) -> Result<SendRequest<Full<Bytes>>, BackendError>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(io).await.map_err(|error| self.unreachable(&error))?;
        tokio::spawn(async move {
            // The sender reports the failure to the waiting caller.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn unreachable(&self, reason: &dyn fmt::Display) -> BackendError {
        BackendError::Unreachable { address: self.address.to_string(), reason: reason.to_string() }
    }
}

/// Maps statuses that concern the server rather than the request.
fn refusal_of(status: StatusCode) -> Option<BackendError> {
    match status.as_u16() {
        300..=399 => Some(BackendError::Redirect),
        412 => Some(BackendError::NotCaughtUp),
        429 => Some(BackendError::RateLimited),
        code @ (472 | 473) => Some(BackendError::Standby(code)),
        503 => Some(BackendError::Sealed),
        _ => None,
    }
}

fn shown(text: &str) -> String {
    // A password may stand between the scheme and '@'.
    let text = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://..@{rest}"),
        _ => text.to_owned(),
    };
    text.chars().take(200).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Result<&str, &str>| match (Address::parse(text), expected) {
            (Ok(address), Ok(expected)) => assert_eq!(address.to_string(), expected, "{text}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{text}: {error}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("https://vault.example", Ok("vault.example:8200"));
        check("https://Vault.Example:443/", Ok("vault.example:443"));
        check("https://[2001:db8::1]:8200", Ok("[2001:db8::1]:8200"));
        check("http://127.0.0.1:8200", Ok("127.0.0.1:8200"));
        check("http://[::1]:8200", Ok("[::1]:8200"));
        check("http://vault.example:8200", Err("in the clear"));
        check("http://10.0.0.1:8200", Err("in the clear"));
        check("vault.example:8200", Err("https://"));
        check("https://vault.example/v1", Err("has a path"));
        check("https://user:hunter22@vault.example", Err("user information"));
        assert!(
            !Address::parse("https://user:hunter22@v.example").unwrap_err().to_string().contains("hunter22")
        );
    }
}
