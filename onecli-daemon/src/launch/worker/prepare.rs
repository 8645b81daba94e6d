//! What a command needs before it starts: its user, its view of the files, its directories, its terminal.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::unistd::{Group, Pid};

use super::super::decide::Giver;
use super::super::gate::HeldView;
use super::super::handover::Handover;
use super::super::homes::Homes;
use super::super::leftovers::Leftovers;
use super::super::mounts::{BUNDLE, View};
use super::super::terminal::Pair;
use super::super::watched::Watched;
use super::super::wire::{Event, Handed, Request, Wire};
use super::super::{Launch, LaunchError, LaunchUser, OURS, environment};
use super::admit::Authorisation;
use super::start::start;
use super::{Ask, Caller, Permission, Rules};

/// A command that runs, and what is looked at when it ends.
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) view: Option<HeldView>,
    pub(super) directories: Vec<Watched>,
    pub(super) leftovers: Leftovers,
}

/// Starts the command.
pub(super) fn prepare(
    wire: &Wire,
    caller: &Caller,
    rules: &Rules,
    ask: Ask<'_>,
    authorisation: Authorisation,
    request: &Request,
    descriptors: Vec<OwnedFd>,
) -> Result<Running, (u8, String)> {
    let ours = |message: String| (OURS, message);
    let launch_error = |error: LaunchError| (error.exit_code(), error.to_string());
    let handed = Handed::check(descriptors).map_err(ours)?;
    let permission = &authorisation.permission;
    for note in &permission.notes {
        let _ = wire.send(&Event::Notice(note.clone()), &[]);
    }
    let user = LaunchUser::find(&permission.user).map_err(launch_error)?;
    let user = for_agents(user, caller, rules).map_err(ours)?;

    let view = if request.scope { None } else { Some(view(caller, rules, permission, &user, &handed)?) };
    let mut directories = match &view {
        None => Vec::new(),
        Some(view) => Handover {
            wire,
            request,
            handed: &handed,
            giver: Giver { caller: (caller.uid, caller.gid) },
            user: &user,
            agents: &rules.agents,
            agent: permission.agent,
            homes: &view.homes,
            hidden: &permission.hidden,
        }
        .directories()
        .map_err(ours)?,
    };

    let terminal = if request.terminals.contains(&true) {
        let pair = Pair::open(request.size, &user)
            .map_err(|error| ours(format!("cannot make a terminal: {error}")))?;
        wire.send(&Event::Terminal, &[pair.outer.as_fd()]).map_err(|error| ours(error.to_string()))?;
        Some(pair.inner)
    } else {
        None
    };
    let watched = Watched::all(&mut directories, permission.allow_git_config);
    let permission = authorisation.renewed(request, caller, ask).map_err(ours)?;
    let leftovers = Leftovers::of(&directories, &user);
    let launch = plan(request, permission, user, view, &handed).map_err(launch_error)?;
    let standard = &handed.standard;
    let (pid, view) = start(wire, request, launch, &directories, standard, terminal.as_ref())
        .map_err(|error| ours(error.to_string()))?;
    Ok(Running { pid, view, directories: watched, leftovers })
}

/// What the agent sees of the host's files.
fn view(
    caller: &Caller,
    rules: &Rules,
    permission: &Permission,
    user: &LaunchUser,
    handed: &Handed,
) -> Result<View, (u8, String)> {
    let failed = |error: io::Error| (OURS, format!("cannot make the agent's directories: {error}"));
    let owner = nix::sys::stat::fstat(&handed.directory).map_or(caller.uid, |found| found.st_uid);
    let own_home = match rules.agents.home_of(user) {
        Some(_) => {
            let ids = (user.uid.as_raw(), user.gid.as_raw());
            if user.home == rules.agents.passwd_home(&user.name) {
                rules.agents.make_passwd_home(&user.name).map_err(failed)?;
            }
            Some(rules.agents.make_home(&user.name, ids.0, ids.1).map_err(failed)?)
        }
        None => None,
    };
    Ok(View {
        ca_bundle: permission.environment.ca_bundle.clone(),
        hidden: permission.hidden.iter().cloned().chain([rules.agents.state()]).collect(),
        homes: Homes::of_host(&[caller.uid, owner]),
        own_home,
        tmp: rules.agents.make_tmp(permission.agent).map_err(failed)?,
        resolver: permission.cgroup.is_some(),
    })
}

/// Who may let agents have users, by the daemon's admin socket, need not be root: without this they could have anybody's.
fn for_agents(mut user: LaunchUser, caller: &Caller, rules: &Rules) -> Result<LaunchUser, String> {
    let group = Group::from_name(&rules.users).ok().flatten().map(|group| group.gid);
    let is_own = user.uid.as_raw() == caller.uid;
    if caller.uid != 0 && !is_own && !group.is_some_and(|gid| user.groups.contains(&gid)) {
        return Err(format!(
            "user '{0}' is not for agents; root can make it one: usermod -a -G {1} {0}",
            user.name, rules.users
        ));
    }
    // The mark is for us; it gives the command nothing.
    user.groups.retain(|gid| Some(*gid) != group || *gid == user.gid);
    Ok(user)
}

fn plan(
    request: &Request,
    permission: Permission,
    user: LaunchUser,
    view: Option<View>,
    handed: &Handed,
) -> Result<Launch, LaunchError> {
    let mut agent = permission.environment;
    if view.is_some() {
        agent.ca_bundle = BUNDLE.into();
    }
    agent.own_view = view.is_some();
    let caller: Vec<(OsString, OsString)> = request.env.clone();
    let env = environment(caller, &request.keep_env, &user, &agent)?;
    Ok(Launch {
        user,
        cgroup: permission.cgroup,
        env,
        program: request.program.clone(),
        args: request.args.clone(),
        view,
        directory: handed.path(),
        directory_id: nix::sys::stat::fstat(&handed.directory).ok().map(|found| (found.st_dev, found.st_ino)),
    })
}
