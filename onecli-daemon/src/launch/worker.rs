//! One command of one client: started as the agent, watched to its end.
//!
//! The worker is root and not in the agent's cgroup; the command is its child, the leader of a process group of its own
//! in the worker's session, so that it can be stopped and continued as by a shell.
#![allow(unsafe_code, reason = "fork(2), and leaving the child without unwinding")]

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Group, Pid, Uid, User, fork, setpgid, setsid, tcsetpgrp};

use super::agents_dir::AgentsDir;
use super::deadline::Deadline;
use super::decide::Giver;
use super::gate::{self, Gate, HeldView};
use super::handover::{Handover, mapped};
use super::homes::Homes;
use super::leftovers::Leftovers;
use super::mounts::View;
use super::project::Directory;
use super::terminal::Pair;
use super::watched::Watched;
use super::wire::{Event, Handed, Order, Request, Subject, Wire};
use super::{AgentEnvironment, Launch, LaunchError, LaunchUser, OURS, environment};
use crate::model::{AgentId, Clock as _, SystemClock};

/// A permission that is older is asked for again before the command starts.
const PERMITTED_FOR: Duration = Duration::from_millis(500);
/// For a client to name its subject, and for the whole of its request after it is authorised.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// The group of users for agents, unless told otherwise.
pub const USERS: &str = "onecli-agents";

/// Signals that a client may pass on.
const PASSED_ON: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// Who asks for a command, in the kernel's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Path in the cgroup2 hierarchy.
    pub cgroup: Option<String>,
}

/// What the daemon answers for a caller who may run the agent.
#[derive(Debug)]
pub struct Permission {
    /// The agent.
    pub agent: AgentId,
    /// The user to run as.
    pub user: String,
    /// Directory of the agent's cgroup; none where connections are not redirected.
    pub cgroup: Option<std::path::PathBuf>,
    /// What belongs into the environment.
    pub environment: AgentEnvironment,
    /// Directories that the command shall not see.
    pub hidden: Vec<std::path::PathBuf>,
    /// Whether the command may change the configuration and the hooks of git repositories.
    pub allow_git_config: bool,
    /// What the person should know.
    pub notes: Vec<String>,
}

/// Asks the daemon for a caller's permission; errors are sentences.
pub type Ask<'a> = &'a dyn Fn(&Subject, &Caller) -> Result<Permission, String>;

/// How a launcher judges users, and where it keeps what is theirs.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The group whose members are users for agents: whom somebody who is not root may start a command as.
    pub users: String,
    /// Where agents' homes are, and what is kept for them.
    pub agents: AgentsDir,
}

/// Called once the daemon has authorised the caller, before anything is spent on its command. The launcher's limits for
/// unauthorised callers end there.
pub type Authorised<'a> = &'a dyn Fn();

/// Does what the client at the other end of `wire` wants, to the command's end.
pub fn serve(wire: &Wire, caller: &Caller, rules: &Rules, ask: Ask<'_>, authorised: Authorised<'_>) {
    let refused = |message: String| {
        let _ = wire.send(&Event::Failed { code: OURS, message }, &[]);
    };
    let _ = wire.set_write_timeout(Some(REQUEST_TIME));
    let received = authorise(wire, caller, ask).and_then(|authorisation| {
        let Some((subject, permission)) = authorisation else { return Ok(None) };
        let since = SystemClock.instant();
        authorised();
        let received = receive(wire, caller, subject)?;
        Ok(received.map(|(request, descriptors)| (request, Authorisation { permission, since }, descriptors)))
    });
    let (request, authorisation, descriptors) = match received {
        Ok(Some(received)) => received,
        Ok(None) => return,
        Err(message) => return refused(message),
    };
    let _ = wire.set_write_timeout(None);
    let started = prepare(wire, caller, rules, ask, authorisation, &request, descriptors);
    match started {
        Ok(command) => {
            if let Err(error) = watch(wire, command) {
                refused(format!("the launcher lost its command: {error}"));
            }
        }
        Err((code, message)) => {
            let _ = wire.send(&Event::Failed { code, message }, &[]);
        }
    }
}

/// What the daemon permitted.
struct Authorisation {
    permission: Permission,
    since: Instant,
}

