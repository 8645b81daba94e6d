"""The processes around the agents: the target, in a separate network namespace, which counts every
packet that reaches it; and a helper on the agents' host, in no managed cgroup.

The first argument is JSON. Questions arrive as lines of JSON over a Unix socket.
"""

import json
import os
import resource
import selectors
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time

SCENE = json.loads(sys.argv[1])
PACKETS = []
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
SO_TIMESTAMPNS = 35
MARKER = b"escape-"


# The groups that rows join, which serve as their markers.
GROUPS = {b"\xefdat": "igmp_join", b"\xefdau": "igmp_join_by_group_request", b"\xff\x15datadata": "mld_join"}


def row_of(data):
    """The row whose marker is in the packet."""
    for group, row in GROUPS.items():
        if group in data:
            return row
    at = data.find(MARKER)
    end = at + len(MARKER)
    while end < len(data) and (data[end : end + 1].isalnum() or data[end : end + 1] == b"_"):
        end += 1
    return data[at + len(MARKER) : end].decode() if at >= 0 else ""


def is_housekeeping(kind, body):
    """Unsolicited packets of every IPv6 host: neighbour discovery, and reports of its groups (RFC 4861, 3810)."""
    if 133 <= kind <= 137 or 130 <= kind <= 132:
        return True
    if kind != 143:
        return False
    count, at = struct.unpack_from("!H", body, 6)[0], 8
    for _ in range(count):
        _, extra, sources = struct.unpack_from("!BBH", body, at)
        group = body[at + 4 : at + 20]
        # ff02::1:ffXX:XXXX, solicited-node.
        if group[:13] != bytes([0xFF, 2] + [0] * 9 + [1, 0xFF]):
            return False
        at += 20 + 16 * sources + 4 * extra
    return True


def parse(data):
    """One IP packet in the form that the check expects; None for housekeeping."""
    if data[0] >> 4 == 4:
        length = (data[0] & 15) * 4
        protocol, source, to = data[9], socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
        body = data[length : struct.unpack_from("!H", data, 2)[0]]
    else:
        protocol, length = data[6], 40
        source, to = (socket.inet_ntop(socket.AF_INET6, data[a : a + 16]) for a in (8, 24))
        while protocol in (0, 43, 60) and len(data) > length + 8:
            protocol, length = data[length], length + 8 + 8 * data[length + 1]
        body = data[length:]
    packet = {"protocol": protocol, "from": source, "to": to, "port": 0, "reaction": False, "data": True}
    if protocol == ICMP6 and body and is_housekeeping(body[0], body):
        return None
    if protocol in (TCP, UDP) and len(body) >= 8:
        packet["port"] = struct.unpack_from("!H", body, 2)[0]
    if protocol == TCP and len(body) >= 20:
        # The kernel resets connections to a closed port, without data.
        packet["data"] = len(body) > (body[12] >> 4) * 4
        packet["reaction"] = bool(body[13] & 4) and not packet["data"]
    elif protocol == ICMP and body:
        packet["reaction"] = body[0] == 3
    elif protocol == ICMP6 and body:
        packet["reaction"] = body[0] == 1
    packet["row"] = row_of(data)
    return packet


