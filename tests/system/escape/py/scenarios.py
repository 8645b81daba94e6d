"""Parts of the scenarios that take more than one actor."""

IP_LOCAL_PORT_RANGE = 51
IP_MINTTL = 21
# Seconds: more than the test waits for anything, on a machine that is busy.
FLOOD_LIMIT = 110


def ready():
    """Tells the scene that this actor is in place."""
    open(HERE["ready"], "w").close()


def narrowed(sock):
    """A socket that the kernel itself binds to the daemon's port, when it has to choose one (Linux 6.3)."""
    port = HERE["transparent"]
    sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", port << 16 | port))
    return sock


def waited(sock, receive):
    """What comes to a socket within three seconds, as bytes."""
    sock.settimeout(3)
    ready()
    try:
        return f"got {receive(sock)!r}"
    except TimeoutError:
        return "silence"


def accept_one(listener):
    accepted, _ = listener.accept()
    accepted.settimeout(1)
    return accepted.recv(4096)


def squat(sock, bind, receive):
    """Has `bind` make the kernel bind the socket, and receives."""
    try:
        bind(narrowed(sock))
    except PermissionError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EADDRINUSE):
            raise
        # An older kernel, or one that keeps the port: nobody gets it so.
        ready()
        return "silence"
    assert sock.getsockname()[1] == HERE["transparent"]
    return waited(sock, receive)


@attempt
def squat_tcp4():
    """Listens on the daemon's port without bind(2)."""
    return squat(stream(), socket.socket.listen, accept_one)


@attempt
def squat_tcp6():
    return squat(stream(socket.AF_INET6), socket.socket.listen, accept_one)


@attempt
def squat_udp4():
    """Receives on the resolvers' port without bind(2): a datagram that is refused binds its socket before."""
    return squat(datagram(), lambda sock: sock.sendto(b"x", there()), lambda sock: sock.recv(4096))


@attempt
def listen_alone():
    """An ordinary listener on the loopback, which other agents know of."""
    listener = stream()
    listener.bind(("127.0.0.1", HERE["source"]))
    listener.listen()
    return waited(listener, accept_one)


@attempt
def listener_of_another():
    return connect(stream(), ("127.0.0.1", HERE["source"]))


def from_port():
    """A socket with the scenario's own source port, whose end leaves nothing behind."""
    sock = stream()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    sock.bind(("127.0.0.1", HERE["source"]))
    return sock


@attempt
def tuple_of_agent():
    return connect(from_port(), there())


@attempt
def tuple_held():
    """The same, open for a while."""
    sock = from_port()
    sock.connect(there())
    ready()
    time.sleep(1)
    return talk(sock)


@attempt
def tuple_of_stranger():
    """The same 4-tuple, by a process that is no agent's."""
    return connect(from_port(), ("127.0.0.1", HERE["transparent"]))


@attempt
def tuple_withdrawn():
    """A socket that was connected, then tries a 4-tuple that another connection has, and fails: what it takes with it
    must be nothing of the other's."""
    first = from_port()
    first.connect(there())
    second = stream()
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    second.connect(there())
    disconnect(second)
    second.bind(("127.0.0.1", HERE["source"]))
    try:
        second.connect(there())
    except OSError:
        pass
    return talk(first)


def flood_child(number, opened):
    """Opens connections from a source address of its own; every other one leaves the answer to its SYN unread."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    for index in range(HERE["flood_connections"]):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        sock.bind((f"127.7.0.{1 + number}", 0))
        if index % 2:
            sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255)
        sock.connect_ex(there())
        held.append(sock)
    os.write(opened, b"x")
    while not os.path.exists(HERE["stop"]):
        time.sleep(0.05)
    os._exit(0)


@attempt
def flood():
    """Holds many connections in every state of opening, from several processes; ends them all at once."""
    signal.alarm(FLOOD_LIMIT)
    children = []
    counted, opened = os.pipe()
    for number in range(HERE["flood_processes"]):
        child = os.fork()
        if child == 0:
            signal.alarm(FLOOD_LIMIT)
            flood_child(number, opened)
        children.append(child)
    for _ in children:
        os.read(counted, 1)
    ready()
    ends = [os.waitpid(child, 0)[1] for child in children]
    return "ended early" if any(ends) else "flooded"


@attempt
def many():
    """Connections one after the other: how many were judged, and how many came to nothing."""
    signal.alarm(60)
    judged = nothing = slowest = 0
    for _ in range(HERE["many"]):
        started = time.monotonic()
        try:
            result = connect(stream(), there())
        except OSError:
            result = ""
        slowest = max(slowest, time.monotonic() - started)
        if result.startswith("answered HTTP/1.1 4"):
            judged += 1
        elif result.startswith("answered"):
            return result
        else:
            nothing += 1
    return f"judged {judged} nothing {nothing} slowest {slowest * 1000:.0f} ms"
