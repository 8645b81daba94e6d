//! Upstreams served by `openssl`, with certificates that it creates.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `openssl s_server`, which runs until this is dropped.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory with the certificates that this shell script creates.
pub(crate) fn certificates(script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new("sh").args(["-c", script]).current_dir(dir.path()).stderr(Stdio::null()).status();
    assert!(made.unwrap().success());
    dir
}

/// Serves with the certificate `name` of `dir`, and returns the port, too.
pub(crate) fn serve(dir: &Path, name: &str, options: &[&str]) -> (Server, u16) {
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-www"])
        .args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")])
        .args(options)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(server.stdout.take().unwrap());
    let line = out.lines().map_while(Result::ok).find(|line| line.starts_with("ACCEPT ")).unwrap();
    (Server(server), line.rsplit(':').next().unwrap().parse().unwrap())
}
