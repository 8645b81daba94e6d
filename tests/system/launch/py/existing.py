"""Changes and copies programs that already have the set-user-ID bit or capabilities, in another user's directory.

The arguments are the project, with `bin/su`, `bin/newgrp` and `bin/ping`, and a shared directory with `su`. Prints a line of
JSON for each attempt.
"""

import ctypes
import errno
import json
import mmap
import os
import sys
import tempfile

PROJECT, SHARED = sys.argv[1:]
LIBC = ctypes.CDLL(None, use_errno=True)
PROGRAM = b"#!/bin/sh\necho replaced\n"
NEWNS, NEWUSER, BIND, REC, REMOUNT = 0x20000, 0x10000000, 4096, 16384, 32


def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def mount(source, target, kind, flags, options):
    check(LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()))


def unshare():
    uid, gid = os.getuid(), os.getgid()
    check(LIBC.unshare(NEWNS | NEWUSER))
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as out:
            out.write(text)


def store(path):
    """A write through a mapping removes no bit."""
    file = os.open(path, os.O_RDWR)
    with mmap.mmap(file, os.fstat(file).st_size) as memory:
        memory[: len(PROGRAM)] = PROGRAM
        memory.flush()


def overlay(lower, name):
    upper, work, merged = f"{PROJECT}/{name}-upper", f"{PROJECT}/{name}-work", tempfile.mkdtemp()
    for directory in (upper, work):
        os.makedirs(directory)
    mount("onecli", merged, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work},userxattr")
    return merged


def copy_up(lower, name):
    unshare()
    merged = overlay(lower, name)
    for entry in os.listdir(merged):
        if os.path.isfile(f"{merged}/{entry}"):
            os.utime(f"{merged}/{entry}")


def store_in_copy(lower, name):
    unshare()
    merged = overlay(lower, name)
    store(f"{merged}/su")


def uncovered():
    """Uncovers the files below the mounts of the view."""
    unshare()
    place = tempfile.mkdtemp()
    try:
        mount(f"{PROJECT}/bin", place, "", BIND, "")
    except OSError:
        LIBC.umount2(f"{PROJECT}/bin/su".encode(), 2)
        place = f"{PROJECT}/bin"
    store(f"{place}/su")


def remounted():
    unshare()
    mount(f"{PROJECT}/bin", f"{PROJECT}/bin", "", BIND | REC, "")
    mount("", f"{PROJECT}/bin/su", "", REMOUNT | BIND, "")
    store(f"{PROJECT}/bin/su")


def renamed():
    os.rename(f"{PROJECT}/bin/su", f"{PROJECT}/bin/su2")
    os.rename(f"{PROJECT}/bin/su2", f"{PROJECT}/bin/su")


def moved():
    os.rename(f"{PROJECT}/bin", f"{PROJECT}/elsewhere")
    try:
        store(f"{PROJECT}/elsewhere/su")
    finally:
        os.rename(f"{PROJECT}/elsewhere", f"{PROJECT}/bin")


def by_handle():
    """open_by_handle_at(2), which looks up no path."""

    class Handle(ctypes.Structure):
        _fields_ = [("size", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]

    handle, mount_id = Handle(size=128), ctypes.c_int()
    name = f"{PROJECT}/bin/su".encode()
    check(LIBC.name_to_handle_at(-100, name, ctypes.byref(handle), ctypes.byref(mount_id), 0))
    unshare()
    for place in (f"{PROJECT}/bin", PROJECT):
        directory = os.open(place, os.O_RDONLY)
        file = LIBC.open_by_handle_at(directory, ctypes.byref(handle), os.O_RDWR)
        if file >= 0:
            return store(f"/proc/self/fd/{file}")
    return check(file)


ATTEMPTS = {
    "store": lambda: store(f"{PROJECT}/bin/su"),
    "store_set_group_id": lambda: store(f"{PROJECT}/bin/newgrp"),
    "store_capability": lambda: store(f"{PROJECT}/bin/ping"),
    "rename": renamed,
    "link": lambda: os.link(f"{PROJECT}/bin/su", f"{PROJECT}/link"),
    "store_where_moved": moved,
    "store_uncovered": uncovered,
    "store_remounted": remounted,
    "store_by_handle": by_handle,
    "copy_project": lambda: copy_up(f"{PROJECT}/bin", "project"),
    "copy_whole_project": lambda: copy_up(PROJECT, "whole"),
    "store_in_copy": lambda: store_in_copy(f"{PROJECT}/bin", "stored"),
    "copy_shared": lambda: copy_up(SHARED, "shared"),
}
os.umask(0o022)
for name, attempt in ATTEMPTS.items():
    print(end="", flush=True)
    child = os.fork()
    if child == 0:
        try:
            attempt()
            result = "done"
        except OSError as error:
            result = errno.errorcode.get(error.errno, str(error))
        print(json.dumps({"name": name, "result": result}), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
