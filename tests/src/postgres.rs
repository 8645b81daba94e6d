//! A real PostgreSQL server with its own database, run by a user other than root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use crate::{free_port, wait_for};

/// Password of the superuser `postgres`, over TCP.
pub const PASSWORD: &str = "onecli-test-superuser";

/// The server, which runs until this is dropped.
pub struct Postgres {
    child: Child,
    dir: TempDir,
    port: u16,
    bin: PathBuf,
}

impl Postgres {
    /// Creates a cluster and starts its server. Data is not synced, because it does not outlive the test.
    ///
    /// # Errors
    /// It is not installed, or this process is not root and cannot become its user.
    pub fn start() -> Result<Postgres, String> {
        let bin = programs().ok_or("PostgreSQL is not installed (Debian's package postgresql)")?;
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root to become the user postgres".to_owned());
        }
        let user = User::from_name("postgres").ok().flatten().ok_or("there is no user 'postgres'")?;
        let dir = tempfile::Builder::new().prefix("onecli-pg-").tempdir().expect("temp dir");
        chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("chown");
        let data = dir.path().join("data");
        let password = dir.path().join("password");
        std::fs::write(&password, PASSWORD).expect("password file");
        chown(&password, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("chown");
        let command = |program: &str| {
            let mut command = Command::new(bin.join(program));
            command.env_clear().env("LC_ALL", "C.UTF-8").current_dir(dir.path()).stdin(Stdio::null());
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            command
        };
        let made = command("initdb")
            .args(["--username=postgres", "--auth=scram-sha-256", "--no-sync", "--no-instructions"])
            .arg(format!("--pwfile={}", password.display()))
            .arg(format!("--pgdata={}", data.display()))
            .output()
            .expect("start initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).expect("log file");
        let child = command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c"])
            .arg(format!("port={port}"))
            .arg("-c")
            .arg(format!("unix_socket_directories={}", dir.path().display()))
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("start postgres");
        let server = Postgres { child, dir, port, bin };
        let up = wait_for(Duration::from_secs(30), || server.query("SELECT 1").ok());
        let log = || std::fs::read_to_string(server.dir.path().join("log")).unwrap_or_default();
        assert!(up.is_some(), "PostgreSQL did not start: {}", log());
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL as the superuser and returns psql's output, without headers.
    ///
    /// # Errors
    /// psql failed; the error holds its message.
    pub fn query(&self, sql: &str) -> Result<String, String> {
        self.query_as("postgres", PASSWORD, sql)
    }

    /// Runs SQL as `user`.
    ///
    /// # Errors
    /// psql failed; the error holds its message.
    pub fn query_as(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        let outcome = Command::new(self.bin.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--host=127.0.0.1", "--dbname=postgres"])
            .arg(format!("--port={}", self.port))
            .arg(format!("--username={user}"))
            .args(["--command", sql])
            .env_clear()
            .env("PGPASSWORD", password)
            .stdin(Stdio::null())
            .output()
            .expect("start psql");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if outcome.status.success() { Ok(text(&outcome.stdout)) } else { Err(text(&outcome.stderr)) }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT requests a fast shutdown, which also ends its children.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(pid), Signal::SIGINT).ok();
        }
        self.child.wait().ok();
    }
}

/// The directory where Debian installs the programs of the newest version.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = versions.flatten().filter_map(|v| v.file_name().to_str()?.parse::<u32>().ok()).max()?;
    let bin = PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"));
    bin.join("postgres").exists().then_some(bin)
}
