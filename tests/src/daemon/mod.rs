//! A real daemon with everything it needs in its own directory, and the CLI to control it.

mod helper;
mod home;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::argv::Watcher;
use crate::client::{self, Outcome, Run};
use crate::upstream::Upstream;
use crate::{bins, canary, need, wait_for};

pub use helper::UID;
pub use home::{AGENTS_DIR, Builder, Home};

/// The time limit until a daemon responds. A debug build that loads BPF programs on a busy machine needs long.
const START: Duration = Duration::from_secs(30);
/// The number of log bytes that a failed test shows.
const LOG_SHOWN: usize = 16 * 1024;

/// An agent as `agent add` reported it.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// The user it runs as; the daemon's default if the test named none.
    pub user: Option<String>,
    /// Its token, which is printed only once.
    pub token: String,
}

/// A grant as `grant` reported it.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The value that the agent holds instead of the credential.
    pub placeholder: String,
    /// The variable that holds the placeholder, if the secret names one.
    pub env: Option<String>,
}

impl Builder {
    /// Starts the daemon and waits until it responds.
    #[must_use]
    pub fn start(self) -> Daemon {
        Daemon::start(self.prepare())
    }
}

/// A running daemon. Drop ends it and removes everything it created.
pub struct Daemon {
    child: Child,
    helper: Option<Child>,
    executor: Option<Child>,
    /// Checks that no value is on a command line.
    command_lines: Watcher,
    home: Home,
}

impl Daemon {
    /// A daemon that trusts `upstream` and resolves its names.
    #[must_use]
    pub fn for_upstream(upstream: &Upstream) -> Self {
        Self::builder().upstream(upstream).start()
    }

    /// A daemon with options. Without root and BPF it runs as with [`Builder::no_ebpf`].
    #[must_use]
    pub fn builder() -> Builder {
        let ebpf = need::bpf_missing().is_none();
        Builder::new(ebpf)
    }

    /// Starts a daemon in `home` and waits until it responds.
    #[must_use]
    pub fn start(home: Home) -> Self {
        let helper = home.unprivileged.then(|| helper::spawn(&home, &log_file(&home)));
        let executor = home.unprivileged.then(|| helper::spawn_executor(&home, &log_file(&home)));
        let child = spawn(&home);
        let others = [&helper, &executor].into_iter().flatten().map(Child::id);
        let command_lines = Watcher::new(others.chain([child.id()]).collect());
        let mut daemon = Self { child, helper, executor, command_lines, home };
        daemon.wait_until_ready();
        daemon
    }

    fn wait_until_ready(&mut self) {
        let mut last = None;
        let ready = wait_for(START, || {
            let ended = self.child.try_wait().expect("wait for the daemon");
            assert!(ended.is_none(), "the daemon exited at its start ({ended:?}):\n{}", self.home.log());
            let outcome = self.onecli(&["--json", "status"]);
            let ok = outcome.status.success();
            last = Some(outcome);
            ok.then_some(())
        });
        assert!(ready.is_some(), "the daemon does not respond: {last:?}\n{}", self.home.log());
    }

