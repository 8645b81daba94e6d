//! Sends requests to an upstream over HTTP/1.1.

use http::{Request, Response};
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::early_answer::{EarlyAnswer, WriteFailed};
use crate::http::body::expect::Gate;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::replay::AttemptBody;
use crate::http::h1::{MAX_FIELDS, MAX_HEAD};
use crate::limits::capped::{Capped, Received};

/// A connection to an upstream.
#[derive(Debug)]
pub(super) struct Http1Sender {
    sender: http1::SendRequest<AttemptBody>,
    received: Received,
    connection: Running,
}

/// The task of a connection. hyper's task does not end while a body is not written, which may last forever.
#[derive(Debug)]
struct Running {
    task: AbortHandle,
    write_failed: WriteFailed,
    /// Set while the last request's body may still wait at its gate.
    is_cut: bool,
}

impl Running {
    fn is_spent(&self) -> bool {
        self.is_cut || self.write_failed.get()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_spent() {
            self.task.abort();
        }
    }
}

impl Http1Sender {
    /// Starts HTTP/1.1 on `stream`.
    ///
    /// # Errors
    /// hyper's error.
    pub(crate) async fn handshake<S>(stream: S) -> Result<Http1Sender, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (received, write_failed) = (Received::default(), WriteFailed::default());
        let stream = EarlyAnswer::new(Capped::noting(stream, received.clone()), write_failed.clone());
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .handshake(TokioIo::new(stream))
            .await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream HTTP/1 connection ended");
            }
        });
        let connection = Running { task: task.abort_handle(), write_failed, is_cut: false };
        Ok(Http1Sender { sender, received, connection })
    }

    /// Returns whether the connection can carry no further request.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.connection.is_spent()
    }

    /// Waits until a request can be sent.
    pub(crate) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Returns whether anything was received since the last request.
    pub(super) fn has_received(&self) -> bool {
        self.received.any()
    }

    /// Sends a request, whose body may wait at `gate`.
    ///
    /// # Errors
    /// hyper's error, with the request if nothing was sent.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<AttemptBody>,
        gate: Option<&Gate>,
    ) -> Result<Response<PeerBody>, TrySendError<Request<AttemptBody>>> {
        self.received.reset();
        if let Some(gate) = gate.cloned() {
            hyper::ext::on_informational(&mut request, move |interim| gate.interim(interim.status()));
        }
        // If this future is dropped before the response, the body would wait forever.
        self.connection.is_cut = gate.is_some();
        let response = self.sender.try_send_request(request).await?;
        self.connection.is_cut = gate.is_some_and(Gate::close);
        Ok(response.map(PeerBody::from))
    }
}