def sniff(device):
    """Counts incoming IP packets, and answers every ARP request as an attacker on the wire would."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    # The kernel's time of arrival, because this thread may be late.
    wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    wire.bind((device, 3))
    own = wire.getsockname()[4]
    while True:
        data, control, _, (_, protocol, kind, _, _) = wire.recvmsg(1 << 17, 128)
        if kind == 4:  # PACKET_OUTGOING
            continue
        if protocol == 0x0806 and data[20:22] == b"\0\1":
            arp = data[14:20] + b"\0\2" + own + data[38:42] + data[22:32]
            wire.send(data[6:12] + own + b"\x08\x06" + arp)
        elif protocol in (0x0800, 0x86DD):
            try:
                packet = parse(data[14:])
            except (IndexError, struct.error) as error:
                # Counted nevertheless.
                packet = {"protocol": -1, "from": repr(error), "to": "", "port": 0, "reaction": False, "data": True, "row": ""}
            if packet:
                seconds, nanoseconds = struct.unpack("=qq", control[0][2])
                PACKETS.append(packet | {"t": seconds + nanoseconds / 1e9})


def serve(ports, who):
    """Answers on TCP and UDP ports, IPv4 and IPv6, with a word that identifies this process."""
    selector = selectors.DefaultSelector()
    hits = {"count": 0}

    def listen(port):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(socket.AF_INET6, kind)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("::", port))
            if kind == socket.SOCK_STREAM:
                sock.listen()
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ, kind)

    def greet(accepted):
        with accepted:
            accepted.settimeout(1)
            try:
                accepted.recv(4096)
                accepted.sendall(who)
            except OSError:
                pass

    def loop():
        while True:
            for key, _ in selector.select():
                try:
                    if key.data == socket.SOCK_STREAM:
                        threading.Thread(target=greet, args=(key.fileobj.accept()[0],), daemon=True).start()
                    else:
                        _, sender = key.fileobj.recvfrom(1 << 16)
                        key.fileobj.sendto(who, sender)
                    hits["count"] += 1
                except OSError:
                    pass

    for port in ports:
        listen(port)
    threading.Thread(target=loop, daemon=True).start()
    return hits


def open_socket(kind, peer):
    """A socket to pass on, connected if there is a peer."""
    family = socket.AF_INET6 if "6" in kind else socket.AF_INET
    datagrams = kind.startswith("udp")
    protocol = 262 if kind.startswith("mptcp") else 0
    sock = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM, protocol)
    if peer:
        sock.settimeout(2)
        sock.connect(tuple(peer))
        sock.setblocking(True)
    return sock


def connect_in(question):
    """Connects to an agent's listener, sends a greeting, and returns the reply."""
    end = time.monotonic() + question.get("wait", 0.8)
    family = socket.AF_INET6 if ":" in question["address"] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(max(end - time.monotonic(), 0.05))
            sock.connect((question["address"], question["port"]))
            sock.sendall(b"hello")
            sock.settimeout(max(end - time.monotonic(), 0.05))
            return sock.recv(4096).decode()
        except OSError:
            return ""


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        question = json.loads(self.rfile.readline())
        answer, fds = getattr(self, question.pop("op"))(**question)
        data = json.dumps(answer).encode()
        if fds:
            socket.send_fds(self.connection, [data], [sock.fileno() for sock in fds])
        else:
            self.wfile.write(data)
        for sock in fds:
            sock.close()

    def status(self):
        return {"packets": list(PACKETS), "hits": HITS["count"], "same_user": SAME_USER}, []

    def connect(self, **question):
        return {"got": connect_in(question)}, []

    def throw(self, address, port):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"hello", (address, port))
        return {}, []

    def carry(self, port, data):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            sock.sendto(data.encode(), (SCENE["target4"], port))
            return {"got": sock.recv(4096).decode().strip()}, []

    # `pass` is a keyword of Python.
    def give(self, kind, peer=None):
        return {}, [open_socket(kind, peer)]


setattr(Handler, "pass", Handler.give)


class Control(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
SAME_USER = 0
if SCENE["role"] == "target":
    threading.Thread(target=sniff, args=(SCENE["device"],), daemon=True).start()
    HITS = serve([53, 443, *range(*SCENE["ports"])], b"TARGET\r\n")
else:
    HITS = serve([SCENE["service"]], b"HOST\r\n")
    SAME_USER = subprocess.Popen(["sleep", "600"], user=SCENE["uid"], group=SCENE["gid"], extra_groups=[]).pid
    abstract = Control("\0" + SCENE["abstract"], Handler)
    threading.Thread(target=abstract.serve_forever, daemon=True).start()
    in_tmp = Control(SCENE["tmp_socket"], Handler)
    os.chmod(SCENE["tmp_socket"], 0o666)
    threading.Thread(target=in_tmp.serve_forever, daemon=True).start()
control = Control(SCENE["control"] + ".new", Handler)
os.chmod(SCENE["control"] + ".new", 0o666)
# A process that waits for the name finds a listening socket.
os.rename(SCENE["control"] + ".new", SCENE["control"])
control.serve_forever()