    /// Its directory and configuration.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of the explicit listener.
    #[must_use]
    pub fn explicit_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.home.explicit).into()
    }

    /// The address of the transparent listener, as processes outside see it.
    #[must_use]
    pub fn transparent_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.home.transparent_port).into()
    }

    /// Runs `onecli` with `args`.
    #[must_use]
    pub fn onecli(&self, args: &[&str]) -> Outcome {
        self.home.cli(args).outcome()
    }

    /// Runs `onecli --json` with `args`, which must succeed, and returns its output.
    #[must_use]
    pub fn onecli_json(&self, args: &[&str]) -> Value {
        let all: Vec<_> = ["--json"].iter().chain(args).copied().collect();
        self.onecli(&all).json(&format!("onecli {}", all.join(" ")))
    }

    /// `agent add NAME` with additional `options`.
    #[must_use]
    pub fn add_agent(&self, name: &str, options: &[&str]) -> Agent {
        let args: Vec<_> = ["agent", "add", name].iter().chain(options).copied().collect();
        let answer = self.onecli_json(&args);
        let user = options.iter().position(|&o| o == "--user").and_then(|at| options.get(at + 1));
        Agent {
            name: name.to_owned(),
            user: user.map(|&u| u.to_owned()),
            token: text(&answer, "token").expect("agent add prints the token"),
        }
    }

    /// `secret add NAME` with additional `options`. The value is passed on standard input. Values of tests need not
    /// look like credentials.
    pub fn add_secret(&self, name: &str, value: &str, options: &[&str]) {
        let add = ["--json", "secret", "add", name, "--value-stdin", "--force"];
        let args: Vec<_> = add.iter().chain(options).copied().collect();
        let _ = self.home.cli(&args).stdin(value).outcome().ok("secret add");
        canary::watch(value);
    }

    /// `grant AGENT SECRET`.
    #[must_use]
    pub fn grant(&self, agent: &Agent, secret: &str) -> Granted {
        let answer = self.onecli_json(&["grant", &agent.name, secret]);
        Granted {
            placeholder: text(&answer, "placeholder").expect("grant prints the placeholder"),
            env: text(&answer, "env"),
        }
    }

    /// The audit records so far, oldest first.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        let mut records = parse_lines(&self.onecli(&["--json", "audit", "list"]).ok("audit list"));
        records.sort_by_key(|r| r["seq"].as_u64());
        records
    }

    /// All audit records in the files of the log, oldest first.
    #[must_use]
    pub fn audit_log(&self) -> Vec<Value> {
        let segments = std::fs::read_dir(self.home.data_dir().join("audit")).expect("the audit directory");
        let mut records = Vec::new();
        // The directory also contains checkpoints.
        let paths = segments.map(|file| file.expect("a file of the log").path());
        for segment in paths.filter(|path| path.extension().is_some_and(|kind| kind == "jsonl")) {
            let text = std::fs::read_to_string(segment).expect("a segment");
            // The last line may be incomplete.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            records.extend(parse_lines(whole));
        }
        records.sort_by_key(|r| r["seq"].as_u64());
        records
    }

    /// The first audit record that `wanted` accepts. An outcome is written after the response, so this waits briefly.
    #[must_use]
    pub fn audit_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut records = Vec::new();
        wait_for(Duration::from_secs(5), || {
            records = self.audit();
            records.iter().find(|r| wanted(r)).cloned()
        })
        .unwrap_or_else(|| panic!("no audit record of {what} among {records:#?}"))
    }

    /// The file with the CA certificate, from `ca export`.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        let file = self.home.dir().join("onecli-ca.pem");
        if !file.exists() {
            let pem = self.onecli(&["ca", "export"]).ok("ca export");
            std::fs::write(&file, pem).unwrap();
        }
        file
    }

    /// `HTTPS_PROXY` for `token`.
    #[must_use]
    pub fn proxy_url(&self, token: &str) -> String {
        format!("http://x:{token}@{}", self.explicit_addr())
    }

    /// `run` as a process outside the managed cgroups, which uses the explicit proxy with `token`.
    #[must_use]
    pub fn explicit(&self, token: &str, run: Run) -> Run {
        run.proxied(&self.proxy_url(token)).trusting(&self.ca_file())
    }

    /// `run` as `agent`, through `onecli run`. Its variables are passed with `--keep-env`. A private mount namespace
    /// has another `/etc/hosts`, in which the program finds the names of the upstream.
    #[must_use]
    pub fn managed(&self, agent: &Agent, run: &Run) -> Run {
        const INSIDE: &str = r#"
            mount --bind "$1" /etc/hosts || exit 120
            if [ -d "$2" ]; then mount --bind "$2" "$3" || exit 120; fi
            shift 3
            exec "$@""#;
        let tools = client::tools();
        // The agent's user may have no access to the build directory.
        let tools_inside = self.home.dir().join("tools");
        let program = Path::new(&run.program)
            .strip_prefix(&tools)
            .map_or_else(|_| run.program.clone(), |inside| tools_inside.join(inside).into());
        let mut wrapped = run.clone();
        wrapped.program = "unshare".into();
        wrapped.args.clear();
        if let Some(netns) = &self.home.netns {
            wrapped.program = "nsenter".into();
            wrapped = wrapped.arg(net_option(netns)).arg("unshare");
        }
        let mut wrapped = wrapped
            .args(["--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"])
            .arg(self.home.dir().join("hosts"))
            .arg(&tools)
            .arg(&tools_inside)
            .arg(bins::path("onecli"))
            .arg("--socket")
            .arg(self.home.socket())
            .args(["run", "--agent", &agent.name]);
        if let Some(user) = &agent.user {
            wrapped = wrapped.args(["--user", user]);
        }
        for name in run.env.keys() {
            wrapped = wrapped.args(["--keep-env", name]);
        }
        wrapped.env(AGENTS_DIR, self.home.agents_dir()).arg("--").arg(program).args(&run.args)
    }

    /// The directory of the agent's cgroup. It is normally created with the first process; this method creates it now.
    #[must_use]
    pub fn agent_cgroup(&self, agent: &Agent) -> PathBuf {
        let name = text(&self.onecli_json(&["agent", "show", &agent.name]), "cgroup").expect("its cgroup");
        let cgroup = self.home.agents_root().expect("cgroup2 is mounted").join(name);
        std::fs::create_dir_all(&cgroup).unwrap();
        cgroup
    }

    /// A directory that the agent's user may write.
    #[must_use]
    pub fn agent_dir(&self, agent: &Agent) -> PathBuf {
        let dir = self.home.dir().join(format!("home-{}", agent.name));
        std::fs::create_dir_all(&dir).unwrap();
        if let Some(user) = &agent.user {
            let user = nix::unistd::User::from_name(user).unwrap().expect("the agent's user exists");
            nix::unistd::chown(&dir, Some(user.uid), Some(user.gid)).unwrap();
        }
        dir
    }

    /// Waits until the daemon exits by itself.
    ///
    /// # Panics
    /// The daemon does not exit within `patience`.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let ended = wait_for(patience, || self.child.try_wait().expect("wait for the daemon"));
        ended.expect("the daemon does not exit")
    }

    /// Kills the daemon with SIGKILL, as a crash would.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("signal the daemon");
        self.child.wait().expect("wait for the daemon")
    }

    /// Kills the helper, if it is a separate process.
    pub fn kill_helper(&mut self) {
        if let Some(mut helper) = self.helper.take() {
            helper.kill().expect("signal the helper");
            helper.wait().expect("wait for the helper");
        }
    }

    fn kill_executor(&mut self) {
        if let Some(mut executor) = self.executor.take() {
            executor.kill().expect("signal the executor");
            executor.wait().expect("wait for the executor");
        }
    }

    /// Ends the daemon as the service manager does (SIGTERM), and waits until it has exited.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id"));
        nix::sys::signal::kill(pid, Signal::SIGTERM).expect("signal the daemon");
        self.child.wait().expect("wait for the daemon")
    }

    /// Restarts the daemon in the same home. A running daemon is killed first.
    pub fn restart(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
        self.child = spawn(&self.home);
        self.command_lines.add(self.child.id());
        self.wait_until_ready();
    }

    /// Fails the test if the daemon has exited or one of its tasks panicked.
    pub fn assert_healthy(&mut self) {
        let ended = self.child.try_wait().expect("wait for the daemon");
        assert!(ended.is_none(), "the daemon exited: {ended:?}");
        let _ = self.onecli(&["--json", "status"]).ok("status");
        let log = self.home.log();
        assert!(!log.contains("panicked at"), "a panic in the daemon's log");
    }

    /// Ends the daemon and removes what it created. Returns the paths that remain, of which there should be none.
    #[must_use]
    pub fn finish(mut self) -> Vec<PathBuf> {
        self.kill();
        self.kill_helper();
        self.kill_executor();
        let mut left = self.home.clean();
        let dir = self.home.dir().to_owned();
        drop(self);
        left.extend(dir.exists().then_some(dir));
        left
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
        self.kill_helper();
        self.kill_executor();
        if std::thread::panicking() {
            let log = self.home.log();
            let from = log.ceil_char_boundary(log.len().saturating_sub(LOG_SHOWN));
            eprintln!("--- the end of the daemon's log\n{}", &log[from..]);
        } else if self.home.dir().exists() {
            // The log, the audit log and the database (invariant 1).
            canary::assert_clean_dir(self.home.dir());
            self.command_lines.assert_clean();
        }
    }
}

