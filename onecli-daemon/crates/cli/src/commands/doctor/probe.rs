//! The parts of `onecli doctor`'s self-test besides sockets: TLS, and a process in an agent's cgroup.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use onecli_config::DaemonLayout;
use onecli_model::{CgroupName, Host, error_chain};
use onecli_sys::kernel::Cgroup2;
use onecli_tls::ServiceTls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The command with which `doctor` starts itself in an agent's cgroup.
const PROBE: &str = "self-test-probe";
/// The maximum number of answer bytes that are read.
const MAX_RESPONSE: u64 = 64 * 1024;

/// Asks the service at the end of `stream` over TLS, and trusts the CAs of `bundle` alone.
pub(super) fn over_tls(stream: TcpStream, bundle: &Path, host: &Host, request: &[u8]) -> io::Result<Vec<u8>> {
    let tls = ServiceTls::new(Some(bundle)).map_err(io::Error::other)?;
    let timeout = stream.read_timeout()?.unwrap_or_default();
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let mut stream = tls.connect(host, stream).await?;
            stream.write_all(request).await?;
            let mut answer = Vec::new();
            stream.take(MAX_RESPONSE).read_to_end(&mut answer).await?;
            Ok(answer)
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    })
}

/// Starts another process of this program and moves it into the cgroup before it opens a socket, so that its
/// connection originates there.
pub(super) fn from_cgroup(
    layout: &DaemonLayout,
    cgroup: &CgroupName,
    address: SocketAddr,
    request: &[u8],
) -> io::Result<Vec<u8>> {
    let kernel_error = |error: onecli_sys::kernel::KernelError| io::Error::other(error_chain(&error));
    let cgroups = Cgroup2::find().map_err(kernel_error)?;
    let directory = layout.agents_root.join(cgroup.as_str());
    cgroups.ensure(&directory).map_err(kernel_error)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([PROBE, &address.to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let procs = cgroups.path(&directory).map_err(kernel_error)?.join("cgroup.procs");
    let moved = std::fs::write(procs, child.id().to_string());
    // The process waits for the end of its input before it does anything.
    if let (Some(mut input), Ok(())) = (child.stdin.take(), &moved) {
        input.write_all(request)?;
    }
    let ended = child.wait_with_output()?;
    moved?;
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    Err(io::Error::other(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
}
