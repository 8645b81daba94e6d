"""Leaving the cgroup, other namespaces, other processes."""

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x2000000, 0x10000000, 0x40000000


def move_to(directory):
    with open(os.path.join(directory, "cgroup.procs"), "w") as procs:
        procs.write("0")
    return connect(stream(), there())


@attempt
def leave_to_parent():
    return move_to(os.path.dirname(HERE["cgroup"]))


@attempt
def leave_to_root():
    return move_to(HERE["cgroup_mount"])


@attempt
def leave_to_sibling():
    return move_to(HERE["sibling"])


@attempt
def leave_by_clone():
    """clone3(2) with CLONE_INTO_CGROUP (Linux 5.7)."""
    directory = os.open(HERE["sibling"], os.O_RDONLY | os.O_DIRECTORY)
    arguments = struct.pack("=11Q", 1 << 33, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, directory)
    child = syscall(435, ctypes.create_string_buffer(arguments, len(arguments)), len(arguments))
    if child == 0:
        try:
            connect(stream(), there())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return "left"


@attempt
def nest():
    """Creates a cgroup below its own, where it would choose its identity."""
    nested = os.path.join(HERE["cgroup"], "nested-" + ROW)
    os.mkdir(nested)
    try:
        return move_to(nested)
    finally:
        os.rmdir(nested)


@attempt
def remount_cgroups():
    """As root of a user namespace, with a new mount whose root is the agent's cgroup."""
    unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP)
    check(LIBC.mount(b"none", b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
    check(LIBC.mount(b"none", b"/tmp", b"cgroup2", 0, None))
    os.mkdir("/tmp/nested-" + ROW)
    return "nested"


def map_root():
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER)
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open("/proc/self/" + file, "w") as out:
            out.write(text)


@attempt
def namespace_of_its_own():
    """`unshare -Urn`, and connect."""
    map_root()
    unshare(CLONE_NEWNET)
    loopback_up()
    return connect(stream(), there())


@attempt
def network_after_user_namespace():
    """`unshare -U`, no mapping, and then a network namespace."""
    unshare(CLONE_NEWUSER)
    unshare(CLONE_NEWNET)
    return connect(stream(), there())


@attempt
def old_socket_in_new_namespace():
    """A socket of the host's network, used by root of a user namespace."""
    sock = stream()
    map_root()
    unshare(CLONE_NEWNET)
    return connect(sock, there())


@attempt
def squat_in_new_namespace():
    """The transparent port of a new network namespace."""
    map_root()
    unshare(CLONE_NEWNET)
    loopback_up()
    listener = stream()
    listener.bind(("127.0.0.1", HERE["transparent"]))
    listener.listen()
    return "bound"


@attempt
def capabilities_in_user_namespace():
    """Root of a user namespace in the host's network."""
    map_root()
    sock = stream()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
    return connect(sock, there())


@attempt
def trace_root():
    check(LIBC.ptrace(16, HERE["outside_pid"], 0, 0))  # PTRACE_ATTACH
    return "attached"


@attempt
def take_descriptor():
    """pidfd_getfd(2) of the daemon's descriptors."""
    pidfd = syscall(434, HERE["daemon_pid"], 0)
    for fd in range(3, 20):
        try:
            return f"took {syscall(438, pidfd, fd, 0)}"
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
    return "none"


@attempt
def trace_same_user():
    """A process of the agent's user that runs outside."""
    check(LIBC.ptrace(16, HERE["same_user_pid"], 0, 0))
    os.waitpid(HERE["same_user_pid"], 0)
    check(LIBC.ptrace(17, HERE["same_user_pid"], 0, 0))  # PTRACE_DETACH
    return "attached"


@attempt
def open_pins():
    """The pinned links: a process with a link's descriptor can detach it."""
    name = ctypes.create_string_buffer(HERE["pin"].encode())
    attribute = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(name), 0, 0).ljust(144, b"\0"), 144)
    number = {"x86_64": 321, "aarch64": 280, "riscv64": 280}[os.uname().machine]
    syscall(number, 7, attribute, 16)  # BPF_OBJ_GET
    return "opened"
