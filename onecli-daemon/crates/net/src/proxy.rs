//! Connections through an upstream proxy (RFC 9110 section 9.3.6).

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use onecli_model::{Authority, ProxyUrl};
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes in both directions, over any lower layer.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// The reason why a proxy opened no connection.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy requires other credentials.
    #[error("it requires other credentials (407)")]
    Credentials,
    /// The proxy answered with a status other than 2xx.
    #[error("it refused the connection with status {0}")]
    Refused(StatusCode),
    /// The proxy does not speak HTTP, or closed the connection early.
    #[error("it ended the connection early: {0}")]
    Broken(#[from] hyper::Error),
    /// The request cannot be written.
    #[error("the request to it cannot be written: {0}")]
    Unasked(#[from] http::Error),
}

/// Returns the `Proxy-Authorization` value for `proxy`, if credentials are configured.
pub fn proxy_authorization(proxy: &ProxyUrl) -> Option<HeaderValue> {
    let credentials = proxy.credentials()?;
    let encoded = zeroize::Zeroizing::new(data_encoding::BASE64.encode(credentials.as_bytes()));
    let mut value = HeaderValue::try_from(format!("Basic {}", encoded.as_str())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Requests that the proxy at the other end of `stream` connect to `target`.
///
/// # Errors
/// [`ProxyError`].
pub async fn connect_through(
    stream: Box<dyn Transport>,
    proxy: &ProxyUrl,
    target: &Authority,
) -> Result<TokioIo<Upgraded>, ProxyError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the upstream proxy ended");
        }
    });
    // Its Display form brackets an IPv6 literal and always includes the port.
    let named = target.to_string();
    let mut request = Request::builder().method(Method::CONNECT).uri(named.as_str());
    request = request.header(header::HOST, named);
    if let Some(authorization) = proxy_authorization(proxy) {
        request = request.header(header::PROXY_AUTHORIZATION, authorization);
    }
    let mut response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    match response.status() {
        status if status.is_success() => Ok(TokioIo::new(hyper::upgrade::on(&mut response).await?)),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(ProxyError::Credentials),
        status => Err(ProxyError::Refused(status)),
    }
}
