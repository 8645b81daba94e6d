//! Runs a daemon, its helper and its executor as services without a service manager: systemd-socket-activate(1) opens
//! the sockets.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::home::Home;
use crate::{bins, client, wait_for};

/// The user of the daemon: neither root nor the user of an agent. The user of the executor is this minus one.
pub const UID: u32 = 64_999;
/// Joins the cgroup `$1`, then executes the remaining arguments.
const ENTER: &str = r#"echo $$ > "$1/cgroup.procs" || exit 1; shift; exec "$@""#;

/// Starts the helper, which attaches the BPF programs when the daemon connects.
pub(super) fn spawn(home: &Home, log: &File) -> Child {
    let cgroup = home.daemon_cgroup().expect("cgroup2 is mounted");
    fs::create_dir_all(&cgroup).expect("the daemon's cgroup");
    let socket = home.dir().join("helper.sock");
    let mut command = activated(&cgroup, &socket);
    command.arg(bins::path("onecli-daemon")).args(["--helper", "--config"]).arg(home.config_file());
    let child = start(&mut command, &socket, log);
    for path in [home.dir(), &home.data_dir(), &socket] {
        chown(path, Some(UID), Some(UID)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    child
}

/// Starts the executor under its own user.
pub(super) fn spawn_executor(home: &Home, log: &File) -> Child {
    let cgroup = home.daemon_cgroup().expect("cgroup2 is mounted");
    let socket = home.dir().join("executor.sock");
    let mut command = activated(&cgroup, &socket);
    command.args(["setpriv", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]);
    let uid = UID - 1;
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).arg(program(home));
    command.args(["--executor", "--config"]).arg(home.config_file());
    let child = start(&mut command, &socket, log);
    chown(&socket, Some(UID), Some(UID)).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
    child
}

/// A socket-activated service: the first connection starts the command in this cgroup.
fn activated(cgroup: &Path, socket: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ENTER, "sh"]).arg(cgroup);
    command.args(["systemd-socket-activate", "--seqpacket", "--listen"]).arg(socket);
    command
}

fn start(command: &mut Command, socket: &Path, log: &File) -> Child {
    let child = command
        .env_clear()
        .env("PATH", client::PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone().expect("log file"))
        .spawn()
        .expect("the service starts");
    wait_for(Duration::from_secs(10), || socket.exists().then_some(())).expect("the service's socket");
    child
}

/// A copy of the daemon's program, because its user may have no access to the build directory.
fn program(home: &Home) -> PathBuf {
    let program = home.dir().join("onecli-daemon");
    if !program.exists() {
        fs::copy(bins::path("onecli-daemon"), &program).expect("copy the daemon");
    }
    program
}

/// The command that starts the daemon in its cgroup, under its user and without privileges.
pub(super) fn daemon(home: &Home) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ENTER, "sh"]).arg(home.daemon_cgroup().expect("cgroup2 is mounted"));
    command.args(["setpriv", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]);
    command.arg(format!("--reuid={UID}")).arg(format!("--regid={UID}")).arg(program(home));
    command.arg("--helper-socket").arg(home.dir().join("helper.sock"));
    command.arg("--executor-socket").arg(home.dir().join("executor.sock"));
    command
}
