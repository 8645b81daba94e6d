//! Programs that agents run in several tests.

/// Python: replaces `.git` in the directory that is its first argument, and writes its second into `.git/config`. The directory
/// stays open while the program leaves its view of the files for one without the project's mounts: the kernel renames what is a
/// mount point in another mount namespace alone.
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
