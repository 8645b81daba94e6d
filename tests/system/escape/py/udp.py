"""Datagrams: refused, except DNS, which goes to the agent's resolver for all servers."""

IP_RETOPTS, IP_PKTINFO = 7, 8
IP_MTU_DISCOVER = 10
IPV6_PKTINFO = 50


def answer(sock):
    """Identifies the responder of a datagram."""
    return "answered " + sock.recv(4096).split(b"\r\n")[0].decode("latin-1")


@attempt
def udp4_connected():
    sock = datagram()
    sock.connect(there())
    sock.send(marker())
    return answer(sock)


@attempt
def udp6_connected():
    sock = datagram(socket.AF_INET6)
    sock.connect(there(socket.AF_INET6))
    sock.send(marker())
    return answer(sock)


def thrown(sock, address):
    sock.sendto(marker(), address)
    return answer(sock)


@attempt
def udp4_sendto():
    return thrown(datagram(), there())


@attempt
def udp6_sendto():
    return thrown(datagram(socket.AF_INET6), there(socket.AF_INET6))


@attempt
def udp6_mapped_sendto():
    return thrown(datagram(socket.AF_INET6), ("::ffff:" + HERE["target4"], PORT))


def thrown_raw(sock, address, family=None):
    """sendto(2) with an address that Python would not create for this socket."""
    name, data = sockaddr(address), marker()
    if family is not None:
        struct.pack_into("=H", name, 0, family)
    check(LIBC.sendto(sock.fileno(), data, len(data), 0, name, len(name)))
    return answer(sock)


@attempt
def udp4_sendto_unspec():
    """A destination of the family AF_UNSPEC, which the kernel treats as AF_INET."""
    return thrown_raw(datagram(), there(), socket.AF_UNSPEC)


@attempt
def udp6_sendto_plain4():
    """An IPv4 address, not mapped, through an IPv6 socket."""
    return thrown_raw(datagram(socket.AF_INET6), there())


@attempt
def udp6_connected_plain4():
    sock, name = datagram(socket.AF_INET6), sockaddr(there())
    check(LIBC.connect(sock.fileno(), name, len(name)))
    sock.send(marker())
    return answer(sock)


@attempt
def udp6_made_udp4():
    """An IPv6 socket, connected to a resolver, that becomes an IPv4 socket (IPV6_ADDRFORM)."""
    sock = datagram(socket.AF_INET6)
    sock.connect(("::ffff:" + HERE["target4"], 53))
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDRFORM, socket.AF_INET)
    return thrown(again(sock), there())


@attempt
def udp4_sendmsg():
    sock = datagram()
    sock.sendmsg([marker()], [], 0, there())
    return answer(sock)


@attempt
def udp4_sendmmsg():
    sock = datagram()
    header = msghdr(there(), marker())
    # `struct mmsghdr` is a header and a length; the array has one entry, and the kernel writes the length.
    entry = ctypes.create_string_buffer(bytes(header) + bytes(8))
    check(LIBC.sendmmsg(sock.fileno(), entry, 1, 0))
    return answer(sock)


@attempt
def udp4_quic():
    """The requirements of a QUIC client's first packet."""
    sock = datagram()
    sock.sendto(bytes([0xC0, 0, 0, 0, 1]) + marker().ljust(1200, b"\0"), (HERE["target4"], 443))
    return answer(sock)


@attempt
def udp4_other_than_connected():
    """Connects to a resolver, which is allowed, and sends elsewhere."""
    sock = datagram()
    sock.connect((HERE["target4"], 53))
    return thrown(sock, there())


@attempt
def udp6_other_than_connected():
    """The same through an IPv6 socket with mapped addresses."""
    sock = datagram(socket.AF_INET6)
    sock.connect(("::ffff:" + HERE["target4"], 53))
    return thrown(sock, ("::ffff:" + HERE["target4"], PORT))


@attempt
def udp4_after_unspec():
    sock = datagram()
    sock.connect((HERE["target4"], 53))
    disconnect(sock)
    return thrown(sock, there())


@attempt
def udp4_corked():
    """Starts a datagram for a resolver and continues it for the target."""
    sock = datagram()
    sock.sendto(dns_query(), socket.MSG_MORE, (HERE["target4"], 53))
    sock.sendto(marker(), there())
    return answer(sock)


