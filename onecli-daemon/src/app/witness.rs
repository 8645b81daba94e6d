//! Checkpoints of the audit log, given to those who keep them: what they have seen cannot be rolled back unnoticed.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::config::Witness;
use crate::model::{AgentId, Authority, Reach};
use crate::net::{Dialer, Resolver};
use crate::tls::{Alpn, UpstreamTls};

/// The least time between two checkpoints to the same witness.
const PERIOD: Duration = Duration::from_mins(1);
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the host's syslog listens.
const SYSLOG: &str = "/dev/log";
/// RFC 5424: facility `authpriv` (10), severity `info` (6).
const PRIORITY: u8 = 10 * 8 + 6;

/// What it takes to reach a server.
pub(super) struct Network {
    pub(super) resolver: Arc<Resolver>,
    pub(super) dialer: Dialer,
    pub(super) tls: UpstreamTls,
}

/// Gives each checkpoint to every witness, at most one a minute, until the log ends. A witness that fails is told of once,
/// and asked again with the next checkpoint.
pub(super) async fn tell(
    witnesses: Vec<Witness>,
    mut checkpoints: watch::Receiver<Option<Arc<str>>>,
    network: Network,
) {
    let mut failing = vec![false; witnesses.len()];
    while !witnesses.is_empty() {
        let Some(note) = checkpoints.borrow_and_update().clone() else {
            if checkpoints.changed().await.is_err() {
                return;
            }
            continue;
        };
        for (witness, failing) in witnesses.iter().zip(&mut failing) {
            match give(witness, &note, &network).await {
                Ok(()) => *failing = false,
                Err(error) if !*failing => {
                    *failing = true;
                    tracing::error!(?witness, error, "a witness does not take checkpoints of the audit log");
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(PERIOD).await;
        if checkpoints.changed().await.is_err() {
            return;
        }
    }
}

async fn give(witness: &Witness, note: &Arc<str>, network: &Network) -> Result<(), String> {
    match witness {
        Witness::File(path) => {
            let (path, note) = (path.clone(), Arc::clone(note));
            let appended = tokio::task::spawn_blocking(move || append(&path, &note)).await;
            appended.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }
        Witness::Syslog => syslog(note).map_err(|error| format!("{SYSLOG}: {error}")),
        Witness::Url(url) => tokio::time::timeout(PATIENCE, post(url, note, network))
            .await
            .map_err(|_| "it does not answer".to_owned())?,
    }
}

fn append(path: &Path, note: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    // One write: a reader finds whole notes.
    file.write_all(format!("{note}\n").as_bytes())?;
    file.sync_data()
}

/// One message; line ends, which syslog does not keep, are written as `\n`.
fn syslog(note: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let message = format!("<{PRIORITY}>onecli-daemon: audit checkpoint: {}", note.replace('\n', "\\n"));
    socket.send_to(message.as_bytes(), SYSLOG).map(drop)
}

async fn post(url: &str, note: &Arc<str>, network: &Network) -> Result<(), String> {
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("it is no URL".to_owned()),
    };
    let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let authority =
        Authority::parse(name, Some(if secure { 443 } else { 80 })).map_err(|error| error.to_string())?;
    let addresses =
        network.resolver.resolve(&authority, &Reach::open()).await.map_err(|error| error.to_string())?;
    let (tcp, _) = network.dialer.dial(&addresses).await.map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, name)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Full::new(Bytes::copy_from_slice(note.as_bytes())))
        .map_err(|error| error.to_string())?;
    if secure {
        // No agent's: its session cache is the daemon's own.
        let own = AgentId(uuid::Uuid::nil());
        let stream = network.tls.connect(own, &authority, Alpn::Http1, tcp).await;
        send(stream.map_err(|error| error.to_string())?, request).await
    } else {
        send(tcp, request).await
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    connection.abort();
    let status = answer?.status();
    if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::AddressPolicy;

    #[tokio::test]
    async fn a_file_and_a_server_are_given_the_note() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("checkpoints");
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/checkpoints", server.local_addr().unwrap());
        let policy = AddressPolicy::new(vec!["127.0.0.1/32".parse().unwrap()], Vec::new());
        let network = Network {
            resolver: Arc::new(Resolver::new(std::collections::BTreeMap::default(), policy)),
            dialer: Dialer { connect_timeout: Duration::from_secs(1) },
            tls: UpstreamTls::new(&[]).unwrap(),
        };
        let note: Arc<str> = "o\n3\nr\n\n\u{2014} o s\n".into();
        let (_told, checkpoints) = watch::channel(Some(Arc::clone(&note)));
        let witnesses = vec![Witness::File(file.clone()), Witness::Url(url)];
        let telling = tokio::spawn(tell(witnesses, checkpoints, network));
        let (mut stream, _) = server.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(note.as_bytes()) {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
        assert!(seen.starts_with(b"POST /checkpoints HTTP/1.1\r\n"));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{note}\n"));
        telling.abort();
    }
}
