//! The table: every attempt, and its expected result in each mode.

use super::stage::{Attempt, Mode};

/// The expected result of an attempt. None of its packets reaches the target, except for [`Open`](Self::Open).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// The daemon refuses it, and records this agent for it.
    Judged,
    /// A kernel program returns `EPERM`, for this reason.
    Denied(&'static str),
    /// This result if the kernel runs programs of the BPF LSM, and otherwise a known hole.
    Secured(&'static Expect, &'static str),
    /// This result if the kernel has Landlock's scopes (Linux 6.12), and otherwise a known hole.
    Scoped(&'static Expect, &'static str),
    /// One of these errors.
    Errno(&'static [&'static str]),
    /// A result that begins with this text.
    Says(&'static str),
    /// None of its packets arrives, whatever the system call returns.
    Nothing,
    /// A known hole, and the reason for it.
    Open(&'static str),
}

use Expect::{Denied, Errno, Judged, Nothing, Open, Says, Scoped, Secured};

/// The expected result of the same attempt outside the managed cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// It reaches the target.
    Reaches,
    /// Its result begins with this text: it succeeds, and sends nothing.
    Says(&'static str),
    /// There is no control: there is nothing to reach, or the attempt does not apply.
    Absent,
}

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Its function in Python.
    pub(super) name: &'static str,
    expect: [Option<Expect>; Mode::ALL.len() - 1],
    pub(super) control: Control,
    /// Whether the target sends first, and therefore receives resets from the kernel.
    pub(super) inbound: bool,
    /// Whether an outside process made a connection to the target, or a listener for it. The kernel sends its handshake
    /// and its end, so only data counts.
    pub(super) connected: bool,
}

impl Row {
    const fn new(name: &'static str) -> Self {
        let expect = [None; Mode::ALL.len() - 1];
        Self { name, expect, control: Control::Reaches, inbound: false, connected: false }
    }

    const fn when(mut self, mode: Mode, expect: Expect) -> Self {
        self.expect[mode as usize] = Some(expect);
        self
    }

    const fn launched(self, expect: Expect) -> Self {
        self.when(Mode::Launched, expect)
    }

    const fn placed(self, expect: Expect) -> Self {
        self.when(Mode::Placed, expect)
    }

    const fn root(self, expect: Expect) -> Self {
        self.when(Mode::Root, expect)
    }

    const fn net_raw(self, expect: Expect) -> Self {
        self.when(Mode::NetRaw, expect)
    }

    /// Sets the result for `Launched` and `Placed`.
    const fn both(self, expect: Expect) -> Self {
        self.launched(expect).placed(expect)
    }

    const fn no_control(mut self) -> Self {
        self.control = Control::Absent;
        self
    }

    /// Expects the control to succeed with a result that begins with this text.
    const fn control_says(mut self, beginning: &'static str) -> Self {
        self.control = Control::Says(beginning);
        self
    }

    const fn inbound(mut self) -> Self {
        self.inbound = true;
        self
    }

    const fn connected(mut self) -> Self {
        self.connected = true;
        self
    }

    /// The expected result in `mode`.
    pub(super) fn expect(&self, mode: Mode) -> Option<Expect> {
        self.expect.get(mode as usize).copied().flatten()
    }
}

/// The rows of `mode`, with their numbers.
pub(super) fn of(mode: Mode) -> Vec<Attempt> {
    let takes_part = |row: &Row| match mode {
        Mode::Outside => row.control != Control::Absent,
        _ => row.expect(mode).is_some(),
    };
    let rows = ROWS.iter().enumerate().filter(|(_, row)| takes_part(row));
    rows.map(|(index, row)| Attempt { name: row.name, index }).collect()
}

/// A TCP attempt that the daemon judges in every mode.
const fn judged(name: &'static str) -> Row {
    Row::new(name).both(Judged)
}

/// A UDP attempt that is refused.
const fn refused(name: &'static str) -> Row {
    Row::new(name).both(Denied("Udp"))
}

