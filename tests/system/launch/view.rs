//! Parts of the host that an agent cannot reach, tried from inside.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use onecli_tests::client::Run;
use onecli_tests::{need, unique};

use super::{ROBOT, Stage};

/// A service of the host at a path in /run, removed after the test.
struct Service {
    path: std::path::PathBuf,
    _listener: UnixListener,
}

impl Service {
    fn new() -> Self {
        let path = Path::new("/run").join(format!("onecli-test-{}-{}.sock", std::process::id(), unique()));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        Self { path, _listener: listener }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

#[test]
fn host_run_directory_is_hidden_from_the_agent() {
    let Some(stage) = Stage::new() else { return };
    let service = Service::new();
    let connect = format!(
        r#"import socket; socket.socket(socket.AF_UNIX).connect("{}"); print("reached")"#,
        service.path.display()
    );
    // Control: the same user, outside of an agent.
    let outside = Run::new("setpriv").args(["--reuid", ROBOT, "--clear-groups", "python3", "-c", &connect]);
    assert_eq!(outside.outcome().ok("the control"), "reached\n");
    let inside = stage.run(&["python3", "-c", &connect]).outcome();
    assert!(inside.err().contains("FileNotFoundError"), "{inside:?}");

    let out =
        stage.shell("ls -A /run /run/onecli /run/user; ls -ld /run/user/5; echo $XDG_RUNTIME_DIR").outcome();
    let out = out.ok("ls");
    for line in
        ["/run:\nlock\nonecli\nuser\n", "/run/onecli:\nca-bundle.pem\ncacerts.jks\n", "/run/user:\n5\n"]
    {
        assert!(out.contains(line), "{line:?}: {out}");
    }
    assert!(out.contains("drwx------ 2 games games") && out.ends_with("/run/user/5\n"), "{out}");
    stage
        .shell("touch /run/user/5/x && ! touch /run/x && ! touch /run/onecli/x")
        .outcome()
        .ok("what is whose");
}

/// Without privileges, and with all capabilities in a new user namespace.
#[test]
fn agent_cannot_change_its_view() {
    let Some(stage) = Stage::new() else { return };
    let service = Service::new();
    let data = stage.scene.daemon.home().data_dir();
    for wrap in ["", "unshare --user --map-root-user --mount "] {
        for (place, what) in [
            ("/run", service.path.display().to_string()),
            ("/sys/fs/bpf", stage.scene.daemon.home().pins().display().to_string()),
            (data.to_str().unwrap(), data.join("onecli.db").display().to_string()),
        ] {
            let script = format!(
                "{wrap}sh -c 'umount {place} 2>/dev/null; umount -l {place} 2>/dev/null; ls -ld {what}'"
            );
            let outcome = stage.shell(&script).outcome();
            assert!(!outcome.status.success(), "{script}: {outcome:?}");
        }
    }
    // Through a process outside the view: one of root, and one of the agent's own user.
    let outside = Run::new("setpriv").args(["--reuid", ROBOT, "--clear-groups", "sleep", "60"]).start();
    for pid in [1, std::process::id(), outside.pid()] {
        let script = format!("ls /proc/{pid}/root || cat /proc/{pid}/environ");
        let outcome = stage.shell(&script).outcome();
        assert!(!outcome.status.success() && outcome.out().is_empty(), "{script}: {outcome:?}");
    }
}

/// Landlock confines abstract sockets, and signals.
#[test]
fn abstract_sockets_and_signals_do_not_leave_the_agent() {
    let Some(stage) = Stage::new() else { return };
    let name = format!("onecli-test-{}-{}", std::process::id(), unique());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name)
            .unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let connect =
        format!(r#"import socket; socket.socket(socket.AF_UNIX).connect("\0{name}"); print("reached")"#);
    assert_eq!(Run::new("python3").args(["-c", &connect]).outcome().ok("the control"), "reached\n");
    let outcome = stage.run(&["python3", "-c", &connect]).outcome();
    if outcome.err().contains("this kernel cannot restrict") {
        println!("NOT RUN: the kernel has no Landlock scopes");
        return;
    }
    assert!(outcome.err().contains("PermissionError"), "{outcome:?}");
    // Its own sockets and signals still work.
    let own = r#"
import socket
a, b = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
a.bind("\0onecli-test-own"); a.listen(); b.connect("\0onecli-test-own"); print("own")"#;
    assert_eq!(stage.run(&["python3", "-c", own]).outcome().ok("its own"), "own\n");

    let victim = Run::new("setpriv").args(["--reuid", ROBOT, "--clear-groups", "sleep", "60"]).start();
    let outcome = stage.shell(&format!("kill -KILL {}", victim.pid())).outcome();
    assert!(outcome.err().contains("not permitted"), "{outcome:?}");
    stage.shell("sleep 60 & kill $!; wait $!; [ $? = 143 ]").outcome().ok("its own process");
}

/// Files that make others run programs as the owner of the project.
#[test]
fn agent_cannot_create_set_user_id_files() {
    let Some(stage) = Stage::new() else { return };
    let script = r#"
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(os.environ["XDG_RUNTIME_DIR"])
open("x", "w").close()
tries = {
    "chmod": lambda: os.chmod("x", 0o4755),
    "setgid": lambda: os.chmod("x", 0o2755),
    "fchmod": lambda: os.fchmod(os.open("x", os.O_RDONLY), 0o4755),
    "fchmodat": lambda: os.chmod("x", 0o4755, dir_fd=os.open(".", os.O_RDONLY)),
    "open": lambda: os.open("y", os.O_CREAT | os.O_WRONLY, 0o4755),
    "openat": lambda: os.open("y", os.O_CREAT | os.O_WRONLY, 0o4755, dir_fd=os.open(".", os.O_RDONLY)),
    "mknod": lambda: os.mknod("z", 0o104755),
}
for name, attempt in tries.items():
    try:
        attempt()
        print(name, "done")
    except PermissionError:
        print(name, "refused")
how = (ctypes.c_uint64 * 3)(os.O_CREAT | os.O_WRONLY, 0o4755, 0)
print("openat2", libc.syscall(437, -100, b"w", how, 24), ctypes.get_errno())
os.chmod("x", 0o755)
os.mkdir("d", 0o1777)
print("usual modes")
"#;
    let out = stage.run(&["python3", "-c", script]).outcome().ok("python");
    assert_eq!(out.matches(" refused\n").count(), 7, "{out}");
    assert!(out.ends_with("openat2 -1 38\nusual modes\n"), "{out}");
}

/// No service runs a program for the agent outside.
#[test]
fn host_services_run_nothing_for_an_agent() {
    let Some(stage) = Stage::new() else { return };
    let check = |part: &str, program: &str, package: &str, script: &str| {
        if !need::program(part, program, package) {
            return;
        }
        let outcome = stage.shell(script).outcome();
        assert!(!outcome.status.success(), "{script}: {outcome:?}");
    };
    // Set-group-ID programs gain no rights: they cannot create a job where cron and atd look.
    check("cron", "crontab", "cron", "echo '* * * * * id' | crontab -");
    check("at", "at", "at", "echo id | at now + 1 minute");
    // Their sockets do not exist in the view.
    check("D-Bus", "busctl", "systemd", "busctl --timeout=2 list");
    check(
        "D-Bus",
        "dbus-send",
        "dbus-bin",
        "dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames",
    );
    check("systemd", "systemd-run", "systemd", "systemd-run --user id || systemd-run id");
    check("Docker", "docker", "docker.io", "docker ps");
    let sockets = r#"
        for s in /run/docker.sock /var/run/docker.sock /run/containerd/containerd.sock /run/podman/podman.sock \
            /run/dbus/system_bus_socket /run/nscd/socket /run/systemd/private /run/systemd/resolve/io.systemd.Resolve \
            /run/cron.reboot /run/atd.pid /run/user/0/bus /run/snapd.socket; do
            if [ -e "$s" ]; then echo "$s"; fi
        done"#;
    assert_eq!(stage.shell(sockets).outcome().ok("sockets"), "");
    // A spool that any user may write would be a way out.
    for spool in ["/var/spool/cron/crontabs", "/var/spool/cron/atjobs", "/etc/cron.d", "/var/spool/at"] {
        let script = format!("[ -d {spool} ] && touch {spool}/onecli-test");
        assert!(!stage.shell(&script).outcome().status.success(), "{spool}");
    }
    // The host's SSH server is a network destination, and policy decides about it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let script = format!(
        r#"import socket; s = socket.create_connection(("127.0.0.1", {})); s.settimeout(5); print(s.recv(64))"#,
        listener.local_addr().unwrap().port()
    );
    let outcome = stage.run(&["python3", "-c", &script]).outcome();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{outcome:?}");
}