impl Authorisation {
    /// The permission as it is now. A caller may take minutes to send its request or to answer a question: meanwhile the
    /// permission may be taken back, and the kernel programs be detached.
    fn renewed(self, request: &Request, caller: &Caller, ask: Ask<'_>) -> Result<Permission, String> {
        if SystemClock.instant().duration_since(self.since) < PERMITTED_FOR {
            return Ok(self.permission);
        }
        let permission = ask(&request.subject(), caller)?;
        let is_same = (permission.agent, &permission.user) == (self.permission.agent, &self.permission.user);
        is_same.then_some(permission).ok_or_else(|| "the agent was changed meanwhile: try again".to_owned())
    }
}

/// Finds out as whom the command shall run, and whether the caller may; `None` when the client is gone.
fn authorise(wire: &Wire, caller: &Caller, ask: Ask<'_>) -> Result<Option<(Subject, Permission)>, String> {
    let unread = |error: io::Error| format!("the launcher cannot read whom to run: {error}");
    let deadline = Deadline::after(REQUEST_TIME).map_err(unread)?;
    let Some(subject) = wire.receive_subject(&deadline).map_err(unread)? else { return Ok(None) };
    let named = named_user(subject.clone(), caller)?;
    ask(&named, caller).map(|permission| Some((subject, permission)))
}

/// The request of an authorised caller; `None` when the client is gone.
fn receive(
    wire: &Wire,
    caller: &Caller,
    subject: Subject,
) -> Result<Option<(Request, Vec<OwnedFd>)>, String> {
    let unread = |error: io::Error| format!("the launcher cannot read the request: {error}");
    wire.send(&Event::Permitted, &[]).map_err(unread)?;
    let deadline = Deadline::after(REQUEST_TIME).map_err(unread)?;
    let Some((mut request, descriptors)) = wire.receive_before::<Request>(&deadline).map_err(unread)? else {
        return Ok(None);
    };
    if request.subject() != subject {
        return Err("the request is for another agent or user than the one that was authorised".to_owned());
    }
    request.user = named_user(subject, caller)?.user;
    Ok(Some((request, descriptors)))
}

/// A command that runs, and what is looked at when it ends.
struct Running {
    pid: Pid,
    view: Option<HeldView>,
    directories: Vec<Watched>,
    leftovers: Leftovers,
}

/// Starts the command.
fn prepare(
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

/// With `--scope` the user is the caller.
fn named_user(mut subject: Subject, caller: &Caller) -> Result<Subject, String> {
    if subject.scope {
        let entry = User::from_uid(Uid::from_raw(caller.uid)).ok().flatten();
        subject.user = Some(entry.map_or_else(|| caller.uid.to_string(), |entry| entry.name));
        if caller.uid == 0 {
            return Err("--scope runs as yourself, and an agent never runs as root".to_owned());
        }
    }
    Ok(subject)
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
        agent.ca_bundle = super::mounts::BUNDLE.into();
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

fn start(
    wire: &Wire,
    request: &Request,
    launch: Launch,
    directories: &[Directory],
    standard: &[OwnedFd; 3],
    terminal: Option<&OwnedFd>,
) -> io::Result<(Pid, Option<HeldView>)> {
    // A session of its own: the command's terminal is no other's, and what stops the command does not stop its parent.
    setsid()?;
    if let Some(inner) = terminal {
        super::terminal::control(inner)?;
    }
    for signal in [Signal::SIGHUP, Signal::SIGTTOU, Signal::SIGTTIN, Signal::SIGPIPE] {
        set(signal, SigHandler::SigIgn)?;
    }
    let (ours, theirs) = gate::pair()?;
    let cgroup = launch.cgroup.clone();
    // SAFETY: the launcher has one thread, so the child finds every lock as this thread left it.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ours);
            let code = become_command(wire, request, launch, directories, standard, terminal, &theirs);
            // SAFETY: ends the process, and runs nothing of what it shares with its parent.
            unsafe { libc::_exit(i32::from(code)) }
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            // In both processes: whoever comes first. It may have become the command, or have ended.
            let _ = setpgid(child, child);
            if let Some(inner) = terminal {
                let _ = tcsetpgrp(inner, child);
            }
            Ok((child, HeldView::of(child, ours, cgroup.as_deref())))
        }
    }
}