/// A socket of another kind, whose creation is refused.
const fn no_socket(name: &'static str) -> Row {
    Row::new(name).both(Denied("SocketKind"))
}

/// `socket(2)` for a family that seccomp refuses.
const NO_FAMILY: Expect = Errno(&["EAFNOSUPPORT"]);
const NOT_PERMITTED: Expect = Errno(&["EPERM"]);
/// A file that belongs to root, or to no user.
const NO_ACCESS: Expect = Errno(&["EACCES"]);
const NO_URING: Expect = Errno(&["ENOSYS"]);
/// A query that the agent's resolver answers with an address for refused names (`dns.refused_range`).
const RESOLVER: Expect = Says("address 198.1");

/// A connected, listening or raw socket that passes no cgroup hook of ours when it sends.
const MADE_OUTSIDE: Expect = Secured(
    &Denied("NoBirthRecord"),
    "a socket from outside: without the launcher, an agent must be started with none and without a way to receive one",
);
/// The accepted sockets of a listener.
const ACCEPTED_OUTSIDE: Expect =
    Secured(&Says("silence"), "a listener from outside: like other sockets from outside");
const NOT_SEEN: Expect = Secured(
    &Denied("SocketKind"),
    "no cgroup hook sees this family: the launcher's seccomp refuses it, other starters must too",
);
const GROUPS: Expect = Open(
    "the kernel itself announces a joined group, without a socket: the launcher's seccomp refuses joins",
);
const KEYS: Expect = Open(
    "request_key(2) makes the host query DNS if keyutils is installed: the launcher's seccomp refuses it",
);
const FILES: Expect = Open("no kernel program checks files: the launcher does");
const UNIX_SERVICES: Expect = Open(
    "host services over Unix sockets: the launcher hides /run and uses Landlock, other starters must too",
);

