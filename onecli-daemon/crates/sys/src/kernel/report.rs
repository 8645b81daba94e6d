//! The checks of the kernel side in `onecli doctor`, each with a fix.

use std::{collections::BTreeSet, fs, io, path::Path};

use caps::{CapSet, Capability};
use onecli_model::Check;

use super::{
    attach::{check, tags},
    bpffs::Pins,
    cgroup::Cgroup2,
    config::KernelConfig,
    conflict,
    error::KernelError,
    health::{LinkHealth, LinkState},
    link, netns, security,
    version::{parse_version, release},
};

/// Checks everything that transparent mode depends on, and changes nothing. A check that cannot run is reported too.
///
/// Root sees all checks. Without `CAP_SYS_ADMIN` the report says that, and omits the checks that need it.
pub fn report(config: &KernelConfig) -> Vec<Check> {
    let mut checks = vec![kernel(), btf()];
    let cgroups = match Cgroup2::find() {
        Ok(cgroups) => {
            checks.push(Check::ok("cgroup2", cgroups.root().display().to_string()));
            Some(cgroups)
        }
        Err(error) => {
            checks.push(Check::fail("cgroup2", "not usable", error.to_string()));
            None
        }
    };
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false) {
        checks.push(Check::warn(
            "capabilities",
            "this process is not root: programs, pins and other attachments were not checked",
            "sudo onecli doctor",
        ));
        return checks;
    }
    checks.push(capabilities());
    checks.push(bpffs(config));
    let Some(cgroups) = cgroups else { return checks };
    checks.push(agents_root(config, &cgroups));
    checks.push(pins(config));
    let programs = programs(config, &cgroups);
    let attached = programs.iter().all(|check| check.fix.is_none());
    checks.extend(programs);
    checks.push(security_modules(config));
    checks.push(powers(config, &cgroups));
    checks.extend(conflict::report(config, &cgroups, attached));
    checks
}

/// Features and the kernel that each needs, oldest first.
const FEATURES: [((u32, u32), &str); 6] = [
    ((5, 7), "programs stay attached without a daemon (links)"),
    ((5, 12), "sockets record the cgroup that created them"),
    ((5, 14), "identities of connections (SO_NETNS_COOKIE), `agent remove --kill` (cgroup.kill)"),
    ((5, 15), "the oldest long-term release with all required features"),
    ((5, 19), "the serving process reads the kernel's records without a capability"),
    ((6, 1), "the first long-term release with all of these"),
];
/// The oldest kernel that has everything the programs need.
const OLDEST: (u32, u32) = (5, 15);
/// The oldest long-term release that lacks nothing.
const RECOMMENDED: (u32, u32) = (6, 1);

fn kernel() -> Check {
    judge(&release())
}

/// Judges a kernel by its release, as uname(2) returns it.
pub(super) fn judge(release: &str) -> Check {
    let Some(version) = parse_version(release) else {
        return Check::warn(
            "kernel",
            release,
            "its version cannot be read: 5.15 or later is needed, 6.1 is better",
        );
    };
    let lacking: Vec<String> = FEATURES
        .iter()
        .filter(|(since, _)| *since > version)
        .map(|((major, minor), feature)| format!("{feature} ({major}.{minor})"))
        .collect();
    let lacks = format!("{release} lacks: {}", lacking.join("; "));
    match version {
        version if version >= RECOMMENDED => Check::ok("kernel", release),
        version if version >= OLDEST => Check::warn(
            "kernel",
            lacks,
            "before Linux 5.19 the serving process, which has no capability, reads the kernel's records only with \
             kernel.unprivileged_bpf_disabled=0: use 6.1 or later",
        ),
        _ => Check::fail("kernel", lacks, "transparent mode needs Linux 5.15, and 6.1 or later is better"),
    }
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        Check::ok("btf", path)
    } else {
        Check::fail(
            "btf",
            format!("no {path}"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (those of the distributions are), and mount /sys",
        )
    }
}

/// Checks the capabilities of the calling process. A daemon started in the same place gets the same ones.
fn capabilities() -> Check {
    let needed = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
    let missing: Vec<String> = needed
        .into_iter()
        .filter(|&capability| !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false))
        .map(|capability| capability.to_string())
        .collect();
    if missing.is_empty() {
        return Check::ok("capabilities", "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON");
    }
    Check::fail(
        "capabilities",
        format!("{} not effective in this process", missing.join(" and ")),
        "attaching the programs needs it: run as root; in a container add the capability",
    )
}

