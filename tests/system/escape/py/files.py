"""Files that other users would run with more rights: refusals of the launcher that do not concern the network."""


@attempt
def fuse_device():
    """FUSE presents files with any mode."""
    return "opened " + str(os.open("/dev/fuse", os.O_RDWR))


@attempt
def queue_with_set_user_id():
    """A message queue is a file of mqueue."""
    LIBC.mq_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    name = b"/onecli-escape-" + str(os.getpid()).encode()
    check(LIBC.mq_open(name, os.O_CREAT | os.O_RDWR, 0o4700, None))
    LIBC.mq_unlink(name)
    return "made"


def own_file():
    return os.memfd_create("file")


@attempt
def file_with_set_user_id():
    os.fchmod(own_file(), 0o4755)
    return "made"


@attempt
def file_with_capability():
    """As root of a new user namespace."""
    file = own_file()
    uid, gid = os.getuid(), os.getgid()
    check(LIBC.unshare(0x10000000))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as out:
            out.write(text)
    os.setxattr(file, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
    return "made"
