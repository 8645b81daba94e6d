//! What `onecli doctor` tells of the kernel half, each with what to do about it.

use std::{collections::BTreeMap, fs::File, io, path::Path};

use caps::{CapSet, Capability};

use super::{
    Cgroup2, KernelConfig, LinkState,
    attach::{HOOKS, Place, check},
    link,
};

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do about it; `None` when nothing is wrong.
    pub fix: Option<String>,
}

impl Finding {
    fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), found: found.into(), fix: None }
    }

    fn bad(subject: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject: subject.into(), found: found.into(), fix: Some(fix.into()) }
    }
}

/// Looks at all that transparent mode depends on. Changes nothing; what cannot be looked at is a finding too.
pub fn report(config: &KernelConfig) -> Vec<Finding> {
    let mut findings = vec![version(), btf()];
    findings.extend(capabilities());
    let cgroups = match Cgroup2::find() {
        Ok(cgroups) => cgroups,
        Err(error) => {
            findings.push(Finding::bad("cgroup2", "not usable", error.to_string()));
            return findings;
        }
    };
    findings.push(Finding::good("cgroup2", cgroups.root().display().to_string()));
    findings.extend(programs(config));
    findings.extend(conflicts(config, &cgroups));
    findings
}

/// The oldest kernel that has all the programs need.
const OLDEST: (u32, u32) = (5, 15);
/// The oldest with which the serving process needs no capability to read maps (5.19), as a long-term release.
const RECOMMENDED: (u32, u32) = (6, 1);

fn version() -> Finding {
    let release = nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    match parse_version(&release) {
        Some(version) if version >= RECOMMENDED => Finding::good("kernel", release),
        Some(version) if version >= OLDEST => Finding::bad(
            "kernel",
            release,
            "before Linux 5.19 the daemon keeps CAP_BPF to read the kernel's records: 6.1 or later is better",
        ),
        _ => Finding::bad("kernel", release, "transparent mode needs Linux 5.15 or later"),
    }
}

/// Major and minor version of a release such as `6.1.0-18-amd64`.
pub(super) fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf() -> Finding {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        Finding::good("BTF", path)
    } else {
        Finding::bad(
            "BTF",
            format!("no {path}"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (those of the distributions are), and mount /sys",
        )
    }
}

/// Those of the process that asks: the daemon's at its start, or root's for `onecli doctor`.
fn capabilities() -> impl Iterator<Item = Finding> {
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON].into_iter().map(|capability| {
        match caps::has_cap(None, CapSet::Effective, capability) {
            Ok(true) => Finding::good(capability.to_string(), "effective"),
            Ok(false) => Finding::bad(
                capability.to_string(),
                "not effective in this process",
                "attaching the programs needs it: run as root; in a container add the capability",
            ),
            Err(error) => Finding::bad(capability.to_string(), error.to_string(), "mount /proc"),
        }
    })
}

fn programs(config: &KernelConfig) -> Vec<Finding> {
    let health = match check(config) {
        Ok(health) => health,
        Err(error) => {
            let fix = "run this as root, once the daemon has been started";
            return vec![Finding::bad("programs", error.to_string(), fix)];
        }
    };
    let finding = |link: super::LinkHealth| {
        let subject = format!("program {}", link.program);
        match link.state {
            LinkState::Attached => Finding::good(subject, "attached"),
            LinkState::NotPinned => {
                Finding::bad(subject, "not attached", "start onecli-daemon as root, without --no-ebpf")
            }
            LinkState::Defunct => Finding::bad(
                subject,
                "attached to a cgroup that has been removed",
                "restart onecli-daemon, and end what runs in the re-created cgroup: nothing restrains it",
            ),
            LinkState::OtherCgroup { id } => Finding::bad(
                subject,
                format!("attached to another cgroup, with id {id}"),
                "restart onecli-daemon; if [kernel] agents_root was changed, run `onecli-daemon --detach` before, when no agent runs",
            ),
        }
    };
    health.links.into_iter().map(finding).collect()
}

/// Programs attached the old way, exclusively: at the same hook of the same cgroup or one above it the kernel refuses
/// ours with EPERM. Links share always.
fn conflicts(config: &KernelConfig, cgroups: &Cgroup2) -> Vec<Finding> {
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for hook in &HOOKS {
        let cgroup = match hook.place {
            Place::Agents => config.agents_root.as_path(),
            Place::Daemon => config.daemon_cgroup.as_path(),
            Place::Root => Path::new(""),
        };
        for ancestor in cgroup.ancestors() {
            let path = cgroups.root().join(ancestor);
            let attached = File::open(&path).and_then(|cgroup| link::attached(&cgroup, hook.attach_type));
            match attached {
                Ok(attached) if attached.programs > 0 && !attached.shared => {
                    found.entry(path.display().to_string()).or_default().push(hook.attach_type);
                }
                // No such cgroup yet: nothing is attached to it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let fix = "run this as root (it needs CAP_NET_ADMIN)";
                    return vec![Finding::bad("other programs", format!("{}: {error}", path.display()), fix)];
                }
                _ => {}
            }
        }
    }
    if found.is_empty() {
        return vec![Finding::good("other programs", "none is attached exclusively")];
    }
    found.into_iter().map(|(cgroup, types)| conflict(&cgroup, types)).collect()
}

fn conflict(cgroup: &str, mut types: Vec<u32>) -> Finding {
    types.sort_unstable();
    types.dedup();
    let fix = format!(
        "`bpftool cgroup show {cgroup}` names them: have whoever attached them use BPF_F_ALLOW_MULTI or links, or choose an \
         [kernel] agents_root that is not below this cgroup"
    );
    let found = format!("attached exclusively to {cgroup}, at attach types {types:?}");
    Finding::bad("other programs", found, fix)
}
