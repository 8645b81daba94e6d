//! The executor's side: it takes commands from the daemon alone, and runs a few at a time.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{Uid, User};

use super::run::{self, Surroundings};
use super::{FAILED, PRINTED, Request};
use crate::app::error::{AppError, chain};
use crate::app::helper::service::{check, owner};
use crate::app::service as manager;
use crate::privilege::{self, Channel};

/// Commands that run at a time.
const MOST: usize = 16;
/// How long the daemon may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(2);

/// Becomes `user` and serves the daemon that forked this process, until it is gone.
pub(super) fn child(daemon: &Channel, user: &User) {
    let begun = privilege::become_user(user.uid, user.gid).and_then(|()| privilege::filter_executor());
    if let Err(error) = begun {
        tracing::error!(error = chain(&error), "the executor process cannot start");
        return;
    }
    let crew = Crew::new(Surroundings { user: user.name.clone(), home: user.dir.clone() });
    loop {
        match daemon.receive() {
            Ok(Some((message, descriptors))) => crew.take(&message, descriptors),
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the executor process cannot hear the daemon");
                break;
            }
        }
    }
    crew.end();
}

/// Serves daemons as a service of its own, of a user of its own, until it is killed.
pub(in crate::app) fn service(daemon_cgroup: &std::path::Path) -> Result<(), AppError> {
    let own = Uid::effective();
    if own.is_root() {
        return Err(AppError::Executor(
            "it runs commands, and must not be root: its unit has User=".to_owned(),
        ));
    }
    privilege::forbid_inspection()?;
    privilege::keep_capabilities(&[])?;
    let listener = match <[(String, OwnedFd); 1]>::try_from(privilege::inherited_sockets()) {
        Ok([(_, listener)]) => listener,
        Err(passed) => {
            let found = passed.len();
            return Err(AppError::Executor(format!(
                "it is started by onecli-executor.socket, with one socket; it was passed {found}"
            )));
        }
    };
    let daemon_user = owner(&listener).map_err(AppError::Socket)?;
    if daemon_user == own.as_raw() {
        return Err(AppError::Executor(
            "its user is the daemon's, who can read the root key: its unit has another User=".to_owned(),
        ));
    }
    let user = User::from_uid(own).ok().flatten();
    let (user, home) =
        user.map_or_else(|| (own.to_string(), PathBuf::from("/")), |user| (user.name, user.dir));
    let crew = Crew::new(Surroundings { user, home });
    privilege::filter_executor()?;
    manager::ready("commands are run");
    loop {
        let daemon = Channel::accept(&listener).map_err(AppError::Socket)?;
        if let Err(reason) = check(&daemon, daemon_user, daemon_cgroup) {
            tracing::warn!(reason, "a process that is not the daemon was refused");
            continue;
        }
        let asked = daemon.set_patience(PATIENCE).and_then(|()| daemon.receive());
        match asked {
            Ok(Some((message, descriptors))) => crew.take(&message, descriptors),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a daemon did not say what it wants"),
        }
    }
}

/// Threads that wait for commands.
struct Crew {
    surroundings: Arc<Surroundings>,
    busy: Arc<(Mutex<usize>, Condvar)>,
}

impl Crew {
    fn new(surroundings: Surroundings) -> Crew {
        Crew { surroundings: Arc::new(surroundings), busy: Arc::default() }
    }

    /// Does what a message says; the outcome goes into its descriptor.
    fn take(&self, message: &[u8], mut descriptors: Vec<OwnedFd>) {
        let (Ok(request), Some(outcome), true) =
            (serde_json::from_slice::<Request>(message), descriptors.pop(), descriptors.is_empty())
        else {
            tracing::warn!("what the daemon asks cannot be understood");
            return;
        };
        let outcome = File::from(outcome);
        let Some(place) = Place::take(&self.busy) else {
            tell(&outcome, FAILED, format!("{MOST} other commands run at this time").as_bytes());
            return;
        };
        let surroundings = Arc::clone(&self.surroundings);
        let started = std::thread::Builder::new().spawn(move || {
            let _place = place;
            match run::run(&request.command, &surroundings, &outcome) {
                Ok(printed) => tell(&outcome, PRINTED, &printed),
                Err(reason) => tell(&outcome, FAILED, reason.as_bytes()),
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "no thread can be started");
        }
    }

    /// Waits until nothing runs: commands are ended when nobody waits for what they print.
    fn end(&self) {
        let (busy, changed) = &*self.busy;
        let busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(busy, |busy| *busy > 0));
    }
}

/// One of [`MOST`].
struct Place(Arc<(Mutex<usize>, Condvar)>);

impl Place {
    fn take(all: &Arc<(Mutex<usize>, Condvar)>) -> Option<Place> {
        let mut busy = all.0.lock().unwrap_or_else(PoisonError::into_inner);
        (*busy < MOST).then(|| {
            *busy += 1;
            Place(Arc::clone(all))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.1.notify_all();
    }
}

/// Where nobody listens any more, nobody is told.
fn tell(mut outcome: &File, kind: u8, what: &[u8]) {
    let _ = outcome.write_all(&[kind]).and_then(|()| outcome.write_all(what));
}
