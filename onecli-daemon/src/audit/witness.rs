//! Publishes checkpoints of the audit log to witnesses. A witness retains the checkpoints that it received, so a
//! rollback of the log to an older state is detectable.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use onecli_config::Witness;
use onecli_model::Authority;
use onecli_proxy::DaemonClient;
use tokio::sync::watch;

/// The minimum interval between two checkpoints to the same witness.
const PERIOD: Duration = Duration::from_mins(1);
/// RFC 3164 section 4.1.1: facility `authpriv` (10), severity `info` (6).
const PRIORITY: u8 = 10 * 8 + 6;

/// Sends checkpoints to every witness, at most one a minute, until the log ends; then sends the last one. Logs a
/// failing witness once and tries it again with the next checkpoint.
pub(crate) async fn tell(
    witnesses: Vec<Witness>,
    mut checkpoints: watch::Receiver<Option<Arc<str>>>,
    client: Arc<DaemonClient>,
) {
    if witnesses.is_empty() || checkpoints.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut failing = vec![false; witnesses.len()];
    let mut given = None;
    let mut ended = false;
    loop {
        let note = checkpoints.borrow_and_update().clone();
        if let Some(note) = note.as_ref().filter(|note| given.as_ref() != Some(*note)) {
            for (witness, failing) in witnesses.iter().zip(&mut failing) {
                match give(witness, note, &client).await {
                    Ok(()) => *failing = false,
                    Err(error) if !*failing => {
                        *failing = true;
                        tracing::error!(
                            ?witness,
                            error,
                            "a witness does not accept checkpoints of the audit log"
                        );
                    }
                    Err(_) => {}
                }
            }
        }
        given = note;
        if ended {
            return;
        }
        let end = async { while checkpoints.changed().await.is_ok() {} };
        ended = tokio::time::timeout(PERIOD, end).await.is_ok();
    }
}

async fn give(witness: &Witness, note: &Arc<str>, client: &DaemonClient) -> Result<(), String> {
    match witness {
        Witness::File(path) => {
            let (path, note) = (path.clone(), Arc::clone(note));
            let appended = tokio::task::spawn_blocking(move || append(&path, &note)).await;
            appended.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }
        Witness::Syslog(path) => syslog(path, note).map_err(|error| format!("{}: {error}", path.display())),
        Witness::Url(url) => post(url, note, client).await,
    }
}

fn append(path: &Path, note: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    // A single write, so that a reader sees only complete notes.
    file.write_all(format!("{note}\n").as_bytes())?;
    file.sync_data()
}

/// Sends one message in the format of syslog(3) (RFC 3164 section 4.1). It has no timestamp, because the receiver
/// adds one.
fn syslog(path: &Path, note: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let message = format!("<{PRIORITY}>onecli-daemon: {}", onecli_audit::to_single_line(note));
    socket.send_to(message.as_bytes(), path).map(drop)
}

async fn post(url: &str, note: &str, client: &DaemonClient) -> Result<(), String> {
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("it is not a URL".to_owned()),
    };
    let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority =
        Authority::parse(name, Some(if secure { 443 } else { 80 })).map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(if path.is_empty() { "/" } else { path })
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Bytes::copy_from_slice(note.as_bytes()))
        .map_err(|error| error.to_string())?;
    let answer = if secure {
        client.send_unaudited(&authority, request).await
    } else {
        client.send_plain_unaudited(&authority, request).await
    };
    let status = answer.map_err(|error| error.to_string())?.status();
    if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
}
