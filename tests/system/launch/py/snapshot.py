"""Creates a snapshot of a Btrfs subvolume, which copies its files with their modes; prints the result of each call.

The arguments are a directory with the subvolume `own`, and a name for the snapshot.
"""

import errno
import fcntl
import os
import struct
import sys

top, name = sys.argv[1:]
# linux/btrfs.h: both take a descriptor; the name begins at another offset of 4096 bytes.
CALLS = {"BTRFS_IOC_SNAP_CREATE": (0x50009401, "<q4088s"), "BTRFS_IOC_SNAP_CREATE_V2": (0x50009417, "<q48x4040s")}
for number, (call, (command, layout)) in enumerate(CALLS.items()):
    arguments = bytearray(struct.pack(layout, os.open(f"{top}/own", os.O_RDONLY), f"{name}{number}".encode()))
    try:
        fcntl.ioctl(os.open(top, os.O_RDONLY), command, arguments)
        print(call, "done")
    except OSError as error:
        print(call, errno.errorcode[error.errno])
