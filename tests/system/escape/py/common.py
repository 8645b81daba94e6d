"""Shared parts of all attempts, and the loop that runs them.

The first argument is JSON: the addresses of the scene and the rows to run. Each row runs in a separate child process and
prints one line of JSON on standard output.
"""

import array
import ctypes
import errno
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time

HERE = json.loads(sys.argv[1])
LIMIT = 0.6  # seconds that an attempt waits for an answer
ATTEMPTS = {}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

# Set for each row.
ROW = ""
PORT = 0


def attempt(function):
    """Registers a function as a row of the table, under its name."""
    ATTEMPTS[function.__name__] = function
    return function


def check(result):
    """The result of a call through ctypes; raises the error in errno."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number, *arguments):
    # Integers would be truncated to 32 bits.
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(LIBC.syscall(ctypes.c_long(number), *wide))


def there(family=socket.AF_INET):
    """The target, at the row's own port."""
    return (HERE["target6"] if family == socket.AF_INET6 else HERE["target4"], PORT)


def stream(family=socket.AF_INET, protocol=0):
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    sock.settimeout(LIMIT)
    return sock


def datagram(family=socket.AF_INET, protocol=0):
    sock = socket.socket(family, socket.SOCK_DGRAM, protocol)
    sock.settimeout(LIMIT)
    return sock


def marker():
    """Bytes that identify the row that sent a packet."""
    return b"escape-" + ROW.encode()


def request(port=None):
    host = ROW.replace("_", "-") + ".escape.test"
    # A unique path, because the audit log folds similar refusals.
    return f"GET /{ROW}/{time.monotonic_ns()} HTTP/1.1\r\nHost: {host}:{port or PORT}\r\nConnection: close\r\n\r\n".encode()


def heard(sock):
    """Identifies the responder by the first line of the reply."""
    try:
        data = sock.recv(4096)
    except TimeoutError:
        return "silence"
    return "answered " + data.split(b"\r\n")[0].decode("latin-1") if data else "closed"


def talk(sock):
    """Sends a request over a connection and identifies the responder."""
    sock.settimeout(LIMIT)
    sock.sendall(request(sock.getpeername()[1]))
    return heard(sock)


def fast_open(sock, address):
    """Connects and sends in one call. A socket with Python's time-out would not wait for it."""
    sock.settimeout(None)
    # Otherwise the alarm would end an unanswered call.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 0, int(LIMIT * 1e6)))
    sock.sendto(request(address[1]), socket.MSG_FASTOPEN, address)
    sock.settimeout(LIMIT)
    return heard(sock)


def file_of(data):
    """A file to send from."""
    file = os.memfd_create("data")
    os.write(file, data)
    return file


def connect(sock, address):
    """Connects and talks; an unanswered connect is silence."""
    sock.connect(address)
    return talk(sock)


def ask(path, **question):
    """Asks one of the scene's helpers over its Unix socket; returns the reply and the passed descriptors."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as helper:
        helper.settimeout(4)
        helper.connect(path)
        helper.sendall(json.dumps(question).encode() + b"\n")
        data, fds, _, _ = socket.recv_fds(helper, 1 << 16, 4)
        return json.loads(data), fds


def sockaddr(address):
    """`struct sockaddr_in` or `sockaddr_in6` in memory."""
    host, port = address[:2]
    if ":" in host:
        family, packed = socket.AF_INET6, struct.pack("!HI", port, 0) + socket.inet_pton(socket.AF_INET6, host)
        packed += bytes(4)
    else:
        family, packed = socket.AF_INET, struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    raw = struct.pack("=H", family) + packed
    return ctypes.create_string_buffer(raw, len(raw))


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


def msghdr(address, data):
    """A `struct msghdr`; the buffers live as long as the returned object."""
    name, payload = sockaddr(address), ctypes.create_string_buffer(data, len(data))
    iovec = Iovec(ctypes.cast(payload, ctypes.c_void_p), len(data))
    header = Msghdr(
        ctypes.cast(name, ctypes.c_void_p), len(name), ctypes.pointer(iovec), 1, None, 0, 0
    )
    header.keep = (name, payload, iovec)
    return header


def unshare(flags):
    check(LIBC.unshare(flags))


def loopback_up():
    """Sets the loopback interface of a new network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request_ = struct.pack("16sH14x", b"lo", 0x41)
        import fcntl

        fcntl.ioctl(sock, 0x8914, request_)  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING


def enter():
    """Moves this process into the agent's cgroup and drops root, as a careless start would: with its open sockets.

    The control does not move.
    """
    if not HERE["enter"]:
        return
    with open(os.path.join(HERE["cgroup"], "cgroup.procs"), "w") as procs:
        procs.write(str(os.getpid()))
    os.setgroups([])
    os.setresgid(HERE["gid"], HERE["gid"], HERE["gid"])
    os.setresuid(HERE["uid"], HERE["uid"], HERE["uid"])


def name_thread(name):
    LIBC.prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME


def one(row):
    """Runs a row in this process and reports its result."""
    global ROW, PORT
    ROW, PORT = row["name"], row["port"]
    name_thread(row["comm"])
    started = time.time()
    try:
        result = ATTEMPTS[ROW]()
        detail = ""
    except TimeoutError as error:
        result, detail = "silence", str(error)
    except OSError as error:
        result, detail = errno.errorcode.get(error.errno, str(error.errno)), str(error)
    except Exception as error:  # a bug of the attempt, which Rust reports
        result, detail = "broken", repr(error)
    report = {"row": ROW, "result": result, "detail": detail, "start": started, "end": time.time()}
    os.write(1, json.dumps(report).encode() + b"\n")


def main():
    while HERE["wait"] and not os.path.exists(HERE["wait"]):
        time.sleep(0.02)
    for row in HERE["rows"]:
        child = os.fork()
        if child == 0:
            signal.alarm(8)
            # Changes that a row makes to its standard streams, or its death, do not affect the next row.
            try:
                one(row)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"row": row["name"], "result": f"ended by {status}", "detail": "", "start": 0, "end": 0}))
            sys.stdout.flush()
