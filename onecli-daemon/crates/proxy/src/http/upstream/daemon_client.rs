//! The daemon's own requests: to token endpoints, for the vault, and to receivers of audit log checkpoints. Requests
//! to token endpoints carry a credential, so each is audited like an agent's request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use onecli_audit::{AuditLog, ConnectionMode, Record, Text};
use onecli_model::{AddressScope, AgentId, Authority, Clock, Code, Random, Refusal, RequestId};
use onecli_net::{Dialer, Resolver, Transport};
use onecli_tls::{Alpn, UpstreamTls};
use onecli_vault::{DaemonRequestError, Purpose, TokenEndpointClient};
use uuid::Uuid;

use crate::http::body::len;
use crate::upstream::connector::{UpstreamConnector, UpstreamProxy, timed_out};

/// Time limit for one request, including its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest response, in bytes.
const MAX_RESPONSE: usize = 1 << 20;

/// The parts with which the daemon's own requests reach upstreams.
#[derive(Debug)]
pub struct DaemonClientParts {
    /// Resolves names to checked addresses.
    pub resolver: Arc<Resolver>,
    /// Connects to the resolved addresses.
    pub dialer: Dialer,
    /// The daemon's own TLS client. It shares no sessions with any agent.
    pub tls: UpstreamTls,
    /// The proxy to the upstreams, if one is configured.
    pub proxy: Option<UpstreamProxy>,
}

/// The parts that record the daemon's own requests.
#[derive(Debug)]
pub struct DaemonRecorder {
    /// The audit log.
    pub audit: AuditLog,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for request ids.
    pub random: Arc<dyn Random>,
}

/// Sends the daemon's own requests on the same path as agents' requests: names, checked addresses, the operator's
/// proxy, trusted roots. No connection is reused.
#[derive(Debug)]
pub struct DaemonClient {
    connector: UpstreamConnector,
    recorder: DaemonRecorder,
}

impl DaemonClient {
    /// Sends requests with `parts`, and records them with `recorder`.
    pub fn new(parts: DaemonClientParts, recorder: DaemonRecorder) -> DaemonClient {
        let DaemonClientParts { resolver, dialer, tls, proxy } = parts;
        DaemonClient {
            connector: UpstreamConnector { resolver, dialer, tls: Arc::new(tls), proxy },
            recorder,
        }
    }

