//! The kernel programs, and where each is attached.

use super::bpffs::Pins;
use super::version::{parse_version, release};

/// The cgroup or hook to which a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttachPoint {
    /// The agents root; its descendants inherit it.
    Agents,
    /// The root of cgroup2, for every process of the machine.
    Root,
    /// This hook of the BPF LSM, for every process of the machine, if the kernel runs such programs.
    Security(&'static str),
}

/// One program: its name in the object, its `enum bpf_attach_type`, and the place where it is attached.
pub(super) struct Hook {
    pub(super) program: &'static str,
    pub(super) attach_type: u32,
    pub(super) place: AttachPoint,
}

const fn hook(program: &'static str, attach_type: u32, place: AttachPoint) -> Hook {
    Hook { program, attach_type, place }
}

/// `BPF_CGROUP_INET_INGRESS` and `BPF_CGROUP_INET_EGRESS` of `enum bpf_attach_type`.
pub(super) const CGROUP_INET_INGRESS: u32 = 0;
const CGROUP_INET_EGRESS: u32 = 1;

/// Every program of a cgroup, in the order of attachment. Programs that refuse come first, so a start that fails
/// halfway never gives agents more access.
pub(super) const HOOKS: [Hook; 17] = [
    hook("egress", CGROUP_INET_EGRESS, AttachPoint::Agents),
    hook("ingress", CGROUP_INET_INGRESS, AttachPoint::Agents),
    hook("connect4", 10, AttachPoint::Agents),
    hook("connect6", 11, AttachPoint::Agents),
    hook("sendmsg4", 14, AttachPoint::Agents),
    hook("sendmsg6", 15, AttachPoint::Agents),
    hook("guard_connect4", 10, AttachPoint::Root),
    hook("guard_connect6", 11, AttachPoint::Root),
    hook("guard_sendmsg4", 14, AttachPoint::Root),
    hook("guard_sendmsg6", 15, AttachPoint::Root),
    hook("bind4", 8, AttachPoint::Agents),
    hook("bind6", 9, AttachPoint::Agents),
    hook("sock_create", 2, AttachPoint::Agents),
    hook("recvmsg4", 19, AttachPoint::Agents),
    hook("recvmsg6", 20, AttachPoint::Agents),
    hook("getpeername4", 29, AttachPoint::Agents),
    hook("getpeername6", 30, AttachPoint::Agents),
];

/// `BPF_LSM_MAC` of `enum bpf_attach_type`.
const LSM_MAC: u32 = 27;

/// The programs of the BPF LSM: an additional layer on kernels that run them.
const SECURITY_HOOKS: [Hook; 4] = [
    hook("refuse_send", LSM_MAC, AttachPoint::Security("socket_sendmsg")),
    hook("refuse_write", LSM_MAC, AttachPoint::Security("file_permission")),
    hook("refuse_receipt", LSM_MAC, AttachPoint::Security("file_receive")),
    hook("refuse_family", LSM_MAC, AttachPoint::Security("socket_create")),
];

/// Returns those of them that this kernel needs.
pub(super) fn security_hooks() -> impl Iterator<Item = &'static Hook> {
    /// The kernel from which `sendfile` and `splice` pass `socket_sendmsg`. Earlier ones need the hook that sees every
    /// write of the machine.
    const SENDFILE_SEEN: (u32, u32) = (6, 5);
    let sees = parse_version(&release()).is_some_and(|version| version >= SENDFILE_SEEN);
    SECURITY_HOOKS.iter().filter(move |hook| !(sees && hook.program == "refuse_write"))
}

/// Returns the programs of cgroups, and those of the BPF LSM if they were attached.
pub(super) fn hooks(pins: &Pins) -> impl Iterator<Item = &'static Hook> {
    HOOKS.iter().chain(security_hooks().filter(|_| pins.are_secured()))
}
