"""Listeners of the host itself: its services, and the daemon's own ports."""


def carried(address):
    """Contacts a program of the host that listens there and forwards what it receives, as a resolver does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(LIMIT)
        sock.connect(address)
        sock.sendall(json.dumps({"op": "carry", "port": PORT, "data": marker().decode()}).encode() + b"\n")
        return "answered " + json.loads(sock.recv(4096))["got"]


@attempt
def host_service_abstract():
    """A program that listens on an abstract socket."""
    return carried("\0" + HERE["abstract"])


@attempt
def host_service_tmp():
    """A program that listens on a socket in /tmp, as display servers, editors and SSH's agents do."""
    return carried(HERE["tmp_socket"])


@attempt
def host_services():
    """Services that resolve names or start programs for any client. Connected, but not used."""
    found = []
    for path in (
        "/run/nscd/socket",
        "/var/run/nscd/socket",
        "/run/systemd/resolve/io.systemd.Resolve",
        "/run/systemd/userdb/io.systemd.DynamicUser",
        "/run/dbus/system_bus_socket",
        f"/run/user/{os.getuid()}/bus",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/avahi-daemon/socket",
        "/run/cups/cups.sock",
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(LIMIT)
            try:
                sock.connect(path)
                found.append(path)
            except OSError:
                pass
    return "reached " + (", ".join(found) or "none of this machine")


@attempt
def kernel_resolver():
    """request_key(2): the kernel starts a helper, as root and outside of the agent, that queries DNS for our name."""
    number = {"x86_64": 249, "aarch64": 218, "riscv64": 218}[os.uname().machine]
    arguments = [ctypes.create_string_buffer(t) for t in (b"dns_resolver", ROW.encode() + b".escape.test", b"")]
    return f"key {syscall(number, *arguments, -3)}"


def at_host(address, family=socket.AF_INET):
    return connect(stream(family), (address, HERE["service"]))


@attempt
def host_loopback4():
    return at_host("127.0.0.1")


@attempt
def host_loopback6():
    return at_host("::1", socket.AF_INET6)


@attempt
def host_other_loopback4():
    return at_host("127.8.9.10")


@attempt
def host_unspecified4():
    return at_host("0.0.0.0")


@attempt
def host_unspecified6():
    return at_host("::", socket.AF_INET6)


@attempt
def host_address4():
    return at_host(HERE["host4"])


@attempt
def host_address6():
    return at_host(HERE["host6"], socket.AF_INET6)


@attempt
def host_udp4():
    return thrown(datagram(), ("127.0.0.1", HERE["service"]))


@attempt
def explicit_port():
    """The daemon's explicit proxy without a token."""
    sock = stream()
    sock.connect(("127.0.0.1", HERE["explicit"]))
    sock.sendall(f"CONNECT {HERE['target4']}:{PORT} HTTP/1.1\r\nHost: {HERE['target4']}:{PORT}\r\n\r\n".encode())
    return heard(sock)


@attempt
def transparent_port():
    return connect(stream(), ("127.0.0.1", HERE["transparent"]))


@attempt
def transparent_port6():
    return connect(stream(socket.AF_INET6), ("::1", HERE["transparent"]))


@attempt
def admin_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.connect(HERE["admin"])
        sock.sendall(b"GET /v1/agents HTTP/1.1\r\nHost: onecli\r\nConnection: close\r\n\r\n")
        return heard(sock)


def bound(sock, host, port):
    sock.bind((host, port))
    return "bound"


@attempt
def bind_transparent4():
    return bound(stream(), "127.0.0.1", HERE["transparent"])


@attempt
def bind_transparent_any4():
    return bound(stream(), "0.0.0.0", HERE["transparent"])


@attempt
def bind_transparent6():
    return bound(stream(socket.AF_INET6), "::", HERE["transparent"])


@attempt
def bind_transparent_mapped():
    return bound(stream(socket.AF_INET6), "::ffff:127.0.0.1", HERE["transparent"])


@attempt
def bind_explicit():
    return bound(stream(), "127.0.0.1", HERE["explicit"])


@attempt
def bind_resolver():
    return bound(datagram(), "0.0.0.0", HERE["transparent"])