@attempt
def udp4_broadcast():
    sock = datagram()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return thrown(sock, (HERE["broadcast4"], PORT))


@attempt
def udp4_multicast():
    sock = datagram()
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HERE["host4"]))
    return thrown(sock, ("239.255.77.77", PORT))


@attempt
def udp6_multicast():
    sock = datagram(socket.AF_INET6)
    scope = socket.if_nametoindex(HERE["device"])
    sock.sendto(marker(), ("ff02::7777", PORT, 0, scope))
    return answer(sock)


@attempt
def igmp_join():
    """Joining a group makes the host announce it on the wire: the group's number carries data."""
    sock = datagram()
    group = socket.inet_aton("239.100.97.116") + socket.inet_aton(HERE["host4"])
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    time.sleep(0.3)
    return "joined"


@attempt
def igmp_join_by_group_request():
    """The same by `MCAST_JOIN_GROUP`, which both families share."""
    sock = datagram()
    group = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton("239.100.97.117")).ljust(128, b"\0")
    sock.setsockopt(socket.IPPROTO_IP, 42, struct.pack("=I4x", socket.if_nametoindex(HERE["device"])) + group)
    time.sleep(0.3)
    return "joined"


@attempt
def mld_join():
    """The same in IPv6, where a group has 112 bits to choose."""
    sock = datagram(socket.AF_INET6)
    group = socket.inet_pton(socket.AF_INET6, "ff15:6461:7461:6461:7461:6461:7461:6461")
    sock.setsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=I", socket.if_nametoindex(HERE["device"]))
    )
    time.sleep(0.3)
    return "joined"


@attempt
def udplite4():
    return thrown(datagram(protocol=socket.IPPROTO_UDPLITE), there())


def resolved(sock, control=(), server=None):
    """A query to the target as a resolver; the name contains `escape-`."""
    sock.sendmsg([dns_query()], list(control), 0, server or (HERE["target4"], 53))
    return rcode(sock.recv(4096))


@attempt
def dns4():
    return resolved(datagram())


@attempt
def dns4_connected():
    sock = datagram()
    sock.connect((HERE["target4"], 53))
    sock.send(dns_query())
    return rcode(sock.recv(4096))


@attempt
def dns6():
    return resolved(datagram(socket.AF_INET6), server=(HERE["target6"], 53))


@attempt
def dns6_mapped():
    return resolved(datagram(socket.AF_INET6), server=("::ffff:" + HERE["target4"], 53))


@attempt
def dns4_source_route():
    sock = datagram()
    sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, source_route())
    return resolved(sock)


@attempt
def dns4_source_route_by_message():
    return resolved(datagram(), [(socket.IPPROTO_IP, IP_RETOPTS, source_route())])


@attempt
def dns4_connected_source_route():
    sock = datagram()
    sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, source_route())
    sock.connect((HERE["target4"], 53))
    sock.send(dns_query())
    return rcode(sock.recv(4096))


@attempt
def dns4_packet_info():
    """Through the device named in the message."""
    device = struct.pack("=i8x", socket.if_nametoindex(HERE["device"]))
    return resolved(datagram(), [(socket.IPPROTO_IP, IP_PKTINFO, device)])


@attempt
def dns4_source_address():
    """From the host's outer address."""
    source = struct.pack("=i4s4x", 0, socket.inet_aton(HERE["host4"]))
    return resolved(datagram(), [(socket.IPPROTO_IP, IP_PKTINFO, source)])


@attempt
def dns4_unicast_if():
    sock = datagram()
    sock.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, struct.pack("!I", socket.if_nametoindex(HERE["device"])))
    return resolved(sock)


@attempt
def dns4_bound_device():
    return resolved(bound_to_device(datagram()))


@attempt
def udp6_packet_info():
    """IPV6_PKTINFO: a source address and a device of the sender's choice."""
    info = socket.inet_pton(socket.AF_INET6, HERE["host6"]) + struct.pack("=i", socket.if_nametoindex(HERE["device"]))
    sock = datagram(socket.AF_INET6)
    sock.sendmsg([marker()], [(socket.IPPROTO_IPV6, IPV6_PKTINFO, info)], 0, there(socket.AF_INET6))
    return answer(sock)


@attempt
def udp6_segment_route():
    sock = datagram(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, segment_route())
    return thrown(sock, there(socket.AF_INET6))
