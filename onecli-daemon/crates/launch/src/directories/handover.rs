//! Decides, before a command starts, which of the caller's directories go into its view. The caller confirms new ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::fstat;
use onecli_model::AgentId;

use super::confirmed::Confirmed;
use super::decide::{DirectoryDecision, DirectoryOwner, DirectoryRequest, project};
use crate::error::LaunchError;
use crate::host::agents_dir::AgentsDir;
use crate::host::homes::Homes;
use crate::host::user::LaunchUser;
use crate::process::deadline::Deadline;
use crate::protocol::descriptors::RequestDescriptors;
use crate::protocol::wire::{ClientMessage, LauncherMessage, LauncherSocket, Project, Request};
use crate::text::shown;
use crate::view::place::HIDDEN;
use crate::view::project::{Directory, Mapped, MappingError};

/// Time for the caller to confirm a directory.
const ANSWER_TIME: Duration = Duration::from_mins(5);

/// Directories of the host's services and of the kernel. They contain no project.
const SERVICES: &[&str] = &["/run", "/var/run", "/proc", "/sys", "/dev"];
/// A directory below them in which every user may have a project.
const SHM: &str = "/dev/shm";
/// Directories of which the agent has its own.
const TMP: &[&str] = &["/tmp", "/var/tmp", SHM];

/// The input of the decision.
pub(crate) struct Handover<'a> {
    pub(crate) socket: &'a LauncherSocket,
    pub(crate) request: &'a Request,
    pub(crate) handed: &'a RequestDescriptors,
    pub(crate) giver: DirectoryOwner,
    pub(crate) user: &'a LaunchUser,
    pub(crate) agents: &'a AgentsDir,
    pub(crate) agent: AgentId,
    pub(crate) homes: &'a Homes,
    pub(crate) hidden: &'a [PathBuf],
}

impl Handover<'_> {
    /// Returns the directories, parents before their children.
    ///
    /// # Errors
    /// The reason why nothing is started, as a sentence.
    pub(crate) fn directories(&self) -> Result<Vec<Directory>, String> {
        if self.handed.shares.len() != self.request.shares.len() {
            return Err("the request declares another number of shared directories than it has".to_owned());
        }
        let shares = self.handed.shares.iter().zip(&self.request.shares);
        let mut all: Vec<_> =
            shares.map(|(fd, writable)| self.giver.share(fd, *writable)).collect::<Result<_, _>>()?;
        all.extend(self.project()?);
        for directory in &all {
            self.check_place(&directory.path)?;
        }
        // Stable: a project wins over a share of the same directory.
        all.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(all)
    }

    fn project(&self) -> Result<Option<Directory>, String> {
        let path = self.handed.path();
        let Ok(found) = fstat(&self.handed.directory) else { return Ok(None) };
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let kept = self.agents.make_agent(self.agent);
        let failed = |error| format!("cannot read the confirmed directories: {error}");
        let mut confirmed =
            kept.and_then(|kept| Confirmed::read(&kept, self.giver.caller.0)).map_err(failed)?;
        let decision = DirectoryRequest {
            project: self.request.project,
            path: &path,
            owner: found.st_uid,
            giver: self.giver.ids(&found).0,
            agent: self.user.uid.as_raw(),
            homes: self.homes,
            confirmed: confirmed.paths(),
        }
        .decide();
        let is_named = matches!(self.request.project, Project::Named { .. });
        let mut handed = project(found, &path, self.giver, is_named);
        // A directory in a confirmed project needs no entry of its own.
        let is_new = is_named || decision == DirectoryDecision::Ask;
        match decision {
            DirectoryDecision::Plain => return Ok(None),
            DirectoryDecision::Own => {
                handed.ids = None;
                return Ok(Some(handed));
            }
            DirectoryDecision::Refuse(why) => return Err(why),
            DirectoryDecision::Ask => self.ask(&path)?,
            DirectoryDecision::HandOver => {}
        }
        if is_new {
            confirmed
                .add(&path)
                .map_err(|error| format!("cannot store the confirmation of {}: {error}", shown(&path)))?;
        }
        let notice = format!("the agent works in {}", shown(&path));
        self.socket.send(&LauncherMessage::Notice(notice), &[]).map_err(|error| error.to_string())?;
        Ok(Some(handed))
    }

    /// Asks the caller, who answers on a terminal.
    fn ask(&self, path: &Path) -> Result<(), String> {
        self.socket
            .send(&LauncherMessage::Confirm(path.to_owned()), &[])
            .map_err(|error| error.to_string())?;
        let deadline = Deadline::after(ANSWER_TIME).map_err(|error| error.to_string())?;
        let answer = loop {
            match self.socket.receive_before::<ClientMessage>(&deadline) {
                Ok(Some((ClientMessage::Signal(_), _))) => {}
                Ok(Some((ClientMessage::Answer(answer), _))) => break answer,
                Ok(None) | Err(_) => break false,
            }
        };
        if answer {
            return Ok(());
        }
        let path = shown(path);
        Err(format!(
            "you have not confirmed {path} for agent '{}': do so on a terminal, or name it with --dir {path}",
            self.request.agent
        ))
    }

    /// Refuses directories with sockets of services, and those that the launcher hides. Otherwise they would enter the
    /// view here.
    fn check_place(&self, path: &Path) -> Result<(), String> {
        let in_services = SERVICES.iter().any(|place| path.starts_with(place)) && !path.starts_with(SHM);
        let kept: [&Path; 1] = [self.agents.path()];
        let hidden = self.hidden.iter().map(PathBuf::as_path).chain(HIDDEN.iter().map(Path::new)).chain(kept);
        let in_hidden = hidden.clone().any(|place| path.starts_with(place));
        let others = SERVICES.iter().chain(TMP).map(Path::new).chain(hidden);
        let holds = others.into_iter().any(|place| place.starts_with(path));
        if in_services || in_hidden || holds {
            return Err(format!(
                "{} is or contains files that an agent must not see: share a directory inside it",
                shown(path)
            ));
        }
        Ok(())
    }
}

/// Makes the mounts. A directory that is not required is left out if its file system cannot be mapped.
pub(crate) fn mapped<'d>(
    directories: &'d [Directory],
    user: &LaunchUser,
    notice: &mut dyn FnMut(&str),
) -> Result<Vec<Mapped<'d>>, LaunchError> {
    let mut all = Vec::new();
    for directory in directories {
        match Mapped::new(directory, user) {
            Ok(mapped) => {
                mapped.notice().iter().for_each(|text| notice(text));
                all.push(mapped);
            }
            Err(MappingError(why)) if directory.required => return Err(LaunchError::Project(why)),
            Err(MappingError(why)) => notice(&why),
        }
    }
    Ok(all)
}
