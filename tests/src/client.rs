//! Runs real programs in a clean environment, with a time limit.
//!
//! Nothing is inherited: proxy or CA variables of the machine would otherwise change the result of a test.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{bins, canary, wait_for};

/// The time limit of a program, unless [`Run::timeout`] sets another.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// `PATH` of every program.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The Python of the environment that `cargo xtask test` creates, if it exists.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let python = tools().join("venv/bin/python3");
    python.exists().then_some(python)
}

/// Claude Code, if `cargo xtask test` could install it.
#[must_use]
pub fn claude() -> Option<PathBuf> {
    let claude = tools().join("claude/node_modules/.bin/claude");
    claude.exists().then_some(claude)
}

/// The directory where `cargo xtask test` installs clients.
#[must_use]
pub fn tools() -> PathBuf {
    bins::target().join("test-tools")
}

/// A program to run.
#[derive(Clone, Debug)]
pub struct Run {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: BTreeMap<String, OsString>,
    stdin: Vec<u8>,
    cwd: PathBuf,
    timeout: Duration,
}

impl Run {
    /// `program`, looked up in [`PATH`], with no arguments and a minimal environment.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            stdin: Vec::new(),
            cwd: PathBuf::from("/"),
            timeout: TIMEOUT,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.to_owned(), value.as_ref().to_owned());
        self
    }

    /// Writes `data` to the program's standard input, which is empty by default.
    #[must_use]
    pub fn stdin(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.stdin = data.into();
        self
    }

    /// Starts the program in `dir` instead of `/`.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = dir.into();
        self
    }

    /// Sets the time limit to `limit` instead of [`TIMEOUT`].
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Makes the common clients trust the CA certificates in `file` instead of those of the system.
    #[must_use]
    pub fn trusting(self, file: &Path) -> Self {
        ["CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"]
            .iter()
            .fold(self, |run, name| run.env(name, file))
    }

    /// Sends the requests of the common clients through the proxy at `url`.
    #[must_use]
    pub fn proxied(self, url: &str) -> Self {
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "WSS_PROXY", "wss_proxy"]
            .iter()
            .fold(self, |run, name| run.env(name, url))
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Its arguments.
    #[must_use]
    pub fn arguments(&self) -> &[OsString] {
        &self.args
    }

    /// The variables that were set through this type.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_os_str()))
    }

    /// Starts the program.
    #[must_use]
    pub fn start(self) -> Running {
        // A user who types one of our commands never has to put a value on its command line.
        let name = Path::new(&self.program).file_name().unwrap_or_default();
        if ["onecli", "onecli-daemon"].into_iter().any(|ours| name == ours) {
            let line = self.args.iter().map(|arg| arg.as_encoded_bytes()).collect::<Vec<_>>().join(&0);
            canary::assert_clean("a command line of the CLI", &line);
        }
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/nonexistent")
            .env("LANG", "C.UTF-8")
            .envs(&self.env)
            .current_dir(&self.cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own process group, so that a time-out also kills its children.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", self.program.display()));
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        let data = self.stdin;
        // The program may exit without reading its input: that is no error here.
        std::thread::spawn(move || stdin.write_all(&data));
        Running {
            stdout: Some(drain(child.stdout.take().expect("stdout is a pipe"))),
            stderr: Some(drain(child.stderr.take().expect("stderr is a pipe"))),
            child,
            started: Instant::now(),
            timeout: self.timeout,
        }
    }

    /// Starts the program and waits until it exits.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        self.start().finish()
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        // Bytes read before an error are still useful in the report.
        pipe.read_to_end(&mut all).ok();
        all
    })
}

/// A running program. Drop kills it.
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    started: Instant,
    timeout: Duration,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it exits, at most until its time limit.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        let left = self.timeout.saturating_sub(self.started.elapsed());
        let status = wait_for(left, || self.child.try_wait().expect("wait for the program"));
        let timed_out = status.is_none();
        let status = status.unwrap_or_else(|| self.end());
        let collect =
            |thread: Option<JoinHandle<Vec<u8>>>| thread.map_or_else(Vec::new, |t| t.join().unwrap());
        let (stdout, stderr) = (collect(self.stdout.take()), collect(self.stderr.take()));
        canary::assert_clean("a program's standard output", &stdout);
        canary::assert_clean("a program's standard error", &stderr);
        Outcome { status, timed_out, stdout, stderr, took: self.started.elapsed() }
    }

    fn end(&mut self) -> ExitStatus {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"));
        killpg(group, Signal::SIGKILL).ok();
        self.child.wait().expect("wait for the program")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// The outcome of a program.
#[derive(Clone)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// Whether it was killed because it exceeded its time limit.
    pub timed_out: bool,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// How long it ran.
    pub took: Duration,
}

