//! Scripts shared by several tests.

use crate::bins;
use crate::client::Run;
use crate::daemon::Home;
use crate::free_port;

/// A Python script that replaces `.git` in the directory of its first argument, and writes its second argument into
/// `.git/config`. The script holds the directory open and enters a mount namespace without the project's mounts. The
/// kernel renames a mount point only from another mount namespace.
pub const REPLACE_GIT_DIRECTORY: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None)
project = os.open(sys.argv[1], os.O_RDONLY)
uid, gid = os.getuid(), os.getgid()
assert libc.unshare(0x10020000) == 0
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write("0 %d 1" % uid)
open("/proc/self/gid_map", "w").write("0 %d 1" % gid)
assert libc.mount(b"x", b"/tmp", b"tmpfs", 0, None) == 0
os.mkdir("/tmp/old")
# pivot_root(2) has no function in libc.
number = {"x86_64": 155, "aarch64": 41, "riscv64": 41}[os.uname().machine]
assert libc.syscall(number, b"/tmp", b"/tmp/old") == 0
os.chdir("/")
assert libc.umount2(b"/old", 2) == 0
os.rename(".git", ".git-old", src_dir_fd=project, dst_dir_fd=project)
os.mkdir(".git", dir_fd=project)
file = os.open(".git/config", os.O_CREAT | os.O_WRONLY, dir_fd=project)
os.write(file, sys.argv[2].encode())
"#;

/// A host whose user database, services and agents are a temporary copy, with a daemon. The script appended to it has
/// `$dir`, `$cli` and the function `onecli`.
const COPY: &str = r#"
    set -e
    dir=$1 cli=$3
    mkdir "$dir/upper" && mount -t tmpfs tmpfs "$dir/upper" && mkdir "$dir/upper/u" "$dir/upper/w" "$dir/upper/homes"
    mount -t overlay overlay -o "lowerdir=/etc,upperdir=$dir/upper/u,workdir=$dir/upper/w" /etc
    mkdir -p /var/lib/onecli-agents; mount --bind "$dir/upper/homes" /var/lib/onecli-agents
    mount -t tmpfs -o mode=755 tmpfs /run
    getent group onecli >/dev/null || groupadd --system onecli
    "$2" --config "$dir/config.toml" --no-ebpf >"$dir/daemon.log" 2>&1 &
    daemon=$!
    trap 'kill $daemon $sshd' EXIT
    onecli() { "$cli" --socket "$dir/admin.sock" "$@"; }
    for i in $(seq 100); do onecli status >/dev/null 2>&1 && break; sleep 0.1; done
"#;

/// Part of a script on a copy of the host: sshd. `login USER` prints `in` if it accepts the key of the test's
/// accomplice, whose public part is `$pub`.
pub const SSHD: &str = r#"
    mkdir /run/sshd
    getent passwd sshd >/dev/null || useradd --system --home-dir /run/sshd --shell /usr/sbin/nologin sshd
    keys=$dir/upper/keys; mkdir "$keys"; chmod 755 "$keys"
    ssh-keygen -q -t ed25519 -N '' -f "$keys/host"; ssh-keygen -q -t ed25519 -N '' -f "$keys/id"; chmod 644 "$keys/id.pub"
    pub=$(cat "$keys/id.pub")
    port=$4
    printf '%s\n' "Port $port" 'ListenAddress 127.0.0.1' "HostKey $keys/host" 'PidFile none' 'UsePAM no' \
        'PasswordAuthentication no' 'KbdInteractiveAuthentication no' >"$keys/config"
    /usr/sbin/sshd -D -e -f "$keys/config" 2>"$keys/log" &
    sshd=$!
    login() {
        for i in 1 2 3 4 5; do
            ssh -F none -i "$keys/id" -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                -o BatchMode=yes "$1@127.0.0.1" 'echo in' 2>"$keys/ssh" && return 0
            grep -q 'Connection refused' "$keys/ssh" || break
            sleep 0.3
        done
        grep -o 'Permission denied (publickey)' "$keys/ssh" || { cat "$keys/ssh" "$keys/log"; false; }
    }
    # Without PAM sshd rejects users with a locked password: that must not be the reason why the accomplice is rejected.
    unlock() { usermod --password '*' "$1"; }
    mark() { echo "== $1"; }
"#;

/// `script` on a temporary copy of this host's user database, with the daemon of `home`. Needs root.
#[must_use]
pub fn on_a_copy_of_the_host(home: &Home, script: &str) -> Run {
    Run::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-c", &format!("{COPY}{script}"), "bash"])
        .arg(home.dir())
        .arg(bins::path("onecli-daemon"))
        .arg(bins::path("onecli"))
        .arg(free_port().to_string())
}
