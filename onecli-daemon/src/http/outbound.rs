//! Requests of the daemon's own: to token endpoints, for the vault.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use uuid::Uuid;

use super::outward::{Outward, UpstreamProxy};
use crate::model::{AgentId, Authority, Reach};
use crate::net::{Dialer, Resolver};
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

    async fn exchange(
        &self,
        authority: &Authority,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, String> {
        let opened =
            self.outward.open(authority, &Reach::open()).await.map_err(|refusal| refusal.to_string())?;
        let tls = self.outward.tls.connect(AgentId(Uuid::nil()), authority, Alpn::Http1, opened.stream);
        let stream = tls.await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let host = HeaderValue::try_from(authority.to_header(443)).map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, host);
        let answer = sender.send_request(request.map(Full::new)).await.map_err(|error| error.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MOST).collect().await.map_err(|error| error.to_string())?;
        connection.abort();
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

#[async_trait]
impl Outbound for OwnRequests {
    async fn send(
        &self,
        authority: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, OutboundError> {
        match tokio::time::timeout(PATIENCE, self.exchange(authority, request)).await {
            Ok(answered) => answered.map_err(OutboundError),
            Err(_) => Err(OutboundError("no answer within 15 seconds".to_owned())),
        }
    }
}
