//! Accounts that agents run as: which of their files host services trust, and how an account is converted.
//!
//! sshd, mail servers and service managers read files in the home named in passwd(5). If the agent can write there, it
//! can make those services start programs outside of its cgroup.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use onecli_api::{AgentView, routes};
use onecli_launch::{AgentsDir, LaunchUser, is_no_login, is_system};
use onecli_model::Check;

use crate::client::Client;
use crate::error::CliError;
use crate::host::program;
use crate::host::user::{UserError, agents_dir, run};
use crate::output::Output;

/// Files in a home directory that host services trust.
const TRUSTED: &[&str] = &[
    ".ssh",
    ".forward",
    ".config/systemd",
    ".procmailrc",
    ".rhosts",
    ".shosts",
    ".k5login",
    ".pam_environment",
];
/// Files named after a user that make services start programs for that user.
const STARTERS: &[(&str, &str)] = &[
    ("lingering", "/var/lib/systemd/linger"),
    ("a crontab", "/var/spool/cron/crontabs"),
    ("a crontab", "/var/spool/cron"),
];
/// Jobs of at(1), which belong to their user.
const AT_JOBS: &[&str] = &["/var/spool/cron/atjobs", "/var/spool/at"];
/// The largest number of jobs to examine.
const MAX_JOBS: usize = 10_000;
/// inode(7): in a directory with this bit, only owners may rename and remove entries.
const STICKY: u32 = 0o1000;
const NAME: &str = "agent accounts";

/// Returns the checks of `onecli doctor` for the accounts that agents run as.
pub(crate) fn checks(client: &Client) -> Vec<Check> {
    let agents: Vec<AgentView> = match client.get(routes::AGENTS) {
        Ok(agents) => agents,
        Err(error) => {
            return vec![Check::warn(NAME, error.report().message, "see the checks of the daemon")];
        }
    };
    let users = agents.into_iter().filter_map(|agent| agent.user);
    let mut warnings: Vec<Check> = users.filter_map(|user| warning(&LaunchUser::find(&user).ok()?)).collect();
    if warnings.is_empty() {
        warnings.push(Check::ok(
            NAME,
            "no account can log in, and no host service trusts a file that an agent can write",
        ));
    }
    warnings
}

fn warning(user: &LaunchUser) -> Option<Check> {
    let problems = problems(user);
    let fix = format!(
        "as root: onecli agent convert-user {}; it moves the files to a directory that only the agent sees, \
         and removes the login shell",
        user.name
    );
    (!problems.is_empty())
        .then(|| Check::warn(NAME, format!("user '{}': {}", user.name, problems.join("; ")), fix))
}

/// Lists the ways in which the agent could start a program outside of its cgroup through a host service.
fn problems(user: &LaunchUser) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_no_login(&user.shell) {
        problems.push(format!("it has the login shell {}", user.shell.display()));
    }
    if fs::metadata(&user.home).is_ok_and(|home| can_write(user, &home)) {
        let there = TRUSTED.iter().filter(|name| fs::symlink_metadata(user.home.join(name)).is_ok()).copied();
        let there: Vec<_> = there.collect();
        let there = if there.is_empty() { String::new() } else { format!(" (there: {})", there.join(", ")) };
        problems.push(format!(
            "it can write {}, where sshd and other services trust files{there}",
            user.home.display()
        ));
    }
    if let Some(step) = replaceable(user) {
        problems.push(format!(
            "it can replace {}, which is on the path to its home: make root the owner of {}",
            step.display(),
            step.parent().unwrap_or(step).display()
        ));
    }
    let started = STARTERS.iter().filter(|(_, place)| Path::new(place).join(&user.name).is_file());
    problems.extend(started.map(|(what, place)| format!("it has {what} ({place}/{})", user.name)));
    if AT_JOBS.iter().any(|place| has_job(Path::new(place), user.uid.as_raw())) {
        problems.push("it has jobs of at(1)".to_owned());
    }
    problems
}

/// Returns whether the user may write, by owner and mode. Access control lists are not considered.
fn can_write(user: &LaunchUser, found: &fs::Metadata) -> bool {
    let is_in_group =
        user.gid.as_raw() == found.gid() || user.groups.iter().any(|gid| gid.as_raw() == found.gid());
    found.uid() == user.uid.as_raw()
        || (is_in_group && found.mode() & 0o020 != 0)
        || found.mode() & 0o002 != 0
}

