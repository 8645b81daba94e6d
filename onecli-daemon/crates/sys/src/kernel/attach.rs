//! Loads the programs, and leaves them attached from one daemon to the next.

use std::{
    collections::BTreeSet,
    error::Error,
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError, links::FdLink},
};
use nix::fcntl::{Flock, FlockArg};
use onecli_common::names;

use super::{
    bpffs::Pins,
    cgroup::{Cgroup2, id_of_directory, level},
    config::KernelConfig,
    error::KernelError,
    health::{Health, LinkHealth, LinkState},
    hooks::{AttachPoint, CGROUP_INET_INGRESS, HOOKS, Hook, hooks, security_hooks},
    link::{self, LinkInfo, Target},
    netns::Namespaces,
    program_log::KernelLog,
    security::{self, Security},
};

/// The kernel programs, built by `cargo xtask ebpf` and checked by `cargo xtask ebpf --verify`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../../onecli-ebpf/onecli-ebpf.o");

/// Loads the programs and attaches them, or replaces those that an earlier daemon attached.
///
/// Returns the programs' log if it is on.
pub(super) fn attach(config: &KernelConfig) -> Result<Option<KernelLog>, KernelError> {
    attach_object(OBJECT, config)
}

/// Loads and attaches `object`.
pub(super) fn attach_object(object: &[u8], config: &KernelConfig) -> Result<Option<KernelLog>, KernelError> {
    let cgroups = Cgroup2::find()?;
    cgroups.ensure(&config.agents_root)?;
    cgroups.ensure(&config.daemon_cgroup)?;
    let _one_at_a_time = lock(&cgroups.path(&config.agents_root)?)?;
    let pins = Pins::below(&config.bpffs_dir);
    pins.create()?;
    pins.check_shapes()?;
    let security = Security::of_kernel();
    let mut ebpf = load(object, config, &cgroups, Some(&pins), security.as_ref())?;
    let mut attach = |hook| {
        let program = find(&mut ebpf, hook)?;
        verify(program, hook, security.as_ref())?;
        enforce(program, hook, &cgroups, config, &pins)
    };
    HOOKS.iter().try_for_each(&mut attach)?;
    let secured = security.as_ref().map(|_| security_hooks().try_for_each(attach));
    pins.set_secured(matches!(secured, Some(Ok(()))))?;
    if let Some(Err(error)) = secured {
        tracing::warn!(
            error = &error as &(dyn Error + 'static),
            "not all programs of the BPF LSM were attached: only the launcher stops agents from sending \
             over connections made outside"
        );
    }
    pins.remove_other_versions()?;
    config.log.then(|| KernelLog::new(&mut ebpf)).transpose()
}

/// Checks with the kernel whether every program is attached as `config` requires.
pub fn check(config: &KernelConfig) -> Result<Health, KernelError> {
    let cgroups = Cgroup2::find()?;
    let pins = Pins::below(&config.bpffs_dir);
    let links = hooks(&pins).map(|hook| {
        let target = match directory_of(hook, config, &cgroups)? {
            Some(directory) => Target::Cgroup(id_of_directory(&directory)?),
            None => Target::Kernel,
        };
        let (id, state) = match open_link(hook, &pins)? {
            None => (0, LinkState::NotPinned),
            Some((_, info)) => (info.program_id, state(info, target)),
        };
        Ok(LinkHealth { program: hook.program, id, state })
    });
    Ok(Health { links: links.collect::<Result<_, _>>()? })
}

/// Removes every pin below `bpffs_dir`, which detaches the programs and ends enforcement. It is no error if there are
/// none.
pub fn detach(bpffs_dir: &Path) -> Result<(), KernelError> {
    Pins::below(bpffs_dir).remove()
}

/// Prevents a second daemon from attaching at the same time. Released when dropped.
fn lock(agents_root: &Path) -> Result<Flock<File>, KernelError> {
    let failed = || KernelError::cgroup("lock cgroup", agents_root);
    let directory = File::open(agents_root).map_err(failed())?;
    Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| failed()(errno.into()))
}

/// Returns the tag that the kernel computes for each of the programs: a digest of its instructions. Loads the programs,
/// and attaches none.
pub(super) fn tags(
    config: &KernelConfig,
    cgroups: &Cgroup2,
) -> Result<Vec<(&'static str, u64)>, KernelError> {
    let security = Security::of_kernel();
    let mut ebpf = load(OBJECT, config, cgroups, None, security.as_ref())?;
    let pins = Pins::below(&config.bpffs_dir);
    let tags = hooks(&pins).map(|hook| {
        let program = find(&mut ebpf, hook)?;
        verify(program, hook, security.as_ref())?;
        let info = program.info().map_err(|source| KernelError::Program {
            action: "examine",
            program: hook.program,
            hint: "the kernel reports no information about it",
            source: Box::new(source),
        })?;
        Ok((hook.program, info.tag()))
    });
    tags.collect()
}

fn find<'e>(ebpf: &'e mut Ebpf, hook: &Hook) -> Result<&'e mut Program, KernelError> {
    ebpf.program_mut(hook.program).ok_or(KernelError::Incomplete { kind: "program", name: hook.program })
}

