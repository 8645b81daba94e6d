//! A daemon and its helper as two services, without a service manager: systemd-socket-activate(1) opens the helper's socket.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Home;
use crate::{bins, client, wait_for};

/// Neither root nor any agent's.
const UID: u32 = 64_999;
/// Joins the cgroup `$1`, then becomes what follows.
const ENTER: &str = r#"echo $$ > "$1/cgroup.procs" || exit 1; shift; exec "$@""#;

/// Starts the helper; it attaches the programs when the daemon connects.
pub(super) fn spawn(home: &Home, log: &File) -> Child {
    let cgroup = home.daemon_cgroup().expect("cgroup2 is mounted");
    fs::create_dir_all(&cgroup).expect("the daemon's cgroup");
    let socket = home.dir().join("helper.sock");
    let child = Command::new("/bin/sh")
        .args(["-c", ENTER, "sh"])
        .arg(cgroup)
        .args(["systemd-socket-activate", "--seqpacket", "--listen"])
        .arg(&socket)
        .arg(bins::path("onecli-daemon"))
        .args(["--helper", "--config"])
        .arg(home.config_file())
        .env_clear()
        .env("PATH", client::PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone().expect("log file"))
        .spawn()
        .expect("the helper starts");
    wait_for(Duration::from_secs(10), || socket.exists().then_some(())).expect("the helper's socket");
    for path in [home.dir(), &home.data_dir(), &socket] {
        chown(path, Some(UID), Some(UID)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    child
}

/// The command that starts the daemon in its cgroup, as its user and with nothing else.
pub(super) fn daemon(home: &Home) -> Command {
    // Its user may not get to where the build is.
    let program = home.dir().join("onecli-daemon");
    if !program.exists() {
        fs::copy(bins::path("onecli-daemon"), &program).expect("copy the daemon");
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ENTER, "sh"]).arg(home.daemon_cgroup().expect("cgroup2 is mounted"));
    command.args(["setpriv", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]);
    command.arg(format!("--reuid={UID}")).arg(format!("--regid={UID}")).arg(&program);
    command.arg("--helper-socket").arg(home.dir().join("helper.sock"));
    command
}
