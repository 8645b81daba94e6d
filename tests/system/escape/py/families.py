"""Sockets that are neither TCP nor UDP, and io_uring, which opens and uses sockets without their system calls."""

AF_VSOCK, AF_XDP, AF_PACKET, AF_NETLINK = 40, 44, 17, 16


@attempt
def raw4():
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as sock:
        sock.sendto(marker(), (HERE["target4"], 0))
    return "sent"


@attempt
def raw4_with_header():
    """IPPROTO_RAW: the sender writes the whole packet."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, 253, 0)
    header += socket.inet_aton(HERE["host4"]) + socket.inet_aton(HERE["target4"])
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(header + marker(), (HERE["target4"], 0))
    return "sent"


@attempt
def raw6():
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, 253) as sock:
        sock.sendto(marker(), (HERE["target6"], 0))
    return "sent"


def echo(kind, data):
    return struct.pack("!BBHHH", kind, 0, 0, 1, 1) + data


@attempt
def ping4():
    sock = datagram(protocol=socket.IPPROTO_ICMP)
    sock.sendto(echo(8, marker()), (HERE["target4"], 0))
    return f"answered {sock.recv(4096)[:8]!r}"


@attempt
def ping4_connected():
    sock = datagram(protocol=socket.IPPROTO_ICMP)
    sock.connect((HERE["target4"], 0))
    sock.send(echo(8, marker()))
    return f"answered {sock.recv(4096)[:8]!r}"


@attempt
def ping6():
    sock = datagram(socket.AF_INET6, socket.IPPROTO_ICMPV6)
    sock.sendto(echo(128, marker()), (HERE["target6"], 0))
    return f"answered {sock.recv(4096)[:8]!r}"


def frame():
    """A UDP datagram for the target, in wire format. Its checksums are not verified."""
    payload = marker()
    udp = struct.pack("!4H", 1, PORT, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    return ip + socket.inet_aton(HERE["host4"]) + socket.inet_aton(HERE["target4"]) + udp


@attempt
def packet():
    with socket.socket(AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((HERE["device"], 0))
        sock.send(b"\xff" * 6 + bytes(6) + b"\x08\x00" + frame())
    return "sent"


@attempt
def packet_datagram():
    with socket.socket(AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        sock.sendto(frame(), (HERE["device"], 0x0800, 0, 0, b"\xff" * 6))
    return "sent"


@attempt
def vsock():
    """Only creates the socket: its destinations depend on the machine."""
    socket.socket(AF_VSOCK, socket.SOCK_STREAM).close()
    return "created"


@attempt
def xdp():
    socket.socket(AF_XDP, socket.SOCK_RAW).close()
    return "created"


def netlink(kind, flags, body):
    """Sends one rtnetlink request; raises the error in the reply."""
    with socket.socket(AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(LIMIT)
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        data = sock.recv(1 << 16)
    if struct.unpack_from("=H", data, 4)[0] == 2:
        number = -struct.unpack_from("=i", data, 16)[0]
        if number:
            raise OSError(number, os.strerror(number))
    return "answered"


@attempt
def netlink_routes():
    """Not an escape: getaddrinfo(3) queries addresses and routes."""
    return netlink(26, 0x301, struct.pack("=B11x", socket.AF_INET))  # RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP


@attempt
def netlink_new_route():
    """Routes 127.0.0.2 through the target."""
    attributes = struct.pack("=HH4s", 8, 1, socket.inet_aton("127.0.0.2"))
    attributes += struct.pack("=HH4s", 8, 5, socket.inet_aton(HERE["target4"]))
    body = struct.pack("=8BI", socket.AF_INET, 32, 0, 0, 254, 3, 0, 1, 0)
    return netlink(24, 0x605, body + attributes)  # RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK


@attempt
def tun():
    """Creates a device in the host's network."""
    import fcntl

    with open("/dev/net/tun", "r+b", buffering=0) as device:
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH14x", b"escape0", 0x1001))  # TUNSETIFF
    return "made"


class Ring:
    """An io_uring(7) of eight entries, used one at a time."""

    SETUP, ENTER = 425, 426
    SQPOLL = 2

    def __init__(self, flags=0):
        parameters = ctypes.create_string_buffer(120)
        struct.pack_into("=I4xI", parameters, 8, flags, 100)
        self.flags = flags
        self.fd = syscall(self.SETUP, 8, parameters)
        submission = struct.unpack_from("=10I", parameters, 40)
        completion = struct.unpack_from("=10I", parameters, 80)
        self.tail, self.mask, self.order = submission[1], submission[2], submission[6]
        self.head, self.entries = completion[0], completion[5]
        size = max(self.order + 8 * 4, self.entries + 16 * 16)
        self.ring = mmap.mmap(self.fd, size)  # IORING_FEAT_SINGLE_MMAP, Linux 5.4
        self.queue = mmap.mmap(self.fd, 8 * 64, offset=0x10000000)

    def word(self, at):
        return struct.unpack_from("=I", self.ring, at)[0]

    def submit(self, operation, fd, offset, address, length, flags=0):
        """Performs one operation; returns its result or raises its error."""
        tail = self.word(self.tail)
        slot = tail & self.word(self.mask)
        struct.pack_into("=BBHiQQIIQ24x", self.queue, slot * 64, operation, 0, 0, fd, offset, address, length, flags, 1)
        struct.pack_into("=I", self.ring, self.order + slot * 4, slot)
        struct.pack_into("=I", self.ring, self.tail, tail + 1)
        syscall(self.ENTER, self.fd, 1, 1, 3 if self.flags & self.SQPOLL else 1, 0, 0)
        head = self.word(self.head)
        result = struct.unpack_from("=i", self.ring, self.entries + 16 * (head & 7) + 8)[0]
        struct.pack_into("=I", self.ring, self.head, head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def connect(self, fd, address):
        name = sockaddr(address)
        return self.submit(16, fd, len(name), ctypes.addressof(name), 0)

    def send(self, fd, address, data):
        header = msghdr(address, data)
        return self.submit(9, fd, 0, ctypes.addressof(header), 1)

    def socket(self, family, kind):
        return socket.socket(fileno=self.submit(45, family, kind, 0, 0))


@attempt
def uring_connect():
    sock = stream()
    sock.settimeout(None)
    Ring().connect(sock.fileno(), there())
    return talk(sock)


@attempt
def uring_connect6():
    sock = stream(socket.AF_INET6)
    sock.settimeout(None)
    Ring().connect(sock.fileno(), there(socket.AF_INET6))
    return talk(sock)


@attempt
def uring_connect_polled():
    """SQPOLL: the kernel's own thread makes the call."""
    sock = stream()
    sock.settimeout(None)
    Ring(Ring.SQPOLL).connect(sock.fileno(), there())
    return talk(sock)


@attempt
def uring_socket():
    ring = Ring()
    sock = ring.socket(socket.AF_INET, socket.SOCK_STREAM)
    ring.connect(sock.fileno(), there())
    return talk(sock)


@attempt
def uring_sendmsg():
    sock = datagram()
    Ring().send(sock.fileno(), there(), marker())
    return answer(sock)


@attempt
def uring_sendmsg_polled():
    sock = datagram()
    Ring(Ring.SQPOLL).send(sock.fileno(), there(), marker())
    return answer(sock)


@attempt
def uring_packet():
    """A family that seccomp would refuse to socket(2)."""
    Ring().socket(AF_PACKET, socket.SOCK_DGRAM)
    return "created"
