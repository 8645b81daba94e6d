"""Prints a line of JSON for every file below a directory that has a set-user-ID or set-group-ID bit, file capabilities or
another owner than expected."""

import json
import os
import stat
import sys

top, *owners = sys.argv[1:]
for directory, directories, files in os.walk(top):
    for name in directories + files:
        path = os.path.join(directory, name)
        found = os.lstat(path)
        is_file = stat.S_ISREG(found.st_mode)
        what = []
        if is_file and found.st_mode & 0o6000:
            what.append("set-id")
        if is_file and "security.capability" in os.listxattr(path):
            what.append("capability")
        if str(found.st_uid) not in owners:
            what.append("owner")
        if what:
            print(json.dumps({"path": os.path.relpath(path, top), "what": what}))