    /// Sends a request without a secret, and without an audit record.
    ///
    /// # Errors
    /// [`DaemonRequestError`]: no response within 15 seconds.
    pub async fn send_unaudited(
        &self,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, DaemonRequestError> {
        in_time(async {
            let opened = self.connector.open(authority, &AddressScope::open()).await?;
            let tls = self.connector.tls.connect(AgentId(Uuid::nil()), authority, Alpn::Http1, opened.stream);
            let stream = tls.await.map_err(|error| Fault::new(Code::UpstreamTls, &error))?;
            talk(Box::new(stream), named(request, authority, 443)?).await
        })
        .await
        .map_err(|fault| DaemonRequestError(fault.message))
    }

    /// Sends such a request without TLS.
    ///
    /// # Errors
    /// As [`DaemonClient::send_unaudited`].
    pub async fn send_plain_unaudited(
        &self,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, DaemonRequestError> {
        in_time(async {
            let opened = self.connector.open_plain(authority, &AddressScope::open()).await?;
            let mut request = named(request, authority, 80)?;
            if let Some(relay) = opened.relay {
                let absolute = format!("http://{}{}", authority.to_header(80), request.uri());
                *request.uri_mut() =
                    absolute.parse::<Uri>().map_err(|error| Fault::new(Code::Internal, &error))?;
                if let Some(authorization) = relay.authorization {
                    request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
                }
            }
            talk(opened.stream, request).await
        })
        .await
        .map_err(|fault| DaemonRequestError(fault.message))
    }

    async fn exchange(
        &self,
        audit: &mut DaemonAudit<'_>,
        purpose: Purpose<'_>,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Fault> {
        let opened = self.connector.open(authority, &AddressScope::open()).await?;
        audit.record.address = Some(Text::new(&opened.address.to_string()));
        let tls = self.connector.tls.connect(AgentId(Uuid::nil()), authority, Alpn::Http1, opened.stream);
        let stream = tls.await.map_err(|error| Fault::new(Code::UpstreamTls, &error))?;
        audit.record.tls = Some(Text::new(stream.version()));
        audit.record.http_mut().alpn = Some(Text::new("http/1.1"));
        let request = named(request, authority, 443)?;
        audit.decide(purpose).await?;
        audit.record.bytes_in = Some(len(request.body()));
        let answer = talk(Box::new(stream), request).await?;
        audit.record.status = Some(answer.status().as_u16());
        audit.record.bytes_out = Some(len(answer.body()));
        Ok(answer)
    }
}

#[async_trait]
impl TokenEndpointClient for DaemonClient {
    async fn send(
        &self,
        purpose: Purpose<'_>,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, DaemonRequestError> {
        let mut audit = DaemonAudit::begin(&self.recorder, purpose, authority, &request)?;
        let sent = in_time(self.exchange(&mut audit, purpose, authority, request)).await;
        audit.end(sent.as_ref().err().map(|fault| fault.code));
        sent.map_err(|fault| DaemonRequestError(fault.message))
    }
}

/// Adds the target host to the request.
fn named(
    mut request: Request<Bytes>,
    authority: &Authority,
    default_port: u16,
) -> Result<Request<Bytes>, Fault> {
    let host = HeaderValue::try_from(authority.to_header(default_port));
    request.headers_mut().insert(header::HOST, host.map_err(|error| Fault::new(Code::Internal, &error))?);
    Ok(request)
}

async fn talk(stream: Box<dyn Transport>, request: Request<Bytes>) -> Result<Response<Bytes>, Fault> {
    let broken = |error: hyper::Error| Fault::new(Code::UpstreamProtocol, &error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    let answer = sender.send_request(request.map(Full::new)).await.map_err(broken)?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, MAX_RESPONSE).collect().await;
    let body = body.map_err(|error| Fault::new(Code::UpstreamProtocol, &*error))?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

async fn in_time(
    exchange: impl Future<Output = Result<Response<Bytes>, Fault>>,
) -> Result<Response<Bytes>, Fault> {
    match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
        Ok(answered) => answered,
        Err(_) => Err(timed_out("the response").into()),
    }
}

/// The reason that there is no response.
struct Fault {
    code: Code,
    message: String,
}

impl Fault {
    fn new(code: Code, error: &(impl std::fmt::Display + ?Sized)) -> Fault {
        Fault { code, message: error.to_string() }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault { code: refusal.code, message: refusal.to_string() }
    }
}

/// The audit records of one request: a decision before anything is sent, and an outcome.
struct DaemonAudit<'r> {
    recorder: &'r DaemonRecorder,
    record: Record,
    started: Instant,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Decided,
    Closed,
}

impl<'r> DaemonAudit<'r> {
    fn begin(
        recorder: &'r DaemonRecorder,
        purpose: Purpose<'_>,
        authority: &Authority,
        request: &Request<Bytes>,
    ) -> Result<DaemonAudit<'r>, DaemonRequestError> {
        let id = RequestId::generate(recorder.clock.now(), recorder.random.as_ref())
            .map_err(|error| DaemonRequestError(error.to_string()))?;
        let mut record = Record::new(id);
        record.agent = Some(purpose.agent.clone());
        record.mode = Some(ConnectionMode::Daemon);
        let http = record.http_mut();
        http.method = Some(Text::new(request.method().as_str()));
        http.path = Some(Text::new(request.uri().path()));
        record.target(authority.host(), authority.port());
        Ok(DaemonAudit { recorder, record, started: recorder.clock.instant(), state: State::Open })
    }

    /// Writes the decision. When this returns, the record is on disk.
    async fn decide(&mut self, purpose: Purpose<'_>) -> Result<(), Fault> {
        self.record.inject([(purpose.secret, purpose.version)]);
        // If this future is dropped meanwhile, an outcome is still required, because the log writes the record that
        // it has received.
        self.state = State::Decided;
        let written = self.recorder.audit.decision(self.record.clone()).await;
        written.map(drop).map_err(|error| {
            self.state = State::Open;
            Fault::new(Code::AuditUnavailable, &error)
        })
    }

    fn end(&mut self, fault: Option<Code>) {
        let record = match self.state {
            State::Closed => return,
            State::Open => self.record.deny(fault.unwrap_or(Code::Interrupted)).clone(),
            State::Decided => {
                if let Some(code) = fault {
                    self.record.code = Some(Text::new(code.as_str()));
                }
                let elapsed = self.recorder.clock.instant().duration_since(self.started);
                self.record.duration_us = Some(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
                self.record.outcome()
            }
        };
        self.state = State::Closed;
        self.recorder.audit.outcome(record);
    }
}

impl Drop for DaemonAudit<'_> {
    fn drop(&mut self) {
        self.end(Some(Code::Interrupted));
    }
}

/// A connection that is not needed after its response.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
