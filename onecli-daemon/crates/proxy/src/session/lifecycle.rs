//! The end of connections: first a grace period in which they finish, then an abort.

use std::sync::Arc;
use std::time::Duration;

use onecli_model::Code;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time limit for aborted requests to end. They wait for no other task.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit from accepting a connection to its first request. When the daemon stops, it waits this long for such
/// requests.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(2);

/// How often the number of open requests is checked during a stop.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// Whether the daemon serves, stops, or aborts what is still open.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    /// Cancelled when the daemon accepts no new connections, so that open connections soon close.
    stopping: CancellationToken,
    /// Cancelled when the daemon stops now.
    ending: CancellationToken,
    /// Held by every connection as long as its client may be about to send the first request.
    awaiting_first_request: Arc<()>,
    /// Held by every request and tunnel while it is open.
    open: Arc<()>,
}

/// An open request or tunnel. The daemon does not count as drained while it exists.
#[derive(Debug)]
pub(crate) struct OpenGuard(#[expect(dead_code, reason = "only its existence counts")] Arc<()>);

impl Lifecycle {
    /// Registers an open request or tunnel.
    pub(crate) fn open(&self) -> OpenGuard {
        OpenGuard(Arc::clone(&self.open))
    }

    /// Returns whether the daemon accepts no new connections.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Resolves when the daemon aborts what is open.
    pub(crate) async fn aborted(&self) {
        self.ending.cancelled().await;
    }

    /// The code for a request that ends because the client or the upstream disconnected.
    pub(crate) fn disconnected_code(&self) -> Code {
        if self.ending.is_cancelled() { Code::Interrupted } else { Code::ClientGone }
    }

    /// The code for a request that [`super::Session::until_refused`] ended.
    pub(crate) fn revoked_code(&self) -> Code {
        if self.ending.is_cancelled() { Code::Interrupted } else { Code::Revoked }
    }

    /// Serves a connection until it ends or the daemon stops.
    pub(crate) fn until_aborted(&self, served: impl Future<Output = ()>) -> impl Future<Output = ()> {
        // The future is large, and callers await it within other futures.
        let served = Box::pin(served);
        let awaiting_first_request = Arc::clone(&self.awaiting_first_request);
        async move {
            let first_request_grace = async move {
                tokio::time::sleep(FIRST_REQUEST_GRACE).await;
                drop(awaiting_first_request);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = served => {}
                () = first_request_grace => {}
                () = self.ending.cancelled() => {}
            }
        }
    }

    /// Aborts what is open.
    pub(super) fn abort(&self) {
        self.ending.cancel();
    }

    /// Lets open requests and tunnels continue for as long as `grace`, then aborts them. When it returns, each has
    /// recorded its outcome. Connections accepted just before still get the time to send their first request.
    pub(crate) async fn end(&self, grace: Duration) {
        self.stopping.cancel();
        while Arc::strong_count(&self.awaiting_first_request) > 1 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        if timeout(grace, self.drained()).await.is_err() {
            tracing::info!(open = Arc::strong_count(&self.open) - 1, "aborting open requests");
            self.abort();
            if timeout(ABORT_TIMEOUT, self.drained()).await.is_err() {
                tracing::error!("a request did not end: its outcome will be missing from the audit log");
            }
        }
    }

    /// Resolves when no request and no tunnel is open.
    async fn drained(&self) {
        while Arc::strong_count(&self.open) > 1 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}