fn log_file(home: &Home) -> File {
    File::options().create(true).append(true).open(home.dir().join("daemon.log")).expect("log file")
}

fn spawn(home: &Home) -> Child {
    let log = log_file(home);
    let mut command = match (home.descriptors, &home.netns) {
        (None, None) if home.unprivileged => helper::daemon(home),
        (None, None) if home.journal.is_some() => beside_journal(home),
        (None, None) => Command::new(bins::path("onecli-daemon")),
        (Some(most), _) => {
            // prlimit(1) becomes the daemon: execve(2) preserves the limit and the process id.
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={most}:{most}")).arg(bins::path("onecli-daemon"));
            command
        }
        (None, Some(netns)) => {
            let mut nsenter = Command::new("nsenter");
            nsenter.arg(net_option(netns)).arg(bins::path("onecli-daemon"));
            nsenter
        }
    };
    command.arg("--config").arg(home.config_file()).env_clear().env("PATH", client::PATH);
    command.env("RUST_BACKTRACE", "1");
    if let Some(filter) = std::env::var_os("ONECLI_TEST_LOG") {
        command.env("ONECLI_LOG", filter);
    }
    if !home.ebpf {
        command.arg("--no-ebpf");
    }
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log file"))
        .stderr(log)
        .spawn()
        .expect("onecli-daemon starts")
}

/// The daemon in a mount namespace where the test's socket is the journal's. Its environment names the journal as
/// standard error.
fn beside_journal(home: &Home) -> Command {
    const INSIDE: &str = r#"
        mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$0" /run/systemd/journal || exit 120
        JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", INSIDE]);
    command.arg(home.journal.as_ref().expect("a journal is configured")).arg(bins::path("onecli-daemon"));
    command
}

/// nsenter(1) executes the program without a fork, so both have the same process id.
fn net_option(netns: &Path) -> String {
    format!("--net={}", netns.display())
}

fn text(answer: &Value, name: &str) -> Option<String> {
    answer[name].as_str().map(str::to_owned)
}

/// Parses JSON lines.
fn parse_lines(lines: &str) -> Vec<Value> {
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in audit line {line}"));
    lines.lines().filter(|l| !l.trim().is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_lines_are_json_objects() {
        let records = parse_lines("{\"seq\":1}\n\n{\"seq\":2}\n");
        assert_eq!(records.iter().map(|r| r["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    }
}
