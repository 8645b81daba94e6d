"""TCP: all ways to send a SYN."""

IP_OPTIONS, IP_FREEBIND, IP_TRANSPARENT, IP_UNICAST_IF = 4, 15, 19, 50
IPV6_RTHDR, IPV6_UNICAST_IF = 57, 76
TCP_FASTOPEN_CONNECT = 30
IPPROTO_MPTCP = 262


@attempt
def tcp4():
    return connect(stream(), there())


@attempt
def tcp6():
    return connect(stream(socket.AF_INET6), there(socket.AF_INET6))


@attempt
def tcp4_nonblocking():
    sock = stream()
    sock.setblocking(False)
    number = sock.connect_ex(there())
    if number != errno.EINPROGRESS:
        raise OSError(number, os.strerror(number))
    select.select([], [sock], [], LIMIT)
    return talk(sock)


@attempt
def tcp6_mapped():
    return connect(stream(socket.AF_INET6), ("::ffff:" + HERE["target4"], PORT))


@attempt
def tcp4_fastopen_sendto():
    return fast_open(stream(), there())


@attempt
def tcp6_fastopen_sendto():
    return fast_open(stream(socket.AF_INET6), there(socket.AF_INET6))


@attempt
def tcp4_fastopen_connect():
    sock = stream()
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    return connect(sock, there())


def own_listener(family=socket.AF_INET):
    listener = stream(family)
    listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    listener.listen()
    return listener


def disconnect(sock):
    """connect(2) with AF_UNSPEC."""
    unspec = ctypes.create_string_buffer(16)
    check(LIBC.connect(sock.fileno(), unspec, 16))


@attempt
def own_listener_is_reached():
    """Not an escape: an agent's programs may talk to each other."""
    listener = own_listener()
    sock = stream()
    sock.connect(listener.getsockname())
    accepted, _ = listener.accept()
    accepted.sendall(b"MINE\r\n")
    return heard(sock)


@attempt
def tcp4_after_unspec():
    """Reuses a socket that was allowed to connect to the agent's own listener."""
    sock, listener = stream(), own_listener()
    sock.connect(listener.getsockname())
    disconnect(sock)
    return connect(sock, there())


@attempt
def tcp4_sendto_on_own_connection():
    """A connected stream ignores the address, except with MSG_FASTOPEN on a socket that was disconnected."""
    sock, listener = stream(), own_listener()
    sock.connect(listener.getsockname())
    disconnect(sock)
    return fast_open(sock, there())


@attempt
def tcp4_accepted_reconnected():
    """An accepted socket was never created by socket(2)."""
    listener, client = own_listener(), stream()
    client.connect(listener.getsockname())
    accepted, _ = listener.accept()
    accepted.sendall(b"x")
    client.recv(1)
    disconnect(accepted)
    return connect(accepted, there())


@attempt
def tcp4_listener_reconnected():
    """A listener turned into a client."""
    listener, client = own_listener(), stream()
    client.connect(listener.getsockname())
    listener.shutdown(socket.SHUT_RDWR)
    disconnect(listener)
    return connect(listener, there())


IPV6_ADDRFORM = 1


def again(sock):
    """The same socket, for a Python that still treats it as an IPv6 socket."""
    sock = socket.socket(fileno=sock.detach())
    sock.settimeout(LIMIT)
    return sock


@attempt
def tcp6_made_tcp4():
    """An IPv6 socket that becomes an IPv4 socket while it is connected (IPV6_ADDRFORM)."""
    sock, listener = stream(socket.AF_INET6), own_listener()
    sock.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDRFORM, socket.AF_INET)
    disconnect(sock)
    return connect(again(sock), there())


@attempt
def mptcp4():
    return connect(stream(protocol=IPPROTO_MPTCP), there())


@attempt
def mptcp6():
    return connect(stream(socket.AF_INET6, IPPROTO_MPTCP), there(socket.AF_INET6))


@attempt
def tcp4_bound_address():
    sock = stream()
    sock.bind((HERE["host4"], 0))
    return connect(sock, there())


@attempt
def tcp4_free_address():
    """From an address that is not this host's."""
    sock = stream()
    sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    sock.bind(("203.0.113.1", 0))
    return connect(sock, there())


def bound_to_device(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, HERE["device"].encode() + b"\0")
    return sock


@attempt
def tcp4_bound_device():
    """The redirected SYN has the destination 127.0.0.1, but leaves through the device."""
    return connect(bound_to_device(stream()), there())


@attempt
def tcp6_bound_device():
    return connect(bound_to_device(stream(socket.AF_INET6)), there(socket.AF_INET6))


@attempt
def tcp4_unicast_if():
    sock = stream()
    sock.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, struct.pack("!I", socket.if_nametoindex(HERE["device"])))
    return connect(sock, there())


@attempt
def tcp4_mark():
    sock = stream()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
    return connect(sock, there())


@attempt
def tcp4_transparent():
    sock = stream()
    sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    sock.bind(("203.0.113.2", 0))
    return connect(sock, there())


def source_route():
    """IP options: a loose source route through the target (RFC 791). The kernel sends to the first hop."""
    return bytes([1, 131, 7, 4]) + socket.inet_aton(HERE["target4"])


@attempt
def tcp4_source_route():
    sock = stream()
    sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, source_route())
    return connect(sock, there())


@attempt
def tcp4_source_route_fastopen():
    sock = stream()
    sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, source_route())
    return fast_open(sock, there())


def segment_route():
    """An IPv6 segment routing header (RFC 8754) through the target; unlike other extension headers it needs no capability."""
    segments = bytes(16) + socket.inet_pton(socket.AF_INET6, HERE["target6"])
    return bytes([0, 4, 4, 1, 1, 0, 0, 0]) + segments


@attempt
def tcp6_segment_route():
    sock = stream(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, segment_route())
    return connect(sock, there(socket.AF_INET6))


@attempt
def tcp6_hop_options():
    """A hop-by-hop option that every router ignores, with our bytes in it."""
    sock = stream(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, bytes([0, 0, 0x1E, 4]) + b"data")
    return connect(sock, there(socket.AF_INET6))


@attempt
def tcp4_daemonized():
    """Two forks and a new session: no parent is left in the cgroup."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            name_thread("daemonized")
            try:
                result = connect(stream(), there())
            except OSError as error:
                result = repr(error)
            os.write(write, result.encode())
        os._exit(0)
    os.wait()
    return os.read(read, 4096).decode()


@attempt
def tcp4_sendfile():
    sock = stream()
    sock.connect(there())
    os.sendfile(sock.fileno(), file_of(request()), 0, 4096)
    return heard(sock)


def dns_query(kind=1):
    name = b"".join(bytes([len(p)]) + p for p in [ROW.replace("_", "-").encode(), b"escape", b"test"]) + b"\0"
    return struct.pack("!6H", 0x4242, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", kind, 1)


def rcode(answer):
    """Identifies the responder of a query: the daemon's resolver by a code or an address, the target by its text."""
    if answer.startswith(b"TARGET"):
        return "answered TARGET"
    is_address = answer[3] & 15 == 0 and answer[6:8] == b"\0\1"
    return f"address {socket.inet_ntoa(answer[-4:])}" if is_address else f"rcode {answer[3] & 15}"


@attempt
def dns_over_tcp():
    sock = stream()
    sock.connect((HERE["target4"], 53))
    query = dns_query()
    sock.sendall(struct.pack("!H", len(query)) + query)
    reply = sock.recv(4096)
    return rcode(reply if reply.startswith(b"TARGET") else reply[2:])


@attempt
def sctp():
    return connect(stream(protocol=socket.IPPROTO_SCTP), there())
