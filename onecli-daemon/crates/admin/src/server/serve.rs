//! HTTP/1.1 over the admin socket. One request per connection, so that every request is authorized with the peer's
//! current rights.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::access::admission::{Admission, PER_RUNNER};
use crate::access::peer::{Peer, Rights};
use crate::context::{AdminContext, Handles, RunnableAgent, rates};
use crate::error::AdminError;
use crate::routing::{self, Caller, Received, Routers};

/// Connections whose peer is being identified. Further connections wait in the socket's backlog.
const MAX_ARRIVALS: usize = 64;
/// Connections of refused peers that are being answered. Further ones are closed without a response.
const MAX_REFUSED: usize = 8;
/// The largest body in bytes. A credential has at most 16 KiB, which is 22 KiB in base64; the rest is for path
/// patterns.
const MAX_BODY: usize = 96 * 1024;
/// The time limit for the request head, which the OneCLI CLI sends at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit for the body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for a refused peer to read the reason.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after accept(2) failed, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin socket until `shutdown` completes. Tasks of open connections finish independently or end with the
/// runtime.
///
/// # Errors
/// The listener cannot be registered with the runtime.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    handles: Handles,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let context = Arc::new(AdminContext::new(handles));
    let server = Arc::new(Server {
        routers: Routers::new(&context),
        context,
        admission: Admission::default(),
        runners: Admission::of(PER_RUNNER),
        refused: Semaphore::new(MAX_REFUSED),
    });
    let arrivals = Arc::new(Semaphore::new(MAX_ARRIVALS));
    let mut shutdown = std::pin::pin!(shutdown);
    let mut sampling = tokio::time::interval(rates::INTERVAL);
    loop {
        let Ok(arrival) = Arc::clone(&arrivals).acquire_owned().await else { return Ok(()) };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => return Ok(()),
            _ = sampling.tick() => {
                server.context.remember_counters();
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    let authorized = server.authorize(&stream).await;
                    drop(arrival);
                    server.answer(stream, authorized).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the admin socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Server {
    context: Arc<AdminContext>,
    routers: Routers,
    admission: Admission,
    runners: Admission,
    refused: Semaphore,
}

impl Server {
    async fn authorize(&self, stream: &UnixStream) -> Result<Caller, AdminError> {
        let unknown = || AdminError::NotPermitted {
            message: "the kernel did not report your uid".to_owned(),
            hint: String::new(),
        };
        let socket = {
            use std::os::fd::AsFd;
            stream.as_fd().try_clone_to_owned().map_err(|_| unknown())?
        };
        // The user database may be on another host.
        let peer = tokio::task::spawn_blocking(move || Peer::of(&socket));
        let peer = peer.await.map_err(|_| unknown())?.map_err(|_| unknown())?;
        let authorized = self.rights(&peer).await;
        if let Err(reason) = &authorized {
            tracing::warn!(uid = peer.uid, pid = peer.pid, %reason, "admin peer refused");
        }
        authorized.map(|(rights, runs)| Caller { uid: peer.uid, pid: peer.pid, rights, runs })
    }

    async fn rights(&self, peer: &Peer) -> Result<(Rights, Arc<[RunnableAgent]>), AdminError> {
        let agents_root = &self.context.handles.agents_root;
        peer.check_not_managed(agents_root)?;
        let rights = peer.rights(agents_root);
        if matches!(rights, Ok(Rights::Root | Rights::Write)) {
            return Ok((rights?, Arc::default()));
        }
        let runs = self.context.runners.of(self.context.handles.store.as_ref(), peer.uid, peer.gid).await;
        let rights = if runs.is_empty() { rights? } else { rights.unwrap_or(Rights::Runner) };
        Ok((rights, runs.into()))
    }

    async fn answer(&self, stream: UnixStream, authorized: Result<Caller, AdminError>) {
        match authorized {
            Ok(peer) => {
                let admission = if peer.rights == Rights::Runner { &self.runners } else { &self.admission };
                let Some(_slot) = admission.wait(peer.uid).await else { return };
                let service = service_fn(async |request| {
                    Ok::<_, Infallible>(respond(&self.routers, peer.clone(), request).await)
                });
                connection(stream, service).await;
            }
            Err(refusal) => {
                let Ok(_slot) = self.refused.try_acquire() else { return };
                let service =
                    service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(routing::refuse(&refusal)));
                // A timeout needs no handling: the peer did not read the response.
                let _ = timeout(REFUSAL_TIMEOUT, connection(stream, service)).await;
            }
        }
    }
}

async fn connection<S>(stream: UnixStream, service: S)
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection failed");
    }
}

async fn respond(routers: &Routers, caller: Caller, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let (uid, pid, method, path) = (caller.uid, caller.pid, head.method.clone(), Arc::from(head.uri.path()));
    let body = match read(body).await {
        Ok(body) => Arc::new(body),
        Err(error) => return routing::refuse(&error),
    };
    let answer = routing::answer(routers, caller, head, Received { path: Arc::clone(&path), body }).await;
    if method != http::Method::GET && !answer.status().is_success() {
        let status = answer.status().as_u16();
        tracing::warn!(uid, pid, %method, path = &*path, status, "admin change refused");
    }
    answer
}

/// Reads the body into memory that is zeroed after use. hyper's own buffers are freed, not zeroed; the process is not
/// dumpable.
async fn read<B>(body: B) -> Result<Zeroizing<Vec<u8>>, AdminError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(Limited::new(body, MAX_BODY));
    // The buffer never grows past this capacity, so a reallocation leaves no copy behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    let collect = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    AdminError::TooLarge(MAX_BODY)
                } else {
                    AdminError::Invalid("the request ended early".to_owned())
                }
            })?;
            if let Ok(data) = frame.into_data() {
                whole.extend_from_slice(data.chunk());
            }
        }
        Ok(())
    };
    timeout(READ_TIMEOUT, collect).await.unwrap_or(Err(AdminError::TooSlow))?;
    Ok(whole)
}