/// The attempts.
pub(super) const ROWS: &[Row] = &[
    // TCP: every way to send a SYN.
    judged("tcp4").root(Judged).when(Mode::Nested, Judged),
    judged("tcp6").root(Judged).when(Mode::Nested, Judged),
    judged("tcp4_nonblocking"),
    judged("tcp6_mapped").root(Judged),
    judged("tcp4_fastopen_sendto").root(Judged),
    judged("tcp6_fastopen_sendto"),
    judged("tcp4_fastopen_connect"),
    judged("tcp4_after_unspec"),
    judged("tcp4_sendto_on_own_connection"),
    // Bound to a loopback address, from which a process outside cannot reach the target either.
    judged("tcp4_accepted_reconnected").no_control(),
    judged("tcp4_listener_reconnected").no_control(),
    judged("tcp6_made_tcp4").no_control(),
    judged("tcp4_bound_address"),
    judged("tcp4_daemonized"),
    judged("tcp4_sendfile"),
    Row::new("own_listener_is_reached").both(Says("answered MINE")).no_control(),
    no_socket("mptcp4").root(Denied("SocketKind")),
    no_socket("mptcp6"),
    no_socket("sctp"),
    // The redirected segment itself is misrouted.
    Row::new("tcp4_bound_device").both(Nothing).root(Nothing),
    Row::new("tcp6_bound_device").both(Nothing),
    Row::new("tcp4_unicast_if").both(Nothing),
    Row::new("tcp4_free_address").both(Nothing).no_control(),
    Row::new("tcp4_source_route").both(Nothing).root(Nothing).net_raw(Nothing),
    Row::new("tcp4_source_route_fastopen").both(Nothing).net_raw(Nothing),
    Row::new("tcp6_segment_route").both(Nothing).root(Nothing),
    Row::new("tcp6_hop_options").both(NOT_PERMITTED).net_raw(Nothing),
    Row::new("tcp4_mark").both(NOT_PERMITTED).net_raw(Judged),
    Row::new("tcp4_transparent").both(NOT_PERMITTED).net_raw(Nothing),
    // Datagrams.
    refused("udp4_connected").root(Denied("Udp")).when(Mode::Nested, Denied("Udp")),
    refused("udp6_connected"),
    refused("udp4_sendto").root(Denied("Udp")),
    refused("udp6_sendto").root(Denied("Udp")),
    refused("udp6_mapped_sendto"),
    refused("udp4_sendto_unspec"),
    refused("udp6_sendto_plain4"),
    refused("udp6_connected_plain4"),
    refused("udp6_made_udp4"),
    refused("udp4_sendmsg"),
    refused("udp4_sendmmsg"),
    refused("udp4_quic"),
    refused("udp4_other_than_connected"),
    refused("udp6_other_than_connected"),
    refused("udp4_after_unspec"),
    Row::new("udp4_corked").both(Nothing),
    refused("udp4_broadcast"),
    refused("udp4_multicast"),
    refused("udp6_multicast"),
    refused("udp6_packet_info"),
    refused("udp6_segment_route"),
    no_socket("udplite4"),
    // DNS goes to the agent's resolver, whatever server and protocol the process uses.
    Row::new("dns4").both(RESOLVER).root(RESOLVER).when(Mode::Nested, RESOLVER),
    Row::new("dns4_connected").both(RESOLVER),
    Row::new("dns6").both(Denied("NoResolver")),
    Row::new("dns6_mapped").both(RESOLVER),
    Row::new("dns_over_tcp").both(RESOLVER),
    Row::new("dns4_source_route").both(Nothing).root(Nothing).net_raw(Nothing),
    Row::new("dns4_source_route_by_message").both(Nothing).net_raw(Nothing),
    Row::new("dns4_connected_source_route").both(Nothing),
    Row::new("dns4_packet_info").both(Nothing),
    Row::new("dns4_source_address").both(Nothing),
    Row::new("dns4_unicast_if").both(Nothing),
    Row::new("dns4_bound_device").both(Nothing),
    // Multicast groups, which the kernel itself announces.
    Row::new("igmp_join").launched(NOT_PERMITTED).placed(GROUPS),
    Row::new("igmp_join_by_group_request").launched(NOT_PERMITTED).placed(GROUPS),
    Row::new("mld_join").launched(NOT_PERMITTED).placed(GROUPS),
    // Other sockets.
    Row::new("raw4").both(NOT_PERMITTED).root(NOT_PERMITTED).net_raw(Denied("SocketKind")),
    Row::new("raw4_with_header").both(NOT_PERMITTED).net_raw(Denied("SocketKind")),
    Row::new("raw6").both(NOT_PERMITTED).net_raw(Denied("SocketKind")),
    no_socket("ping4").root(Denied("SocketKind")),
    no_socket("ping4_connected"),
    no_socket("ping6"),
    Row::new("packet").launched(NO_FAMILY).placed(NOT_PERMITTED).root(NOT_PERMITTED).net_raw(NOT_SEEN),
    Row::new("packet_datagram").launched(NO_FAMILY).placed(NOT_PERMITTED).net_raw(NOT_SEEN),
    Row::new("vsock").launched(NO_FAMILY).placed(NOT_SEEN).no_control(),
    Row::new("xdp").launched(NO_FAMILY).placed(NOT_PERMITTED).net_raw(NOT_SEEN).no_control(),
    Row::new("netlink_routes").both(Says("answered")).no_control(),
    Row::new("netlink_new_route").both(NOT_PERMITTED).root(NOT_PERMITTED).no_control(),
    Row::new("tun").both(Errno(&["EPERM", "EACCES", "ENOENT"])).no_control(),
    // io_uring performs system calls on its own.
    Row::new("uring_connect").launched(NO_URING).placed(Judged),
    Row::new("uring_connect6").launched(NO_URING).placed(Judged),
    Row::new("uring_connect_polled").launched(NO_URING).placed(Judged),
    Row::new("uring_socket").launched(NO_URING).placed(Judged),
    Row::new("uring_sendmsg").launched(NO_URING).placed(Denied("Udp")),
    Row::new("uring_sendmsg_polled").launched(NO_URING).placed(NOT_PERMITTED),
    Row::new("uring_packet").launched(NO_URING).placed(NOT_PERMITTED).net_raw(NOT_SEEN).no_control(),
    // Leaving the cgroup.
    Row::new("leave_to_parent").both(NO_ACCESS).no_control(),
    Row::new("leave_to_root")
        .both(NO_ACCESS)
        .root(Open("uid 0 owns the cgroups: an agent is never uid 0"))
        .no_control(),
    Row::new("leave_to_sibling").both(NO_ACCESS).no_control(),
    Row::new("leave_by_clone").both(NO_ACCESS).no_control(),
    Row::new("nest").both(NO_ACCESS).no_control(),
    Row::new("remount_cgroups").both(Errno(&["EACCES", "EPERM"])).no_control(),
    Row::new("namespace_of_its_own").both(Nothing).no_control(),
    Row::new("network_after_user_namespace").both(Nothing).no_control(),
    Row::new("old_socket_in_new_namespace").both(Judged),
    Row::new("squat_in_new_namespace").both(Denied("ReservedPort")).no_control(),
    Row::new("capabilities_in_user_namespace").both(NOT_PERMITTED).no_control(),
    Row::new("trace_root").both(NOT_PERMITTED).root(NOT_PERMITTED).no_control(),
    Row::new("take_descriptor").both(NOT_PERMITTED).root(NOT_PERMITTED).no_control(),
    Row::new("trace_same_user")
        .launched(Scoped(&NOT_PERMITTED, "without scopes, Landlock does not separate processes of one user"))
        .placed(Open("processes of one user may trace each other: give each agent its own user"))
        .no_control(),
    Row::new("open_pins").both(NO_ACCESS).no_control(),
    // The host and the daemon.
    judged("host_loopback4").root(Judged).no_control(),
    judged("host_loopback6").no_control(),
    judged("host_other_loopback4").no_control(),
    judged("host_unspecified4").no_control(),
    judged("host_unspecified6").no_control(),
    judged("host_address4").no_control(),
    judged("host_address6").no_control(),
    refused("host_udp4").no_control(),
    Row::new("explicit_port").both(Says("answered HTTP/1.1 4")).no_control(),
    judged("transparent_port").no_control(),
    judged("transparent_port6").no_control(),
    Row::new("admin_socket")
        .both(Says("answered HTTP/1.1 403"))
        .root(Says("answered HTTP/1.1 403"))
        .no_control(),
    Row::new("bind_transparent4").both(Denied("ReservedPort")).root(Denied("ReservedPort")).no_control(),
    Row::new("bind_transparent_any4").both(Denied("ReservedPort")).no_control(),
    Row::new("bind_transparent6").both(Denied("ReservedPort")).no_control(),
    Row::new("bind_transparent_mapped").both(Denied("ReservedPort")).no_control(),
    Row::new("bind_explicit").both(Denied("ReservedPort")).no_control(),
    Row::new("bind_resolver").both(Denied("ReservedPort")).no_control(),
    Row::new("kernel_resolver").launched(Errno(&["ENOSYS"])).placed(KEYS).no_control(),
    Row::new("host_services").launched(Says("reached none")).placed(UNIX_SERVICES).no_control(),
    Row::new("host_service_abstract")
        .launched(Scoped(&NOT_PERMITTED, "without scopes, abstract sockets are shared with the host"))
        .placed(UNIX_SERVICES),
    Row::new("host_service_tmp").launched(Errno(&["ENOENT"])).placed(UNIX_SERVICES),
    // Files that other users would run with more rights.
    Row::new("fuse_device").launched(Errno(&["ENOENT"])).placed(FILES).control_says("opened"),
    Row::new("queue_with_set_user_id").launched(NOT_PERMITTED).placed(FILES).control_says("made"),
    Row::new("file_with_set_user_id").launched(NOT_PERMITTED).placed(FILES).control_says("made"),
    Row::new("file_with_capability").launched(Errno(&["ENOTSUP"])).placed(FILES).control_says("made"),
    // Inbound: the agent answers with data.
    Row::new("inbound_tcp4").both(Says("silence")).inbound(),
    Row::new("inbound_tcp4_fastopen").both(Says("silence")).inbound(),
    Row::new("inbound_tcp6").both(Says("silence")).inbound(),
    Row::new("inbound_udp4").both(Says("silence")).inbound(),
    Row::new("inbound_from_host").both(Says("silence")).no_control(),
    Row::new("passed_listener").both(MADE_OUTSIDE).inbound(),
    // Sockets that an outside process passes.
    Row::new("passed_tcp4").both(Denied("NoBirthRecord")),
    Row::new("passed_tcp6").both(Denied("NoBirthRecord")),
    Row::new("passed_tcp6_mapped").both(Denied("NoBirthRecord")),
    Row::new("passed_tcp4_fastopen").both(Denied("NoBirthRecord")),
    Row::new("passed_mptcp4").both(Denied("NoBirthRecord")),
    // Without the BPF LSM it receives the socket, but has no io_uring.
    Row::new("passed_tcp4_uring").launched(Errno(&["EPERM", "ENOSYS"])).placed(Denied("NoBirthRecord")),
    Row::new("passed_tcp4_reconnected").both(Denied("NoBirthRecord")),
    Row::new("passed_udp4_sendto").both(Denied("NoBirthRecord")),
    Row::new("passed_udp6_sendto").both(Denied("NoBirthRecord")),
    Row::new("passed_udp4_connect").both(Denied("NoBirthRecord")),
    Row::new("passed_udp4_elsewhere").both(Denied("NoBirthRecord")),
    Row::new("passed_tcp4_connected").both(MADE_OUTSIDE).connected(),
    Row::new("passed_tcp4_connected_splice").both(MADE_OUTSIDE).connected(),
    Row::new("passed_tcp4_connected_sendfile").both(MADE_OUTSIDE).connected(),
    Row::new("passed_udp4_connected").both(MADE_OUTSIDE),
    // Processes that were moved into the cgroup.
    Row::new("moved_tcp4").when(Mode::Moved, Denied("NoBirthRecord")),
    Row::new("moved_tcp6").when(Mode::Moved, Denied("NoBirthRecord")),
    Row::new("moved_udp4").when(Mode::Moved, Denied("NoBirthRecord")),
    Row::new("moved_udp6").when(Mode::Moved, Denied("NoBirthRecord")),
    Row::new("moved_uring_polled").when(Mode::Moved, NOT_PERMITTED),
    Row::new("moved_ring_with_new_socket").when(Mode::Moved, Judged),
    Row::new("moved_new_socket").when(Mode::Moved, Judged),
    Row::new("moved_raw4").when(Mode::Moved, MADE_OUTSIDE),
    Row::new("moved_raw4_connected").when(Mode::Moved, MADE_OUTSIDE),
    Row::new("moved_packet").when(Mode::Moved, MADE_OUTSIDE),
    Row::new("moved_tcp4_connected").when(Mode::Moved, MADE_OUTSIDE).connected(),
    Row::new("moved_tcp4_connected_splice").when(Mode::Moved, MADE_OUTSIDE).connected(),
    Row::new("moved_tcp4_connected_sendfile").when(Mode::Moved, MADE_OUTSIDE).connected(),
    Row::new("moved_tcp4_connected_uring").when(Mode::Moved, MADE_OUTSIDE).connected(),
    Row::new("moved_udp4_connected").when(Mode::Moved, MADE_OUTSIDE),
    Row::new("moved_listener").when(Mode::Moved, ACCEPTED_OUTSIDE).inbound().connected(),
    Row::new("moved_vsock").when(Mode::Moved, MADE_OUTSIDE).no_control(),
];