/// Checks the layer that only some kernels have.
fn security_modules(config: &KernelConfig) -> Check {
    if Pins::below(&config.bpffs_dir).are_secured() {
        return Check::ok("bpf lsm", "agents cannot send over connections made outside");
    }
    let without = "only the launcher stops an agent from sending over a connection made outside, or with a \
         family such as AF_VSOCK";
    if security::is_active() {
        return Check::warn(
            "bpf lsm",
            format!("its programs are not attached: {without}"),
            "start onecli-daemon; if its log reports that the kernel accepts none, start agents only with \
             `onecli run`",
        );
    }
    Check::warn(
        "bpf lsm",
        format!("not among the active security modules: {without}"),
        "boot with `bpf` at the end of lsm= (/sys/kernel/security/lsm shows the list), and restart \
         onecli-daemon; until then start agents only with `onecli run`",
    )
}

/// Capabilities with which a process can send data past the programs, or redirect packets behind them.
const POWERS: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN")];

/// Reports managed processes that the programs cannot hold: those with these capabilities, in a network namespace with
/// a way out.
fn powers(config: &KernelConfig, cgroups: &Cgroup2) -> Check {
    const NAME: &str = "agents' capabilities";
    /// Processes that are named.
    const SHOWN: usize = 5;
    let found = match netns::members(cgroups, &config.agents_root) {
        Ok(members) => members,
        Err(error) => {
            return Check::warn(NAME, error.to_string(), "mount cgroup2, and run this as root");
        }
    };
    let powerful: Vec<String> = found
        .iter()
        .filter_map(|&pid| {
            let held = held(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
            let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
            leads_out(&devices).then(|| format!("process {pid} ({held})"))
        })
        .collect();
    if powerful.is_empty() {
        return Check::ok(NAME, format!("none that matters, in {} processes", found.len()));
    }
    let more = powerful.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Check::warn(
        NAME,
        format!("{}{more} can send past the programs", powerful[..powerful.len().min(SHOWN)].join(", ")),
        "start agents with `onecli run`, or as a user; containers with --cap-drop=NET_RAW and without \
         NET_ADMIN, --privileged and --network=host",
    )
}

/// Returns which of [`POWERS`] are effective according to `/proc/PID/status` (proc(5)).
pub(super) fn held(status: &str) -> Option<String> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    let names: Vec<&str> =
        POWERS.iter().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| *name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Whether `/proc/PID/net/dev` lists a device other than the loopback.
pub(super) fn leads_out(devices: &str) -> bool {
    devices.lines().skip(2).filter_map(|line| line.split_once(':')).any(|(name, _)| name.trim() != "lo")
}

fn bpffs(config: &KernelConfig) -> Check {
    let path = config.bpffs_dir.display().to_string();
    match Pins::below(&config.bpffs_dir).is_on_bpffs() {
        Ok(true) => Check::ok("bpffs", path),
        Ok(false) => {
            Check::fail("bpffs", format!("{path} is not on a bpf file system"), not_bpffs(&config.bpffs_dir))
        }
        Err(error) => Check::fail("bpffs", text(&error), not_bpffs(&config.bpffs_dir)),
    }
}

fn not_bpffs(path: &Path) -> String {
    KernelError::NotBpffs { path: path.to_owned() }.to_string()
}

fn agents_root(config: &KernelConfig, cgroups: &Cgroup2) -> Check {
    match cgroups.id_of(&config.agents_root) {
        Ok(id) => Check::ok("agents root", format!("{}, id {id}", config.agents_root.display())),
        Err(error) => Check::fail(
            "agents root",
            text(&error),
            "start onecli-daemon, which creates it, also after it was removed",
        ),
    }
}

/// Checks for pins of other versions.
fn pins(config: &KernelConfig) -> Check {
    let pins = Pins::below(&config.bpffs_dir);
    match pins.other_versions() {
        Ok(others) if others.is_empty() => Check::ok("pins", format!("of this version ({})", pins.version())),
        Ok(others) => {
            let names: Vec<String> = others.iter().map(|path| path.display().to_string()).collect();
            Check::warn(
                "pins",
                format!("left by another version of OneCLI: {}", names.join(", ")),
                "restart onecli-daemon of this version: it takes over, and removes them without a gap",
            )
        }
        Err(error) if is_not_found(&error) => {
            Check::fail("pins", "none", "start onecli-daemon as root, without --no-ebpf")
        }
        Err(error) => Check::fail("pins", text(&error), "run this as root, once the daemon has been started"),
    }
}

fn is_not_found(error: &KernelError) -> bool {
    matches!(error, KernelError::Bpffs { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn programs(config: &KernelConfig, cgroups: &Cgroup2) -> Vec<Check> {
    let health = match check(config) {
        Ok(health) => health,
        Err(error) => {
            let fix = "start onecli-daemon as root, without --no-ebpf";
            return vec![Check::fail("programs", text(&error), fix)];
        }
    };
    // Without these programs loaded, there is nothing to compare.
    let ours = tags(config, cgroups).unwrap_or_default();
    let running = link::program_tags();
    health.links.into_iter().map(|found| program(&found, &ours, &running)).collect()
}

fn program(found: &LinkHealth, ours: &[(&'static str, u64)], running: &[(u32, u64)]) -> Check {
    let name = format!("program {}", found.program);
    match found.state {
        LinkState::Attached => {
            let ours = ours.iter().find(|(program, _)| *program == found.program).map(|(_, tag)| tag);
            let running = running.iter().find(|(id, _)| *id == found.id).map(|(_, tag)| tag);
            match (ours, running) {
                (Some(ours), Some(running)) if ours != running => Check::warn(
                    name,
                    format!("attached, but of another build (tag {running:016x} and not {ours:016x})"),
                    "restart onecli-daemon: it runs another version than this `onecli`, or was not restarted after an upgrade",
                ),
                (Some(ours), Some(_)) => Check::ok(name, format!("attached, tag {ours:016x}")),
                _ => Check::warn(
                    name,
                    "attached; its build could not be compared with this version's",
                    "see the checks kernel, btf and capabilities",
                ),
            }
        }
        LinkState::NotPinned => {
            Check::fail(name, "not attached", "start onecli-daemon as root, without --no-ebpf")
        }
        LinkState::Defunct => Check::fail(
            name,
            "detached: the link was detached, or its cgroup was removed",
            "restart onecli-daemon, and end the processes in a re-created cgroup: they ran without \
             enforcement",
        ),
        LinkState::OtherCgroup { id } => Check::fail(
            name,
            format!("attached to another cgroup, with id {id}"),
            "restart onecli-daemon; if [kernel] agents_root was changed, first run `onecli-daemon --detach` \
             while no agent runs",
        ),
    }
}

/// Formats an error with the system's own message.
fn text(error: &KernelError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Checks whether the kernel reports this host's clock as synchronised (adjtimex(2)). Certificates, tokens and the
/// audit log depend on it.
#[expect(unsafe_code, reason = "a system call without a wrapper")]
pub fn clock() -> Check {
    const NAME: &str = "clock";
    let fix = "synchronise it over the network ('timedatectl set-ntp true', or chrony): certificates and \
         tokens expire by it";
    // SAFETY: integers and padding, for which zeroes are values.
    let mut adjustment: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: writes only into the structure. Without modes it changes nothing, which needs no privilege.
    if unsafe { libc::adjtimex(&raw mut adjustment) } < 0 {
        return Check::warn(NAME, format!("cannot read its state: {}", io::Error::last_os_error()), fix);
    }
    if adjustment.status & libc::STA_UNSYNC != 0 {
        return Check::warn(NAME, "not synchronised: its error is unknown", fix);
    }
    Check::ok(NAME, format!("synchronised, within {} ms", adjustment.maxerror / 1000))
}

/// Checks for ports of the daemon that another process may get: those that the kernel assigns automatically, and those
/// in use while no daemon runs (skipped if `serving`, or if that is unknown). In the network namespace of the caller.
pub fn ports(ours: &[u16], serving: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    let range: Vec<u16> = read("ip_local_port_range").split_whitespace().flat_map(str::parse).collect();
    let reserved = read("ip_local_reserved_ports");
    if let [from, to] = range[..] {
        let open: Vec<String> = ours
            .iter()
            .filter(|port| (from..=to).contains(port) && !lists(&reserved, **port))
            .map(u16::to_string)
            .collect();
        if !open.is_empty() {
            checks.push(Check::warn(
                "port range",
                format!(
                    "the kernel may give {} to any program (ip_local_port_range {from}-{to})",
                    open.join(", ")
                ),
                format!(
                    "sysctl -w net.ipv4.ip_local_reserved_ports={}, and store it in /etc/sysctl.d",
                    open.join(",")
                ),
            ));
        }
    }
    if !serving {
        let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")));
        let taken: BTreeSet<(u16, u32)> =
            tables.iter().flatten().flat_map(|table| listeners(table)).collect();
        for (port, uid) in taken {
            if ours.contains(&port) {
                checks.push(Check::fail(
                    "port owner",
                    format!("no daemon answers, and a process of uid {uid} listens on port {port}"),
                    format!("`ss -ltnp sport = :{port}` names it: end it, or set another port in [listen]"),
                ));
            }
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok("ports", "no other process uses them, or can get them by chance"));
    }
    checks
}

/// Whether a port is in a list such as `8080,9148-9150`.
pub(super) fn lists(list: &str, port: u16) -> bool {
    list.trim().split(',').any(|entry| {
        let (from, to) = entry.split_once('-').unwrap_or((entry, entry));
        matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if (from..=to).contains(&port))
    })
}

/// Returns port and uid of each listener in a table of `/proc/net/tcp` (`proc_net(5)`).
pub(super) fn listeners(table: &str) -> Vec<(u16, u32)> {
    /// `TCP_LISTEN`.
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (fields.get(3) == Some(&LISTEN)).then_some((port, fields.get(7)?.parse().ok()?))
    };
    table.lines().filter_map(listener).collect()
}
