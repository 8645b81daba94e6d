"""Puts files with the set-user-ID bit into a project, with every file system that a user namespace may mount.

Each is a layer of an overlay file system below the project, which copies a changed file with its mode. Prints a line of
JSON for each file system. The argument is JSON: the project, and a device node of FUSE.
"""

import ctypes
import errno
import json
import os
import signal
import stat
import struct
import sys
import tempfile
import threading
import time

HERE = json.loads(sys.argv[1])
PROJECT = HERE["project"]
LIBC = ctypes.CDLL(None, use_errno=True)
PROGRAM = b"#!/bin/sh\nid -u\n"
LIMIT = 15  # seconds for one file system

# linux/sched.h: namespaces of mounts, cgroups, IPC, users, processes, networks.
NEWNS, NEWCGROUP, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000, 0x2000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)
# VFS_CAP_REVISION_2 with the effective flag and CAP_NET_RAW.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
FUSE_INIT, FUSE_LOOKUP, FUSE_GETATTR, FUSE_READ, FUSE_STATFS = 26, 1, 3, 15, 17


def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def mount(source, target, kind, options=""):
    check(LIBC.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()))


def unshare(flags):
    uid, gid = os.getuid(), os.getgid()
    check(LIBC.unshare(flags | NEWUSER))
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as out:
            out.write(text)


