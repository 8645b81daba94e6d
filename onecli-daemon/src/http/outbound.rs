//! Requests of the daemon's own: to token endpoints, for the vault. A credential leaves with them, so each is on record as
//! an agent's is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use uuid::Uuid;

use super::body::len;
use super::outward::{Outward, UpstreamProxy, timed_out};
use crate::audit::{AuditLog, Mode, Record, Text};
use crate::model::{AgentId, Authority, Clock, Code, Random, Reach, Refusal, RequestId};
use crate::net::{Dialer, Resolver};
use crate::tls::{Alpn, UpstreamTls};
use crate::vault::{Outbound, OutboundError, Purpose};

/// For the whole of one request and its answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest answer, in bytes.
const MOST: usize = 1 << 20;

/// How the daemon's own requests reach upstreams.
#[derive(Debug)]
pub struct OwnWay {
    /// Names to checked addresses.
    pub resolver: Arc<Resolver>,
    /// Connects to them.
    pub dialer: Dialer,
    /// Its own: sessions are not shared with any agent.
    pub tls: UpstreamTls,
    /// The proxy that upstreams are reached through, where there is one.
    pub proxy: Option<UpstreamProxy>,
}

/// Where the daemon's own requests are recorded.
#[derive(Debug)]
pub struct OwnRecords {
    /// The log.
    pub audit: AuditLog,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for request ids.
    pub random: Arc<dyn Random>,
}

/// Reaches what agents could reach, on the same way: names, checked addresses, the operator's proxy, roots. No connection
/// is kept.
#[derive(Debug)]
pub struct OwnRequests {
    outward: Outward,
    records: OwnRecords,
}

impl OwnRequests {
    /// Sends on `way`, and records in `records`.
    pub fn new(way: OwnWay, records: OwnRecords) -> OwnRequests {
        let OwnWay { resolver, dialer, tls, proxy } = way;
        OwnRequests { outward: Outward { resolver, dialer, tls: Arc::new(tls), proxy }, records }
    }

    async fn exchange(
        &self,
        trail: &mut OwnTrail<'_>,
        purpose: Purpose<'_>,
        authority: &Authority,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Fault> {
        let opened = self.outward.open(authority, &Reach::open()).await?;
        trail.record.address = Some(Text::new(&opened.address.to_string()));
        let tls = self.outward.tls.connect(AgentId(Uuid::nil()), authority, Alpn::Http1, opened.stream);
        let stream = tls.await.map_err(|error| Fault::new(Code::UpstreamTls, &error))?;
        trail.record.tls = Some(Text::new(stream.version()));
        trail.record.alpn = Some(Text::new("http/1.1"));
        let broken = |error: hyper::Error| Fault::new(Code::UpstreamProtocol, &error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let _connection = AbortOnDrop(tokio::spawn(connection));
        let host = HeaderValue::try_from(authority.to_header(443))
            .map_err(|error| Fault::new(Code::Internal, &error))?;
        request.headers_mut().insert(header::HOST, host);
        trail.decide(purpose).await?;
        trail.record.bytes_in = Some(len(request.body()));
        let answer = sender.send_request(request.map(Full::new)).await.map_err(broken)?;
        let (parts, body) = answer.into_parts();
        trail.record.status = Some(parts.status.as_u16());
        let body = Limited::new(body, MOST).collect().await;
        let body = body.map_err(|error| Fault::new(Code::UpstreamProtocol, &*error))?.to_bytes();
        trail.record.bytes_out = Some(len(&body));
        Ok(Response::from_parts(parts, body))
    }
}

#[async_trait]
impl Outbound for OwnRequests {
    async fn send(
        &self,
        purpose: Purpose<'_>,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, OutboundError> {
        let mut trail = OwnTrail::begin(&self.records, purpose, authority, &request)?;
        let sent = tokio::time::timeout(PATIENCE, self.exchange(&mut trail, purpose, authority, request));
        let fault = match sent.await {
            Ok(Ok(answer)) => {
                trail.end(None);
                return Ok(answer);
            }
            Ok(Err(fault)) => fault,
            Err(_) => timed_out("the token endpoint's answer").into(),
        };
        trail.end(Some(fault.code));
        Err(OutboundError(fault.message))
    }
}

/// Why no answer came.
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

/// The records of one request: a decision before anything leaves, and an outcome.
struct OwnTrail<'r> {
    records: &'r OwnRecords,
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

impl<'r> OwnTrail<'r> {
    fn begin(
        records: &'r OwnRecords,
        purpose: Purpose<'_>,
        authority: &Authority,
        request: &Request<Bytes>,
    ) -> Result<OwnTrail<'r>, OutboundError> {
        let id = RequestId::generate(records.clock.now(), records.random.as_ref())
            .map_err(|error| OutboundError(error.to_string()))?;
        let mut record = Record::new(id);
        record.agent = Some(purpose.agent.clone());
        record.mode = Some(Mode::Daemon);
        record.method = Some(Text::new(request.method().as_str()));
        record.path = Some(Text::new(request.uri().path()));
        record.target(authority.host(), authority.port());
        Ok(OwnTrail { records, record, started: records.clock.instant(), state: State::Open })
    }

    /// When it returns, the record is on the disk.
    async fn decide(&mut self, purpose: Purpose<'_>) -> Result<(), Fault> {
        self.record.inject([(purpose.secret, purpose.version)]);
        // Dropped meanwhile, it owes an outcome: the log writes what it was given.
        self.state = State::Decided;
        let written = self.records.audit.decision(self.record.clone()).await;
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
                let elapsed = self.records.clock.instant().duration_since(self.started);
                self.record.duration_us = Some(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
                self.record.outcome()
            }
        };
        self.state = State::Closed;
        self.records.audit.outcome(record);
    }
}

impl Drop for OwnTrail<'_> {
    fn drop(&mut self) {
        self.end(Some(Code::Interrupted));
    }
}

/// A connection that nobody needs once its answer is there.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
