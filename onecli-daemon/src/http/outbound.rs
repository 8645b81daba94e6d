//! Requests of the daemon's own: to token endpoints, for the vault; to those who keep checkpoints of the audit log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use uuid::Uuid;

use super::outward::{Outward, UpstreamProxy};
use crate::model::{AgentId, Authority, Reach};
use crate::net::{Dialer, Resolver, Transport};
use crate::tls::{Alpn, UpstreamTls};
use crate::vault::{Outbound, OutboundError};

/// For the whole of one request and its answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest answer, in bytes.
const MOST: usize = 1 << 20;

/// Reaches what agents could reach, on the same way: names, checked addresses, the operator's proxy, roots. No connection
/// is kept.
#[derive(Debug)]
pub struct OwnRequests {
    outward: Outward,
}

impl OwnRequests {
    /// `tls` is its own: sessions are not shared with any agent.
    pub fn new(
        resolver: Arc<Resolver>,
        dialer: Dialer,
        tls: UpstreamTls,
        proxy: Option<UpstreamProxy>,
    ) -> OwnRequests {
        OwnRequests { outward: Outward { resolver, dialer, tls: Arc::new(tls), proxy } }
    }

    /// Sends a request in the clear, for what is no secret.
    ///
    /// # Errors
    /// As [`Outbound::send`].
    pub async fn send_plain(
        &self,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, OutboundError> {
        in_time(self.exchange_plain(authority, request)).await
    }

    async fn exchange(
        &self,
        authority: &Authority,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, String> {
        let opened = self.outward.open(authority, &Reach::open()).await.map_err(told)?;
        let tls = self.outward.tls.connect(AgentId(Uuid::nil()), authority, Alpn::Http1, opened.stream);
        let stream = tls.await.map_err(told)?;
        name_host(&mut request, authority, 443)?;
        talk(Box::new(stream), request).await
    }

    async fn exchange_plain(
        &self,
        authority: &Authority,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, String> {
        let opened = self.outward.open_plain(authority, &Reach::open()).await.map_err(told)?;
        name_host(&mut request, authority, 80)?;
        if let Some(relay) = opened.relay {
            let absolute = format!("http://{}{}", authority.to_header(80), request.uri());
            *request.uri_mut() = absolute.parse::<Uri>().map_err(told)?;
            if let Some(authorization) = relay.authorization {
                request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
            }
        }
        talk(opened.stream, request).await
    }
}

fn name_host(request: &mut Request<Bytes>, authority: &Authority, default_port: u16) -> Result<(), String> {
    let host = HeaderValue::try_from(authority.to_header(default_port)).map_err(told)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

async fn talk(stream: Box<dyn Transport>, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request.map(Full::new)).await.map_err(told)?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, MOST).collect().await.map_err(told)?;
    connection.abort();
    Ok(Response::from_parts(parts, body.to_bytes()))
}

async fn in_time(
    exchange: impl Future<Output = Result<Response<Bytes>, String>>,
) -> Result<Response<Bytes>, OutboundError> {
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(answered) => answered.map_err(OutboundError),
        Err(_) => Err(OutboundError("no answer within 15 seconds".to_owned())),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn told(error: impl ToString) -> String {
    error.to_string()
}

#[async_trait]
impl Outbound for OwnRequests {
    async fn send(
        &self,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, OutboundError> {
        in_time(self.exchange(authority, request)).await
    }
}
