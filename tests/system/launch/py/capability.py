"""Sets capabilities on a file of the project, as root of a user namespace; prints the result of each call."""

import ctypes
import errno
import os
import struct
import sys

path = sys.argv[1]
LIBC = ctypes.CDLL(None, use_errno=True)
uid, gid = os.getuid(), os.getgid()
assert LIBC.unshare(0x10000000) == 0
for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    with open(f"/proc/self/{file}", "w") as out:
        out.write(text)
# VFS_CAP_REVISION_2 with the effective flag and CAP_NET_RAW.
value = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
name = b"security.capability"


class Arguments(ctypes.Structure):
    _fields_ = [("value", ctypes.c_uint64), ("size", ctypes.c_uint32), ("flags", ctypes.c_uint32)]


buffer = ctypes.create_string_buffer(value, len(value))
arguments = Arguments(ctypes.addressof(buffer), len(value), 0)
calls = {
    "setxattr": lambda: LIBC.setxattr(path.encode(), name, value, len(value), 0),
    "lsetxattr": lambda: LIBC.lsetxattr(path.encode(), name, value, len(value), 0),
    "fsetxattr": lambda: LIBC.fsetxattr(os.open(path, os.O_RDONLY), name, value, len(value), 0),
    "setxattrat": lambda: LIBC.syscall(463, -100, path.encode(), 0, name, ctypes.byref(arguments), 16),
}
for called, call in calls.items():
    result = "done" if call() == 0 else errno.errorcode[ctypes.get_errno()]
    print(called, result)