def fuse(place):
    """A FUSE file system whose root contains a set-user-ID program `x`."""
    device = os.open(HERE["fuse"], os.O_RDWR)

    def attributes(node):
        mode, size = (0o40755, 4096) if node == 1 else (0o104755, len(PROGRAM))
        return struct.pack("<6Q10I", node, size, 1, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(operation, node, payload):
        if operation == FUSE_INIT:
            return struct.pack("<IIIIHHIIHHI", 7, 31, 131072, 0, 12, 9, 131072, 1, 32, 0, 0) + bytes(28)
        if operation == FUSE_LOOKUP:
            found = payload.split(b"\0")[0] == b"x"
            return struct.pack("<QQQQII", 2, 1, 100, 100, 0, 0) + attributes(2) if found else -errno.ENOENT
        if operation == FUSE_GETATTR:
            return struct.pack("<QII", 100, 0, 0) + attributes(node)
        if operation in (14, 27):  # open, opendir
            return struct.pack("<QII", 1, 0, 0)
        if operation == FUSE_READ:
            _, offset, size = struct.unpack("<QQI", payload[:20])
            return PROGRAM[offset : offset + size]
        if operation == FUSE_STATFS:
            return struct.pack("<QQQQQIIII", 1000, 1000, 1000, 1000, 1000, 4096, 255, 4096, 0) + bytes(24)
        if operation in (18, 25, 28, 29):  # release, flush, readdir, releasedir
            return b""
        return -errno.ENOSYS

    def serve():
        while True:
            try:
                request = os.read(device, 1 << 18)
            except OSError as error:
                if error.errno == errno.EPERM:  # not mounted yet
                    time.sleep(0.02)
                    continue
                return
            _, operation, unique, node = struct.unpack("<IIQQ", request[:24])
            if operation in (2, 42):  # forget
                continue
            said = answer(operation, node, request[40:])
            code, data = (said, b"") if isinstance(said, int) else (0, said)
            os.write(device, struct.pack("<IiQ", 16 + len(data), code, unique) + data)

    threading.Thread(target=serve, daemon=True).start()
    mount("onecli", place, "fuse", f"fd={device},rootmode=40000,user_id=0,group_id=0")


def overlay(lower, upper, work, place):
    for directory in (upper, work, place):
        os.makedirs(directory, exist_ok=True)
    mount("onecli", place, "overlay", f"lowerdir={lower},upperdir={upper},workdir={work},userxattr")


def mount_layer(kind, place):
    if kind == "fuse":
        return fuse(place)
    if kind == "overlay":
        base = tempfile.mkdtemp()
        mount("onecli", base, "tmpfs")
        os.mkdir(f"{base}/l")
        return overlay(f"{base}/l", f"{base}/u", f"{base}/w", place)
    return mount("onecli", place, kind)


def seeds(kind, place):
    """Every call that creates a file with the bit or sets it, and a file capability."""

    def made(name, how):
        os.close(how(f"{place}/{name}"))

    def chmod(change):
        path = f"{place}/chmod"
        made("chmod", lambda path: os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
        change(path)

    def queue():
        LIBC.mq_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
        check(LIBC.mq_open(b"/onecli", os.O_CREAT | os.O_RDWR, 0o4755, None))

    def temporary(path):
        file = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o4755)
        # With a directory Python calls linkat(2), which can follow links.
        os.link(f"/proc/self/fd/{file}", path, src_dir_fd=os.open("/", os.O_PATH), follow_symlinks=True)
        return file

    def capability():
        path = f"{place}/capability"
        made("capability", lambda path: os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
        os.setxattr(path, "security.capability", CAPABILITY)

    yield "open", lambda: made("open", lambda path: os.open(path, os.O_CREAT | os.O_WRONLY, 0o4755))
    yield "mknod", lambda: os.mknod(f"{place}/mknod", 0o104755)
    yield "tmpfile", lambda: made("tmpfile", temporary)
    yield "chmod", lambda: chmod(lambda path: os.chmod(path, 0o6755))
    yield "fchmod", lambda: chmod(lambda path: os.fchmod(os.open(path, os.O_RDONLY), 0o6755))
    yield "capability", capability
    if kind == "mqueue":
        yield "mq_open", queue


def names_in(kind, place):
    if kind == "fuse":
        return ["x"]  # it lists nothing
    try:
        return os.listdir(place)[:50]
    except OSError:  # an agent's cgroup is closed to it
        return []


def is_marked(path):
    found = os.lstat(path)
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o6000)


def attempt(kind):
    """Tests one file system, in a separate process."""
    report = {"kind": kind, "mounted": "", "seeds": [], "marked": 0, "overlay": "", "refused": []}
    place = tempfile.mkdtemp()
    try:
        mount_layer(kind, place)
    except OSError as error:
        return report | {"mounted": name_of(error)}
    report["mounted"] = "yes"
    for name, seed in seeds(kind, place):
        try:
            seed()
            report["seeds"].append(name)
        except OSError:
            pass
    names = names_in(kind, place)
    report["marked"] = sum(is_marked(f"{place}/{name}") for name in names)
    merged = tempfile.mkdtemp()
    try:
        overlay(place, f"{PROJECT}/{kind}/u", f"{PROJECT}/{kind}/w", merged)
        report["overlay"] = "yes"
    except OSError as error:
        return report | {"overlay": name_of(error)}
    for name in names:
        try:
            os.utime(f"{merged}/{name}")
        except OSError as error:
            report["refused"].append(name_of(error))
    return report


def isolated(kind):
    """Runs in new namespaces, with a time limit."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            unshare(NEWNS | NEWCGROUP | NEWIPC | NEWPID | NEWNET)
            # The first process of the namespace, which proc requires.
            if os.fork() == 0:
                signal.alarm(LIMIT)
                os.write(writer, json.dumps(attempt(kind)).encode())
                os._exit(0)
            os.wait()
        except OSError as error:
            os.write(writer, json.dumps({"kind": kind, "mounted": f"unshare: {error}"}).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as said:
        return said.read().decode() or json.dumps({"kind": kind, "mounted": "no answer"})


with open("/proc/filesystems") as listed:
    kinds = {line.split()[-1] for line in listed}
# File systems that may be modules, or that the list shows only after their first use.
kinds |= {"bpf", "binfmt_misc", "cgroup", "cgroup2", "devpts", "devtmpfs", "fuse", "mqueue", "overlay", "ramfs"}
os.umask(0)
for kind in sorted(kinds):
    os.makedirs(f"{PROJECT}/{kind}", exist_ok=True)
    print(isolated(kind), flush=True)
