//! Prepares a command: its user, its view of the files, its directories, its terminal.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::unistd::Group;

use super::admit::Authorisation;
use super::env::environment;
use super::launch::Launch;
use super::permission::{Caller, Permission, PermissionQuery, Rules};
use super::report::report;
use super::running::Running;
use super::start::{Files, start};
use crate::directories::decide::DirectoryOwner;
use crate::directories::handover::Handover;
use crate::error::{EXIT_NOT_STARTED, LaunchError};
use crate::host::homes::Homes;
use crate::host::user::LaunchUser;
use crate::process::terminal::Pair;
use crate::protocol::descriptors::RequestDescriptors;
use crate::protocol::wire::{LauncherMessage, LauncherSocket, Request};
use crate::running::freeze::FrozenProcesses;
use crate::running::gate::HeldView;
use crate::running::leftovers::Leftovers;
use crate::running::records::{self, Record, RecordedDirectory, Run};
use crate::running::watched_directory::WatchedDirectory;
use crate::view::mounts::View;
use crate::view::place::BUNDLE;
use crate::view::project::Directory;

/// Starts the command.
pub(super) fn prepare(
    socket: &LauncherSocket,
    caller: &Caller,
    rules: &Rules,
    ask: PermissionQuery<'_>,
    authorisation: Authorisation,
    request: &Request,
    descriptors: Vec<OwnedFd>,
) -> Result<Running, (u8, String)> {
    let ours = |message: String| (EXIT_NOT_STARTED, message);
    let launch_error = |error: LaunchError| (error.exit_code(), error.to_string());
    let handed = RequestDescriptors::check(descriptors).map_err(ours)?;
    let permission = &authorisation.permission;
    for note in &permission.notes {
        let _ = socket.send(&LauncherMessage::Notice(note.clone()), &[]);
    }
    let user = LaunchUser::find(&permission.user).map_err(launch_error)?;
    let user = for_agents(user, caller, rules).map_err(ours)?;

    let view = if request.scope { None } else { Some(view(caller, rules, permission, &user, &handed)?) };
    let mut directories = match &view {
        None => Vec::new(),
        Some(view) => Handover {
            socket,
            request,
            handed: &handed,
            giver: DirectoryOwner { caller: (caller.uid, caller.gid) },
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
        socket
            .send(&LauncherMessage::Terminal, &[pair.outer.as_fd()])
            .map_err(|error| ours(error.to_string()))?;
        Some(pair.inner)
    } else {
        None
    };
    let mut run = on_record(socket, caller, rules, permission, request, &directories).map_err(ours)?;
    let others = run.others().map_err(|error| ours(error.to_string()))?;
    let frozen = FrozenProcesses::of(&run.record, &others).map_err(ours)?;
    let watched = WatchedDirectory::all(&mut directories, permission.allow_git_config, &request.git_configs);
    let unrecorded = |error: io::Error| ours(format!("cannot record the command: {error}"));
    run.set_places(places(&directories, &watched)).map_err(unrecorded)?;
    let permission = authorisation.renewed(request, caller, ask).map_err(ours)?;
    let leftovers = Leftovers::of(&directories, &user);
    let launch = plan(request, caller, permission, user, view, &handed).map_err(launch_error)?;
    let files = Files { standard: &handed.standard, terminal: terminal.as_ref() };
    let (pid, view) = start(socket, request, launch, &directories, files, frozen)
        .map_err(|error| ours(error.to_string()))?;
    // A record without the cgroup lacks one function: the command's processes are not ended if this process is killed.
    let _ = run.set_cgroup(view.as_ref().and_then(HeldView::cgroup));
    Ok(Running { pid, view, directories: watched, leftovers, run })
}

/// Cleans up after killed workers, and records the new command before its directories are searched.
fn on_record(
    socket: &LauncherSocket,
    caller: &Caller,
    rules: &Rules,
    permission: &Permission,
    request: &Request,
    directories: &[Directory],
) -> Result<Run, String> {
    let failed = |error: io::Error| format!("cannot record the command: {error}");
    let runs = rules.agents.make_runs().map_err(failed)?;
    for (uid, line) in records::clean(&runs) {
        report(Some(socket).filter(|_| uid == caller.uid), [line]);
    }
    let lock = rules.agents.make_agent(permission.agent).map_err(failed)?.join("start");
    let subject = (request.agent.as_str(), caller.uid);
    let record = Record::new(subject, permission.cgroup.clone(), lock, places(directories, &[]));
    Run::begin(&runs, record).map_err(failed)
}

/// Returns the directories that the command may change, with their placeholders.
fn places(directories: &[Directory], watched: &[WatchedDirectory]) -> Vec<RecordedDirectory> {
    let writable = directories.iter().filter(|directory| directory.writable);
    writable
        .map(|directory| {
            let watched = watched.iter().find(|watched| watched.place() == directory.path);
            let id = (directory.found.st_dev, directory.found.st_ino);
            RecordedDirectory::new(&directory.path, id, watched.map_or(&[], WatchedDirectory::placeholders))
        })
        .collect()
}

/// Builds the agent's view of the host's files.
fn view(
    caller: &Caller,
    rules: &Rules,
    permission: &Permission,
    user: &LaunchUser,
    handed: &RequestDescriptors,
) -> Result<View, (u8, String)> {
    let failed =
        |error: io::Error| (EXIT_NOT_STARTED, format!("cannot make the agent's directories: {error}"));
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

/// Checks that the user is for agents. Administrators of the daemon's admin socket, who choose the users of agents,
/// need not be root. Without this check they could choose any user.
fn for_agents(mut user: LaunchUser, caller: &Caller, rules: &Rules) -> Result<LaunchUser, String> {
    let group = Group::from_name(&rules.users).ok().flatten().map(|group| group.gid);
    let is_own = user.uid.as_raw() == caller.uid;
    if caller.uid != 0 && !is_own && !group.is_some_and(|gid| user.groups.contains(&gid)) {
        return Err(format!(
            "user '{0}' is not in the group of users for agents; add it as root: usermod -a -G {1} {0}",
            user.name, rules.users
        ));
    }
    // The group is only a mark for the launcher; the command does not need it.
    user.groups.retain(|gid| Some(*gid) != group || *gid == user.gid);
    Ok(user)
}

fn plan(
    request: &Request,
    caller: &Caller,
    permission: Permission,
    user: LaunchUser,
    view: Option<View>,
    handed: &RequestDescriptors,
) -> Result<Launch, LaunchError> {
    let mut agent = permission.environment;
    if view.is_some() {
        agent.ca_bundle = BUNDLE.into();
    }
    agent.own_view = view.is_some();
    let env = environment(request.env.clone(), &request.keep_env, &user, &agent)?;
    Ok(Launch {
        user,
        caller: caller.uid,
        cgroup: permission.cgroup,
        env,
        program: request.program.clone(),
        args: request.args.clone(),
        view,
        directory: handed.path(),
        directory_id: nix::sys::stat::fstat(&handed.directory).ok().map(|found| (found.st_dev, found.st_ino)),
    })
}
