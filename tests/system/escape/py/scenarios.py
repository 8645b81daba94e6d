"""Parts of the scenarios with more than one actor."""

IP_LOCAL_PORT_RANGE = 51
IP_MINTTL = 21
# Seconds: longer than any wait of the test, on a busy machine.
FLOOD_LIMIT = 110


def ready():
    """Signals to the scene that this actor is ready."""
    open(HERE["ready"], "w").close()


def narrowed(sock):
    """A socket that the kernel itself binds to the daemon's port when it chooses one (Linux 6.3)."""
    port = HERE["transparent"]
    sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", port << 16 | port))
    return sock


def waited(sock, receive):
    """The bytes that a socket receives within three seconds."""
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
    """Calls `bind`, which makes the kernel bind the socket, and receives."""
    try:
        bind(narrowed(sock))
    except PermissionError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EADDRINUSE):
            raise
        # An older kernel, or one that reserves the port: it cannot be obtained in this way.
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
    """Receives on the resolvers' port without bind(2): a refused datagram still binds its socket."""
    return squat(datagram(), lambda sock: sock.sendto(b"x", there()), lambda sock: sock.recv(4096))


@attempt
def listen_alone():
    """An ordinary listener on loopback, whose address other agents know."""
    listener = stream()
    listener.bind(("127.0.0.1", HERE["source"]))
    listener.listen()
    return waited(listener, accept_one)


@attempt
def listener_of_another():
    return connect(stream(), ("127.0.0.1", HERE["source"]))


def from_port():
    """A socket with the scenario's own source port, whose close leaves no state behind."""
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
    """The same connection, open for a while."""
    sock = from_port()
    sock.connect(there())
    ready()
    time.sleep(1)
    return talk(sock)


@attempt
def tuple_of_stranger():
    """The same 4-tuple, from a process outside every agent."""
    return connect(from_port(), ("127.0.0.1", HERE["transparent"]))


@attempt
def tuple_withdrawn():
    """A connected socket tries the 4-tuple of another connection and fails. It must gain nothing of that
    connection's identity."""
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
    """Opens connections from a separate source address; every other one leaves the reply to its SYN unread."""
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
    """Holds many connections in every opening state, from several processes, and closes them all at once."""
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
    """Opens connections one after the other; returns how many were judged and how many failed."""
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