/// Creates the missing pinned maps, opens the existing ones, and relocates the programs. Without `pins` all maps are
/// new, and are removed with the programs.
fn load(
    object: &[u8],
    config: &KernelConfig,
    cgroups: &Cgroup2,
    pins: Option<&Pins>,
    security: Option<&Security>,
) -> Result<Ebpf, KernelError> {
    let agent_level = level(&config.agents_root)? + 1;
    let agents_root = cgroups.id_of(&config.agents_root)?;
    let home = Namespaces::of_self().map_err(|error| KernelError::Home(Box::new(error)))?.home();
    let transparent_port = u32::from(config.transparent_port);
    let resolver_port = u32::from(config.dns_port);
    let reserved_ports = reserved_ports(config)?;
    let log_level = if config.log { aya_log::Level::Debug as u8 } else { 0 };
    let (kern_sock, allocation) = security.map(Security::marks).unwrap_or_default();
    let mut loader = EbpfLoader::new();
    loader
        .override_global(names::AGENT_LEVEL, &agent_level, true)
        .override_global(names::AGENTS_ROOT, &agents_root, true)
        .override_global(names::HOME_NETNS, &home, true)
        .override_global(names::KERN_SOCK, &kern_sock, true)
        .override_global(names::ALLOCATION, &allocation, true)
        .override_global(names::TRANSPARENT_PORT, &transparent_port, true)
        .override_global(names::RESOLVER_PORT, &resolver_port, true)
        .override_global(names::RESERVED_PORTS, &reserved_ports, true)
        .override_global(aya_log::LEVEL, &log_level, true);
    // Pinned by name: bpffs accepts no name with a dot, such as the `.rodata` of the globals above. Those belong to one
    // load and are swapped with the programs.
    for (map, pins) in names::PINNED_MAPS.into_iter().zip(std::iter::repeat(pins)) {
        if let Some(pins) = pins {
            loader.map_pin_path(map, pins.map(map));
        }
    }
    loader.load(object).map_err(|source| KernelError::Load { source: Box::new(source) })
}

/// Returns every port of the daemon once, in the form that the programs use.
fn reserved_ports(config: &KernelConfig) -> Result<[u16; names::RESERVED_PORTS_COUNT], KernelError> {
    let ours = [config.transparent_port, config.dns_port];
    let distinct: BTreeSet<u16> = ours.into_iter().chain(config.reserved_ports.iter().copied()).collect();
    let mut ports = [0; names::RESERVED_PORTS_COUNT];
    if distinct.len() > ports.len() {
        return Err(KernelError::TooManyPorts { most: ports.len() - ours.len() });
    }
    for (entry, port) in ports.iter_mut().zip(distinct) {
        *entry = port;
    }
    Ok(ports)
}

/// Passes a program to the kernel's verifier.
fn verify(program: &mut Program, hook: &Hook, security: Option<&Security>) -> Result<(), KernelError> {
    let verified: Result<(), Box<dyn Error + Send + Sync>> = match (program, hook.place) {
        (Program::CgroupSockAddr(program), _) => program.load().map_err(Into::into),
        (Program::CgroupSock(program), _) => program.load().map_err(Into::into),
        (Program::CgroupSkb(program), _) => program.load().map_err(Into::into),
        (Program::Lsm(program), AttachPoint::Security(name)) if let Some(security) = security => {
            security.verify(program, name)
        }
        _ => Err(ProgramError::UnexpectedProgramType.into()),
    };
    verified.map_err(|source| KernelError::Program {
        action: "load",
        program: hook.program,
        hint: "the verifier's reason follows; the kernel may be older than Linux 5.15",
        source,
    })
}

/// Makes `program` the one that runs at `hook`, without a gap.
fn enforce(
    program: &mut Program,
    hook: &Hook,
    cgroups: &Cgroup2,
    config: &KernelConfig,
    pins: &Pins,
) -> Result<(), KernelError> {
    let pin = pins.link(hook.program);
    let found = open_link(hook, pins)?;
    let Some(directory) = directory_of(hook, config, cgroups)? else {
        // Links of this kind cannot be updated. The earlier one is removed with its pin, once the new one is attached.
        return attach_new(program, hook, None, &pin);
    };
    let target = Target::Cgroup(id_of_directory(&directory)?);
    if let Some((link, info)) = found {
        match state(info, target) {
            LinkState::Attached => return replace(&link, program, hook, pin),
            // Agents may be running there: moving the programs away would release them from enforcement.
            LinkState::OtherCgroup { id } if cgroups.contains(id)? => {
                return Err(KernelError::ForeignLink {
                    program: hook.program,
                    path: pin,
                    found: format!("attached to the cgroup with id {id}, which still exists"),
                });
            }
            _ => {}
        }
    }
    attach_new(program, hook, Some(&directory), &pin)
}