/// Returns only if the command was not started; the client has been told then.
fn become_command(
    wire: &Wire,
    request: &Request,
    launch: Launch,
    directories: &[Directory],
    standard: &[OwnedFd; 3],
    terminal: Option<&OwnedFd>,
    gate: &Gate,
) -> u8 {
    let tell = |event: &Event| {
        let _ = wire.send(event, &[]);
    };
    let mut notice = |text: &str| tell(&Event::Notice(text.to_owned()));
    let started = (|| {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        if let Some(inner) = terminal {
            let _ = tcsetpgrp(inner, nix::unistd::getpid());
        }
        let system = |step| move |source: io::Error| LaunchError::Confine { step, source };
        for signal in [Signal::SIGHUP, Signal::SIGTTOU, Signal::SIGTTIN, Signal::SIGPIPE] {
            set(signal, SigHandler::SigDfl).map_err(system("sigaction"))?;
        }
        let standards = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO];
        let places = standards.into_iter().zip(request.terminals);
        for ((number, is_terminal), standard) in places.zip(standard) {
            let from = match terminal {
                Some(inner) if is_terminal => inner,
                _ => standard,
            };
            // SAFETY: takes two descriptors that are open, and closes a standard one that nothing here owns.
            if unsafe { libc::dup2(from.as_raw_fd(), number) } < 0 {
                return Err(system("dup2")(io::Error::last_os_error()));
            }
        }
        umask(Mode::from_bits_truncate(request.umask));
        let directories = mapped(directories, &launch.user, &mut notice)?;
        launch.exec(directories, &|| gate.pass(), &mut notice)
    })();
    match started {
        Ok(never) => match never {},
        Err(error) => {
            let code = error.exit_code();
            tell(&Event::Failed { code, message: error.to_string() });
            code
        }
    }
}

/// Waits for the command's end, passes signals on, and tells the client what becomes of it.
fn watch(wire: &Wire, mut running: Running) -> io::Result<()> {
    let command = running.pid;
    let mut changes = SigSet::empty();
    changes.add(Signal::SIGCHLD);
    changes.thread_block()?;
    let reaper = SignalFd::with_flags(&changes, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut client = Some(wire);
    loop {
        // Looked at first: it may have changed before anybody was watching.
        while let Some(event) = change(command)? {
            let ended = !matches!(event, Event::Stopped(_));
            if ended {
                report(client, running.leftovers.report());
                // With what was made for the command, which goes before the client reads that it has ended.
                let directories = std::mem::take(&mut running.directories);
                report(client, directories.iter().flat_map(Watched::end));
            }
            if let Some(wire) = client {
                let _ = wire.send(&event, &[]);
            }
            if ended {
                running.view.iter().for_each(HeldView::wait_for_processes);
                return Ok(());
            }
        }
        let mut waiting = vec![PollFd::new(reaper.as_fd(), PollFlags::POLLIN)];
        if let Some(wire) = client {
            waiting.push(PollFd::new(wire.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ordered = waiting.get(1).and_then(PollFd::any).unwrap_or(false);
        while reaper.read_signal()?.is_some() {}
        if let Some(wire) = client.filter(|_| ordered) {
            match wire.receive::<Order>() {
                Ok(Some((Order::Answer(_), _))) => {}
                Ok(Some((Order::Signal(number), _))) => {
                    if let Some(signal) = PASSED_ON.iter().find(|signal| **signal as i32 == number) {
                        let _ = killpg(command, *signal);
                    }
                }
                // The client is gone, or talks nonsense: the command loses its terminal, as by a hang-up.
                Ok(None) | Err(_) => {
                    let _ = killpg(command, Signal::SIGHUP);
                    let _ = killpg(command, Signal::SIGCONT);
                    client = None;
                }
            }
        }
    }
}

/// Tells of files that the agent should not have left or changed; the launcher's log, where the client is gone.
fn report(client: Option<&Wire>, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        let sent = client.is_some_and(|wire| wire.send(&Event::Notice(line.clone()), &[]).is_ok());
        if !sent {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// What has become of the command since the last look.
fn change(command: Pid) -> io::Result<Option<Event>> {
    Ok(match waitpid(command, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED))? {
        WaitStatus::Exited(_, status) => Some(Event::Exited(status)),
        WaitStatus::Signaled(_, signal, _) => Some(Event::Killed(signal as i32)),
        WaitStatus::Stopped(_, signal) => Some(Event::Stopped(signal as i32)),
        _ => None,
    })
}

/// Makes a signal do to this process what it does by default.
pub fn default_action(signal: Signal) {
    // SIGKILL has no other.
    let _ = set(signal, SigHandler::SigDfl);
}

fn set(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither handler runs code of ours.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
