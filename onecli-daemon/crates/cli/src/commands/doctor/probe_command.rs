//! `onecli self-test-probe`: the process of `doctor` in an agent's cgroup.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use super::self_test;

/// Sends the request from standard input, and prints the response.
pub(crate) fn probe(address: SocketAddr) -> io::Result<()> {
    let mut request = Vec::new();
    io::stdin().lock().read_to_end(&mut request)?;
    io::stdout().write_all(&self_test::ask(address, &request)?)
}
