"""Sockets that the agent did not create: passed by an outside process, or open in a process that was moved in."""


def passed(kind, peer=None):
    """Requests a socket from the scene's helper, which runs in no managed cgroup; connected if there is a peer."""
    _, fds = ask(HERE["outside"], op="pass", kind=kind, peer=peer)
    if not fds:
        raise PermissionError(errno.EPERM, "the kernel took the descriptor out of the message")
    sock = socket.socket(fileno=fds[0])
    sock.settimeout(LIMIT)
    return sock


@attempt
def passed_tcp4():
    return connect(passed("tcp4"), there())


@attempt
def passed_tcp6():
    return connect(passed("tcp6"), there(socket.AF_INET6))


@attempt
def passed_tcp6_mapped():
    return connect(passed("tcp6"), ("::ffff:" + HERE["target4"], PORT))


@attempt
def passed_tcp4_fastopen():
    return fast_open(passed("tcp4"), there())


@attempt
def passed_mptcp4():
    return connect(passed("mptcp4"), there())


@attempt
def passed_tcp4_uring():
    sock = passed("tcp4")
    sock.settimeout(None)
    Ring().connect(sock.fileno(), there())
    return talk(sock)


@attempt
def passed_tcp4_reconnected():
    """Connected outside, then connected to another address."""
    sock = passed("tcp4", (HERE["host4"], HERE["service"]))
    disconnect(sock)
    return connect(sock, there())


@attempt
def passed_udp4_sendto():
    return thrown(passed("udp4"), there())


@attempt
def passed_udp6_sendto():
    return thrown(passed("udp6"), there(socket.AF_INET6))


@attempt
def passed_udp4_connect():
    sock = passed("udp4")
    sock.connect(there())
    sock.send(marker())
    return answer(sock)


@attempt
def passed_udp4_elsewhere():
    """Connected outside, and used for another address."""
    return thrown(passed("udp4", (HERE["host4"], HERE["service"])), there())


@attempt
def passed_listener():
    """A socket created outside that the agent turns into a listener; the target connects to it."""
    sock = passed("tcp4")
    sock.bind(("0.0.0.0", PORT))
    sock.listen()
    return let_in(sock)


@attempt
def passed_tcp4_connected():
    return talk(passed("tcp4", there()))


@attempt
def passed_tcp4_connected_splice():
    sock = passed("tcp4", there())
    read, write = os.pipe()
    os.write(write, request())
    os.splice(read, sock.fileno(), 4096)
    return heard(sock)


@attempt
def passed_tcp4_connected_sendfile():
    sock = passed("tcp4", there())
    os.sendfile(sock.fileno(), file_of(request()), 0, 4096)
    return heard(sock)


@attempt
def passed_udp4_connected():
    sock = passed("udp4", there())
    sock.send(marker())
    return answer(sock)


@attempt
def moved_tcp4():
    sock = stream()
    enter()
    return connect(sock, there())


@attempt
def moved_tcp6():
    sock = stream(socket.AF_INET6)
    enter()
    return connect(sock, there(socket.AF_INET6))


@attempt
def moved_udp4():
    sock = datagram()
    enter()
    return thrown(sock, there())


@attempt
def moved_udp6():
    sock = datagram(socket.AF_INET6)
    enter()
    return thrown(sock, there(socket.AF_INET6))


@attempt
def moved_uring_polled():
    """The polling thread was started outside."""
    ring, sock = Ring(Ring.SQPOLL), stream()
    sock.settimeout(None)
    enter()
    ring.connect(sock.fileno(), there())
    return talk(sock)


@attempt
def moved_ring_with_new_socket():
    ring = Ring(Ring.SQPOLL)
    enter()
    sock = ring.socket(socket.AF_INET, socket.SOCK_STREAM)
    ring.connect(sock.fileno(), there())
    return talk(sock)


@attempt
def moved_new_socket():
    """The whole process is moved in: sockets that it opens from now on belong to the agent."""
    enter()
    return connect(stream(), there())


@attempt
def moved_raw4():
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    enter()
    sock.sendto(marker(), (HERE["target4"], 0))
    return "sent"


@attempt
def moved_raw4_connected():
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    sock.connect((HERE["target4"], 0))
    enter()
    sock.send(marker())
    return "sent"


@attempt
def moved_packet():
    sock = socket.socket(AF_PACKET, socket.SOCK_DGRAM, 0)
    enter()
    sock.sendto(frame(), (HERE["device"], 0x0800, 0, 0, b"\xff" * 6))
    return "sent"


@attempt
def moved_tcp4_connected():
    sock = stream()
    sock.connect(there())
    enter()
    return talk(sock)


@attempt
def moved_tcp4_connected_splice():
    sock = stream()
    sock.connect(there())
    read, write = os.pipe()
    os.write(write, request())
    enter()
    os.splice(read, sock.fileno(), 4096)
    return heard(sock)


@attempt
def moved_tcp4_connected_sendfile():
    sock = stream()
    sock.connect(there())
    file = file_of(request())
    enter()
    os.sendfile(sock.fileno(), file, 0, 4096)
    return heard(sock)


@attempt
def moved_tcp4_connected_uring():
    """Sent by the ring's own thread, which was started outside."""
    sock, ring = stream(), Ring(Ring.SQPOLL)
    sock.connect(there())
    enter()
    ring.send(sock.fileno(), there(), request())
    return heard(sock)


@attempt
def moved_listener():
    """A listener created outside; the target connects to it."""
    listener = stream()
    listener.bind(("0.0.0.0", PORT))
    listener.listen()
    enter()
    return let_in(listener)


@attempt
def moved_vsock():
    sock = socket.socket(AF_VSOCK, socket.SOCK_DGRAM)
    enter()
    sock.sendto(marker(), (2, PORT))
    return "sent"


@attempt
def moved_udp4_connected():
    sock = datagram()
    sock.connect(there())
    enter()
    sock.send(marker())
    return answer(sock)


def let_in(listener, helper="target", address="host4"):
    """Makes a process connect to a listener of the agent, and answers with data."""
    listener.settimeout(1.2)
    child = os.fork()
    if child == 0:
        try:
            accepted, _ = listener.accept()
            accepted.sendall(marker())
            time.sleep(0.2)
        finally:
            os._exit(0)
    got, _ = ask(HERE[helper], op="connect", address=HERE.get(address, address), port=PORT)
    os.waitpid(child, 0)
    return "answered " + got["got"] if got["got"] else "silence"


@attempt
def inbound_tcp4():
    listener = stream()
    listener.bind(("0.0.0.0", PORT))
    listener.listen()
    return let_in(listener)


@attempt
def inbound_tcp4_fastopen():
    """A listener that accepts data in the SYN and answers before the handshake ends."""
    listener = stream()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    listener.bind((HERE["host4"], PORT))
    listener.listen()
    return let_in(listener)


@attempt
def inbound_tcp6():
    listener = stream(socket.AF_INET6)
    listener.bind(("::", PORT))
    listener.listen()
    return let_in(listener, address="host6")


@attempt
def inbound_udp4():
    """The target's datagram would reveal an address to reply to: it never arrives."""
    sock = datagram()
    sock.bind(("0.0.0.0", PORT))
    ask(HERE["target"], op="throw", address=HERE["host4"], port=PORT)
    data, sender = sock.recvfrom(4096)
    sock.sendto(marker(), sender)
    return "sent"


@attempt
def inbound_from_host():
    """Another program of this host connects to it and could forward data."""
    listener = stream()
    listener.bind(("127.0.0.1", PORT))
    listener.listen()
    return let_in(listener, "outside", "127.0.0.1")