/// Returns the home or the directory on its path that the user can rename because the user may write its parent. In a
/// parent with the sticky bit, only owners may rename.
fn replaceable(user: &LaunchUser) -> Option<&Path> {
    user.home.ancestors().find(|step| {
        let (Some(parent), Ok(found)) = (step.parent(), fs::symlink_metadata(step)) else { return false };
        fs::metadata(parent).is_ok_and(|parent| {
            let is_owner = [parent.uid(), found.uid()].contains(&user.uid.as_raw());
            can_write(user, &parent) && (parent.mode() & STICKY == 0 || is_owner)
        })
    })
}

fn has_job(spool: &Path, uid: u32) -> bool {
    let jobs = fs::read_dir(spool).into_iter().flatten().flatten().take(MAX_JOBS);
    jobs.filter_map(|job| job.metadata().ok()).any(|found| found.is_file() && found.uid() == uid)
}

/// `agent convert-user`: converts accounts so that logins are impossible and no service trusts files that an agent
/// writes.
pub(super) fn convert(users: &[String], all: bool, output: &mut Output) -> Result<(), CliError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(UserError::NotRoot.into());
    }
    let agents = agents_dir();
    let made = if all { made_users(&agents) } else { Vec::new() };
    let mut converted = Vec::new();
    for name in users.iter().chain(&made) {
        let user = LaunchUser::find(name).map_err(|error| UserError::Lookup(error.to_string()))?;
        if let Some(line) = convert_one(&agents, &user)? {
            converted.push(line);
        }
    }
    if output.is_json() {
        return Ok(output.document(&converted)?);
    }
    converted.iter().try_for_each(|line| output.line(line))?;
    Ok(())
}

/// Returns the users whose homes are in the agents' directory, which `--create-user` created.
fn made_users(agents: &AgentsDir) -> Vec<String> {
    let entries = fs::read_dir(agents.path()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_made = |name: &String| {
        LaunchUser::find(name).is_ok_and(|user| user.name == *name && user.home == agents.passwd_home(name))
    };
    names.filter(is_made).collect()
}

/// Converts one account. Returns a description of the changes, or `None` if the account needed none.
fn convert_one(agents: &AgentsDir, user: &LaunchUser) -> Result<Option<String>, UserError> {
    let name = &user.name;
    let mut done = Vec::new();
    check_way(user)?;
    if !is_no_login(&user.shell) {
        run("usermod", &["--shell", crate::host::user::NO_LOGIN, name])?;
        done.push("its login shell was removed".to_owned());
    }
    check_mode(user)?;
    if move_home(agents, user)? {
        done.push(format!("the files of its home are at {}", agents.home(name).display()));
        if runs(user.uid.as_raw()) {
            done.push("restart its processes, which still use the old path".to_owned());
        }
    }
    let linger = Path::new("/var/lib/systemd/linger").join(name);
    if linger.is_file() {
        fs::remove_file(&linger).map_err(UserError::Home)?;
        done.push("lingering was turned off".to_owned());
    }
    Ok((!done.is_empty()).then(|| format!("user '{name}': {}", done.join("; "))))
}

/// Checks that only root can replace the home. Neither the home nor any directory on its path may be a link, and the
/// directories above it must belong to root and be writable only by root. Otherwise root could be made to move another
/// directory and change its owner.
fn check_way(user: &LaunchUser) -> Result<(), UserError> {
    let refused =
        |why: String| UserError::Exchangeable { user: user.name.clone(), home: user.home.clone(), why };
    if !user.home.is_absolute() || is_system(&user.home) {
        return Ok(());
    }
    for step in user.home.ancestors() {
        let Ok(found) = fs::symlink_metadata(step) else { return Ok(()) };
        if !found.is_dir() {
            return Err(refused(format!("{} is a link or not a directory", step.display())));
        }
        let is_roots = found.uid() == 0 && found.mode() & 0o022 == 0;
        if step != user.home && !is_roots {
            return Err(refused(format!("{} can be changed by users other than root", step.display())));
        }
    }
    Ok(())
}

/// Checks that this user cannot write a home that belongs to another user, which is not moved.
fn check_mode(user: &LaunchUser) -> Result<(), UserError> {
    match fs::metadata(&user.home) {
        Ok(home) if home.uid() != user.uid.as_raw() && can_write(user, &home) => {
            Err(UserError::WritableHome { user: user.name.clone(), home: user.home.clone() })
        }
        _ => Ok(()),
    }
}

/// Moves the files out of a home that its user can write, and leaves an empty directory that belongs to root.
fn move_home(agents: &AgentsDir, user: &LaunchUser) -> Result<bool, UserError> {
    let Ok(home) = fs::canonicalize(&user.home) else { return Ok(false) };
    let is_own = fs::metadata(&home).is_ok_and(|found| found.uid() == user.uid.as_raw());
    if !is_own || is_system(&home) {
        return Ok(false);
    }
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let target = agents.make_home(&user.name, uid, gid).map_err(UserError::Home)?;
    // This fails unless the directory is empty. Otherwise the agent has two homes.
    fs::remove_dir(&target).map_err(UserError::Home)?;
    match fs::rename(&home, &target) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_home(user, &home, &target)?,
        renamed => renamed.map_err(UserError::Home)?,
    }
    DirBuilder::new().mode(0o755).create(&home).map_err(UserError::Home)?;
    agents.make_home(&user.name, uid, gid).map_err(UserError::Home)?;
    Ok(true)
}