/// Replaces the program of an attached link.
fn replace(link: &impl AsFd, program: &Program, hook: &Hook, pin: PathBuf) -> Result<(), KernelError> {
    let failed = |source| KernelError::Program {
        action: "attach",
        program: hook.program,
        hint: "its descriptor is closed; restart the daemon",
        source: Box::new(source),
    };
    let fd = program.fd().map_err(failed)?;
    let id = program.info().map_err(failed)?.id();
    link::update(link, fd).map_err(|source| KernelError::Link {
        program: hook.program,
        call: "BPF_LINK_UPDATE",
        path: pin.clone(),
        source,
    })?;
    let info = link_info(link, hook, &pin)?;
    if info.program_id != id {
        return Err(KernelError::ForeignLink {
            program: hook.program,
            path: pin,
            found: format!("it runs program {} after an update to {id}", info.program_id),
        });
    }
    Ok(())
}

/// Attaches with a new link and pins it. An earlier link is replaced, and detached only then.
fn attach_new(
    program: &mut Program,
    hook: &Hook,
    cgroup: Option<&Path>,
    pin: &Path,
) -> Result<(), KernelError> {
    let open = |path| File::open(path).map_err(KernelError::cgroup("open cgroup", path));
    let directory = cgroup.map(open).transpose()?;
    let link = link_program(program, hook, directory.as_ref()).map_err(|source| KernelError::Program {
        action: "attach",
        program: hook.program,
        hint: "if the error is EPERM, another program is attached exclusively to this cgroup or one above \
             it (`bpftool cgroup tree` shows it)",
        source,
    })?;
    // Not the name of a program, so a leftover of a failed start blocks nothing.
    let new = pin.with_file_name(format!("{}-new", hook.program));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(KernelError::bpffs("replace", new)(error));
        }
        _ => {}
    }
    // Dropping the pinned link closes its descriptor. The pin retains the attachment.
    link.pin(&new).map_err(|error| KernelError::bpffs("pin a link at", &new)(io::Error::other(error)))?;
    fs::rename(&new, pin).map_err(KernelError::bpffs("replace", pin))
}

/// Attaches a program, and returns its link.
///
/// Links are always of the multi-attach kind. With the other two modes the kernel returns EINVAL.
fn link_program(
    program: &mut Program,
    hook: &Hook,
    cgroup: Option<&File>,
) -> Result<FdLink, Box<dyn Error + Send + Sync>> {
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    match (program, cgroup) {
        (Program::CgroupSockAddr(program), Some(cgroup)) => {
            let id = program.attach(cgroup, MODE)?;
            Ok(program.take_link(id)?.try_into()?)
        }
        (Program::CgroupSock(program), Some(cgroup)) => {
            let id = program.attach(cgroup, MODE)?;
            Ok(program.take_link(id)?.try_into()?)
        }
        (Program::CgroupSkb(program), Some(cgroup)) => {
            let direction = match hook.attach_type {
                CGROUP_INET_INGRESS => CgroupSkbAttachType::Ingress,
                _ => CgroupSkbAttachType::Egress,
            };
            let id = program.attach(cgroup, direction, MODE)?;
            Ok(program.take_link(id)?.try_into()?)
        }
        (Program::Lsm(program), None) => security::link_program(program),
        _ => Err(ProgramError::UnexpectedProgramType.into()),
    }
}

/// Returns the link pinned for a program, if there is one; an error if the pin is another object.
pub(super) fn open_link(hook: &Hook, pins: &Pins) -> Result<Option<(OwnedFd, LinkInfo)>, KernelError> {
    let pin = pins.link(hook.program);
    let link = match link::open(&pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(KernelError::Link { program: hook.program, call: "BPF_OBJ_GET", path: pin, source });
        }
    };
    let info = link_info(&link, hook, &pin)?;
    if info.attach_type != hook.attach_type {
        return Err(KernelError::ForeignLink {
            program: hook.program,
            path: pin,
            found: format!("attach type {} and not {}", info.attach_type, hook.attach_type),
        });
    }
    Ok(Some((link, info)))
}

fn link_info(link: &impl AsFd, hook: &Hook, pin: &Path) -> Result<LinkInfo, KernelError> {
    link::info(link).map_err(|source| KernelError::Link {
        program: hook.program,
        call: "BPF_OBJ_GET_INFO_BY_FD",
        path: pin.to_owned(),
        source,
    })
}

fn state(info: LinkInfo, wanted: Target) -> LinkState {
    match info.target {
        target if target == wanted => LinkState::Attached,
        Target::Cgroup(0) | Target::Kernel => LinkState::Defunct,
        Target::Cgroup(id) => LinkState::OtherCgroup { id },
    }
}

/// Returns the directory of the cgroup to which a program is attached; `None` if it is attached to none.
fn directory_of(
    hook: &Hook,
    config: &KernelConfig,
    cgroups: &Cgroup2,
) -> Result<Option<PathBuf>, KernelError> {
    match hook.place {
        AttachPoint::Agents => cgroups.path(&config.agents_root).map(Some),
        AttachPoint::Root => Ok(Some(cgroups.root().to_owned())),
        AttachPoint::Security(_) => Ok(None),
    }
}
