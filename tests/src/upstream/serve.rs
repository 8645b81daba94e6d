//! Accepts connections and serves TLS and HTTP around [`Routes`].

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::record::Connection;
use super::routes::Routes;

/// Serves `listener` on `runtime` until the runtime is shut down.
pub(super) fn spawn(
    runtime: &Runtime,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: Arc<Routes>,
    streams: u32,
) {
    listener.set_nonblocking(true).expect("non-blocking listener");
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
        loop {
            // A full file table is the only error seen here. The client then sees its connection fail.
            let Ok((stream, peer)) = listener.accept().await else { continue };
            stream.set_nodelay(true).ok();
            let number = routes.log.connected();
            let (tls, routes) = (tls.clone(), Arc::clone(&routes));
            tokio::spawn(async move {
                let Some(tls) = tls else {
                    let connection = Connection { number, peer, alpn: None, sni: None };
                    return http(stream, connection, routes, streams).await;
                };
                let Ok(stream) = tls.accept(stream).await else {
                    return routes.log.handshake_failed();
                };
                let session = stream.get_ref().1;
                let alpn = session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned());
                let sni = session.server_name().map(str::to_owned);
                http(stream, Connection { number, peer, alpn, sni }, routes, streams).await;
            });
        }
    });
}

async fn http<S>(stream: S, connection: Connection, routes: Arc<Routes>, streams: u32)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (routes, connection) = (Arc::clone(&routes), connection.clone());
        async move { Ok::<_, Infallible>(routes.answer(request, &connection).await) }
    });
    // A client that disconnects during a request is no error of the upstream.
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(streams);
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
}
