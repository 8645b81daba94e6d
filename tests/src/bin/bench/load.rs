//! One round of load from one process: closed loops over HTTP/1.1, limited in time and in requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The maximum number of requests per connection and round.
const MOST_REQUESTS: usize = 100_000;

/// What to send where. The CA comes from `SSL_CERT_FILE`, the proxy's token from `BENCH_TOKEN`.
#[derive(Args, Clone)]
pub(crate) struct Load {
    /// The upstream's name
    #[arg(long)]
    name: String,
    /// Address to connect to
    #[arg(long)]
    address: SocketAddr,
    /// Path and query
    #[arg(long)]
    path: String,
    /// Explicit proxy to use
    #[arg(long)]
    proxy: Option<SocketAddr>,
    /// Variable that holds the key for `Authorization: Bearer`
    #[arg(long)]
    key_from: String,
    /// Connections, each a closed loop
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// Bytes of request body
    #[arg(long, default_value_t = 0)]
    upload: usize,
    /// Duration of the round
    #[arg(long)]
    millis: u64,
    /// Open a new connection, with a full TLS handshake, for every request
    #[arg(long)]
    new_connections: bool,
}

/// The result of a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Median latency in microseconds.
    pub(crate) p50: f64,
    /// The 99th percentile of the latency, in microseconds.
    pub(crate) p99: f64,
}

impl Measured {
    /// Parses three numbers on the last line.
    pub(crate) fn parse(out: &str) -> Result<Self> {
        let line = out.lines().last().context("no line")?;
        let numbers: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [rate, p50, p99] = numbers[..] else { bail!("expected three numbers, got {line:?}") };
        Ok(Self { rate, p50, p99 })
    }
}

pub(crate) fn run(load: &Load) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measured = runtime.block_on(measure(load))?;
    println!("{} {} {}", measured.rate, measured.p50, measured.p99);
    Ok(())
}

async fn measure(load: &Load) -> Result<Measured> {
    let target = Arc::new(Target::new(load)?);
    // Before the clock starts: persistent connections, and all work that the first request has to wait for.
    let mut ready = Vec::new();
    for _ in 0..load.connections {
        let mut connection = target.connect().await?;
        target.request(&mut connection).await?;
        ready.push(connection);
    }
    let started = Instant::now();
    let end = started + Duration::from_millis(load.millis);
    let mut loops = tokio::task::JoinSet::new();
    for connection in ready {
        let (target, fresh) = (Arc::clone(&target), load.new_connections);
        loops.spawn(async move { closed_loop(&target, connection, fresh, end).await });
    }
    let mut latencies = Vec::new();
    while let Some(done) = loops.join_next().await {
        latencies.extend(done??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |part: usize| {
        let index = (latencies.len() * part / 100).min(latencies.len() - 1);
        latencies[index].as_secs_f64() * 1e6
    };
    ensure!(!latencies.is_empty(), "no request was finished");
    // Exact up to 2^53 requests.
    #[expect(clippy::cast_precision_loss, reason = "a round has at most a few million requests")]
    let rate = latencies.len() as f64 / elapsed;
    Ok(Measured { rate, p50: at(50), p99: at(99) })
}

async fn closed_loop(
    target: &Target,
    mut connection: Connection,
    fresh: bool,
    end: Instant,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while Instant::now() < end && latencies.len() < MOST_REQUESTS {
        let started = Instant::now();
        if fresh {
            connection = target.connect().await?;
        }
        target.request(&mut connection).await?;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

type Connection = SendRequest<Full<Bytes>>;

struct Target {
    tls: TlsConnector,
    name: ServerName<'static>,
    authority: String,
    address: SocketAddr,
    proxy: Option<(SocketAddr, String)>,
    path: String,
    authorization: String,
    body: Bytes,
}

impl Target {
    fn new(load: &Load) -> Result<Self> {
        let file = std::env::var("SSL_CERT_FILE").context("SSL_CERT_FILE")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&file).with_context(|| file.clone())? {
            // A system bundle may contain certificates that webpki rejects.
            let _ = roots.add(certificate?);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.resumption = Resumption::disabled();
        let key = std::env::var(&load.key_from).with_context(|| load.key_from.clone())?;
        let proxy = match load.proxy {
            Some(proxy) => Some((proxy, std::env::var("BENCH_TOKEN").context("BENCH_TOKEN")?)),
            None => None,
        };
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls)),
            name: ServerName::try_from(load.name.clone())?,
            authority: format!("{}:{}", load.name, load.address.port()),
            address: load.address,
            proxy,
            path: load.path.clone(),
            authorization: format!("Bearer {key}"),
            body: Bytes::from(vec![b'u'; load.upload]),
        })
    }

    async fn connect(&self) -> Result<Connection> {
        let to = self.proxy.as_ref().map_or(self.address, |(proxy, _)| *proxy);
        let mut stream = TcpStream::connect(to).await.with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        if let Some((_, token)) = &self.proxy {
            self.tunnel(&mut stream, token).await?;
        }
        let stream = self.tls.connect(self.name.clone(), stream).await.context("TLS")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // An error of the connection is also returned to its sender.
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }

    async fn tunnel(&self, stream: &mut TcpStream, token: &str) -> Result<()> {
        let authority = &self.authority;
        let head = format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        // Byte by byte: the bytes after the head belong to TLS.
        while !answer.ends_with(b"\r\n\r\n") {
            ensure!(answer.len() < 8192, "the proxy's response has no end");
            answer.push(stream.read_u8().await.context("the proxy closed the connection")?);
        }
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 200"), "unexpected response of the proxy: {answer}");
        Ok(())
    }

    async fn request(&self, connection: &mut Connection) -> Result<()> {
        let method = if self.body.is_empty() { "GET" } else { "POST" };
        let request = Request::builder()
            .method(method)
            .uri(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, &self.authorization)
            .body(Full::new(self.body.clone()))?;
        connection.ready().await?;
        let mut answer = connection.send_request(request).await?;
        let status = answer.status();
        while let Some(frame) = answer.frame().await {
            frame?;
        }
        ensure!(status == StatusCode::OK, "unexpected status {status}");
        Ok(())
    }
}