/// Copies the home to another file system. A process that runs meanwhile could change the files during the copy.
fn copy_home(user: &LaunchUser, home: &Path, target: &Path) -> Result<(), UserError> {
    if runs(user.uid.as_raw()) {
        return Err(UserError::Busy(user.name.clone()));
    }
    let (home, target) = (home.display().to_string(), target.display().to_string());
    program::run("mv", &["--no-target-directory", "--", &home, &target])
        .map_err(|message| UserError::Program { program: "mv", message })
}

/// Returns whether a process runs as this user.
fn runs(uid: u32) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered =
        processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    numbered.filter_map(|entry| entry.metadata().ok()).any(|found| found.uid() == uid)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::path::PathBuf;

    use nix::unistd::{Gid, Uid};

    use super::*;

    fn robot(home: PathBuf) -> LaunchUser {
        LaunchUser {
            name: "robot".to_owned(),
            uid: Uid::from_raw(990),
            gid: Gid::from_raw(991),
            groups: vec![Gid::from_raw(992)],
            home,
            shell: "/usr/sbin/nologin".into(),
        }
    }

    #[test]
    fn home_that_its_user_can_write_or_replace_is_reported() {
        if !nix::unistd::geteuid().is_root() {
            println!("not run: directories of other users (needs root)");
            return;
        }
        let dir = tempfile::tempdir_in("/var/lib").unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let home = dir.path().join("parent/home");
        fs::create_dir_all(&home).unwrap();
        let user = robot(home.clone());
        // Owner, group and mode of the home and of its parent directory.
        let check = |own: (u32, u32, u32), parent: (u32, u32, u32), expected: [bool; 2]| {
            for (path, (uid, gid, mode)) in [(home.as_path(), own), (home.parent().unwrap(), parent)] {
                chown(path, Some(uid), Some(gid)).unwrap();
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            let found = problems(&user);
            let says = |words: &str| found.iter().any(|problem| problem.contains(words));
            assert_eq!(
                [says("it can write"), says("it can replace")],
                expected,
                "{own:?} {parent:?}: {found:?}"
            );
            assert_eq!(check_mode(&user).is_err(), expected[0] && own.0 != 990, "{own:?}");
        };
        let roots = (0, 0, 0o755);
        check(roots, roots, [false, false]);
        check((990, 0, 0o755), roots, [true, false]);
        for group in [991, 992] {
            check((0, group, 0o775), roots, [true, false]);
            check(roots, (0, group, 0o775), [false, true]);
        }
        check((0, 7, 0o775), (0, 7, 0o775), [false, false]);
        check((0, 0, 0o757), roots, [true, false]);
        check(roots, (990, 0, 0o755), [false, true]);
        check(roots, (990, 0, 0o1755), [false, true]);
        check(roots, (0, 0, 0o777), [false, true]);
        check(roots, (0, 0, 0o1777), [false, false]);
        check((990, 0, 0o755), (0, 0, 0o1777), [true, true]);
    }
}
