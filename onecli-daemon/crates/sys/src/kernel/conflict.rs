//! Programs that others attached exclusively to the same cgroups (`BPF_PROG_ATTACH` without `BPF_F_ALLOW_MULTI`).
//!
//! The nearest cgroup with a program decides, from the agents root upwards: below an exclusive one the kernel refuses
//! OneCLI's links with EPERM. An exclusive program below the agents root does not displace OneCLI's, which allow others
//! beside them; it only runs first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use onecli_model::Check;

use super::{
    bpffs::Pins,
    cgroup::Cgroup2,
    config::KernelConfig,
    hooks::{AttachPoint, Hook, hooks},
    link::{self, Sharing},
};

const NAME: &str = "other programs";
/// Cgroups below the agents root that are examined.
const MAX_BELOW: usize = 512;

/// Attach types by cgroup.
type ProgramsByCgroup = BTreeMap<PathBuf, BTreeSet<u32>>;

/// Searches for them. `attached`: OneCLI's programs already run, so a conflict matters only at the next start.
pub(super) fn report(config: &KernelConfig, cgroups: &Cgroup2, attached: bool) -> Vec<Check> {
    let (mut in_the_way, mut below) = (ProgramsByCgroup::new(), ProgramsByCgroup::new());
    for hook in hooks(&Pins::below(&config.bpffs_dir)) {
        if let Err((path, error)) = look(hook, config, cgroups, &mut in_the_way, &mut below) {
            let found = format!("{}: {error}", path.display());
            return vec![Check::fail(NAME, found, "run this as root (it needs CAP_NET_ADMIN)")];
        }
    }
    if in_the_way.is_empty() && below.is_empty() {
        return vec![Check::ok(NAME, "none is attached exclusively")];
    }
    let blocking = in_the_way.iter().map(|(cgroup, types)| {
        let found = format!("attached exclusively to {}, at attach types {types:?}", cgroup.display());
        let fix = format!(
            "`bpftool cgroup show {}` lists them: attach them with BPF_F_ALLOW_MULTI or links, or set a \
             [kernel] agents_root that is not below this cgroup",
            cgroup.display()
        );
        if attached { Check::warn(NAME, found, fix) } else { Check::fail(NAME, found, fix) }
    });
    let first = below.iter().map(|(cgroup, types)| {
        Check::warn(
            NAME,
            format!("attached to {}, at attach types {types:?}: they run before OneCLI's", cgroup.display()),
            format!(
                "`bpftool cgroup show {}` lists them: OneCLI treats an address that they change as the \
                 agent's request",
                cgroup.display()
            ),
        )
    });
    blocking.chain(first).collect()
}

fn look(
    hook: &Hook,
    config: &KernelConfig,
    cgroups: &Cgroup2,
    in_the_way: &mut ProgramsByCgroup,
    below: &mut ProgramsByCgroup,
) -> Result<(), (PathBuf, io::Error)> {
    let own = match hook.place {
        AttachPoint::Agents => config.agents_root.as_path(),
        AttachPoint::Root => Path::new(""),
        // Those run beside any number of others.
        AttachPoint::Security(_) => return Ok(()),
    };
    for (distance, cgroup) in own.ancestors().enumerate() {
        let path = cgroups.root().join(cgroup);
        match sharing(&path, hook)? {
            Sharing::Nothing => continue,
            // OneCLI's, or beside OneCLI's. The cgroups above are checked too.
            Sharing::Shared if distance == 0 => continue,
            Sharing::Exclusive => {
                in_the_way.entry(path).or_default().insert(hook.attach_type);
            }
            // Descendants may replace it with their own; the same cgroup may not.
            Sharing::Overridable if distance == 0 => {
                in_the_way.entry(path).or_default().insert(hook.attach_type);
            }
            Sharing::Overridable | Sharing::Shared => {}
        }
        break;
    }
    if hook.place == AttachPoint::Agents {
        for path in descendants(&cgroups.root().join(own)) {
            if matches!(sharing(&path, hook)?, Sharing::Exclusive | Sharing::Overridable) {
                below.entry(path).or_default().insert(hook.attach_type);
            }
        }
    }
    Ok(())
}

/// Returns the attachments of one cgroup. A cgroup that does not exist has none.
fn sharing(path: &Path, hook: &Hook) -> Result<Sharing, (PathBuf, io::Error)> {
    match File::open(path).and_then(|cgroup| link::attached(&cgroup, hook.attach_type)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Sharing::Nothing),
        found => found.map_err(|error| (path.to_owned(), error)),
    }
}

/// Returns the cgroups below one, nearest first.
fn descendants(cgroup: &Path) -> Vec<PathBuf> {
    let mut found = vec![cgroup.to_owned()];
    let mut next = 0;
    while next < found.len() && found.len() < MAX_BELOW {
        let nested = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        found.extend(
            nested.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()),
        );
        next += 1;
    }
    found.split_off(1)
}