impl Outcome {
    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit code; `None` if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output of a program that must succeed.
    pub fn ok(&self, what: &str) -> String {
        assert!(self.status.success() && !self.timed_out, "{what} failed: {self:?}");
        self.out()
    }

    /// Standard output, parsed as JSON, of a program that must succeed.
    #[must_use]
    pub fn json(&self, what: &str) -> Value {
        let out = self.ok(what);
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{what} printed no JSON ({e}): {out}"))
    }

    /// The response as [`curl`] reports it.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let err = self.err();
        let (_, report) = err.rsplit_once(REPORT).unwrap_or_else(|| panic!("not a report of curl: {self:?}"));
        // `onecli run` may append a list of refused requests.
        let first = serde_json::Deserializer::from_str(report).into_iter::<Value>().next();
        let report = first.and_then(Result::ok).unwrap_or_else(|| panic!("no JSON: {self:?}"));
        // curl prints `000` if there is no status, which is not a JSON number.
        let number = |name: &str| report[name].as_str().and_then(|n| n.parse().ok()).unwrap_or_default();
        let fields = report["headers"].as_object().cloned().unwrap_or_default();
        Reply {
            status: number("status"),
            connect: number("connect"),
            version: report["version"].as_str().unwrap_or_default().to_owned(),
            headers: fields.into_iter().map(|(n, v)| (n.to_lowercase(), strings(&v))).collect(),
            body: self.stdout.clone(),
            exit: self.code(),
        }
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let signal = self.status.signal().map(|s| format!(", signal {s}")).unwrap_or_default();
        let late = if self.timed_out { ", timed out" } else { "" };
        write!(
            f,
            "exit {:?}{signal}{late} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code(),
            self.took,
            self.out(),
            self.err()
        )
    }
}

fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().into_iter().flatten();
    values.filter_map(|v| v.as_str()).map(str::to_owned).collect()
}

const REPORT: &str = "\nREPORT ";

/// curl for `url`: the body on standard output, and the data for [`Outcome::reply`] on standard error.
#[must_use]
pub fn curl(url: &str) -> Run {
    let report = r#"{"status":"%{http_code}","connect":"%{http_connect}","version":"%{http_version}","headers":%{header_json}}"#;
    Run::new("curl")
        .args(["--disable", "--silent", "--show-error", "--max-time", "20", "--write-out"])
        .arg(format!("%{{stderr}}{REPORT}{report}"))
        .arg(url)
}

/// curl for `url` without a total time limit, for large transfers. It ends after 30 seconds without a byte.
#[must_use]
pub fn patient_curl(url: &str) -> Run {
    let run = curl(url).args(["--max-time", "0", "--speed-limit", "1", "--speed-time", "30"]);
    run.timeout(Duration::from_mins(20))
}

/// A response as curl saw it.
#[derive(Clone)]
pub struct Reply {
    /// Status of the last response; 0 if there was none.
    pub status: u16,
    /// Status of the proxy's response to `CONNECT`; 0 if there was none.
    pub connect: u16,
    /// `1.1` or `2`.
    pub version: String,
    /// Header fields of the last response, names in lower case.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The body.
    pub body: Vec<u8>,
    /// curl's exit code.
    pub exit: Option<i32>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, connect, version, headers, exit, .. } = self;
        writeln!(f, "status {status}, CONNECT {connect}, HTTP/{version}, curl's exit {exit:?}")?;
        write!(f, "{headers:#?}\n{}", self.text())
    }
}

impl Reply {
    /// The status from the proxy or the upstream: that of `CONNECT` if the proxy refused it.
    #[must_use]
    pub fn verdict(&self) -> u16 {
        if self.status == 0 { self.connect } else { self.status }
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.first()).map(String::as_str)
    }

    /// The body, parsed as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_inherited_but_what_is_named() {
        let out = Run::new("env").env("NAMED", "yes").outcome().ok("env");
        let mut names: Vec<_> = out.lines().filter_map(|l| l.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LANG", "NAMED", "PATH"]);
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let run = Run::new("sh").args(["-c", "sleep 60 & echo $!; wait"]).timeout(Duration::from_millis(300));
        let outcome = run.outcome();
        assert!(outcome.timed_out && outcome.took < Duration::from_secs(5), "{outcome:?}");
        let child = PathBuf::from(format!("/proc/{}/stat", outcome.out().trim()));
        let gone = wait_for(Duration::from_secs(2), || {
            // A killed orphan may remain a zombie if no process reaps it.
            let stat = std::fs::read_to_string(&child).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        assert!(gone.is_some(), "the child still runs");
    }

    #[test]
    fn input_larger_than_a_pipe_goes_in_and_out() {
        let data = vec![b'x'; 1 << 20];
        let outcome = Run::new("cat").stdin(data.clone()).outcome();
        assert!(outcome.stdout == data, "{} bytes were returned", outcome.stdout.len());
    }
}
