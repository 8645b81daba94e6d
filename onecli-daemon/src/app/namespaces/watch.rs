//! Events of the agents' cgroups (inotify(7)): a cgroup is made, or becomes populated or empty.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use onecli_model::CgroupName;

/// Cgroups watched for one agent, its own and those nested in it. The sweep finds what happens in further ones.
const MAX_OF_AGENT: usize = 256;

/// The kernel notifies of a change of its `populated` (cgroups(7)).
const EVENTS_FILE: &str = "cgroup.events";

/// Room for some dozens of events, each with a name of up to 255 bytes.
const BUFFER: usize = 16 * 1024;

/// After events could not be read: the sweep goes on without.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells which agents' cgroups changed.
pub(super) struct Watch {
    events: EventStream<Vec<u8>>,
    root: PathBuf,
    watched: HashMap<WatchDescriptor, Watched>,
    /// Cgroups watched, by agent.
    count: HashMap<CgroupName, usize>,
}

struct Watched {
    agent: CgroupName,
    /// The directory; `None` for a file in it.
    directory: Option<PathBuf>,
}

impl Watch {
    /// Watches for new agents' cgroups. Call it in a tokio runtime.
    pub(super) fn new(root: PathBuf) -> io::Result<Watch> {
        let events = Inotify::init()?.into_event_stream(vec![0; BUFFER])?;
        events.watches().add(&root, WatchMask::CREATE | WatchMask::ONLYDIR)?;
        Ok(Watch { events, root, watched: HashMap::new(), count: HashMap::new() })
    }

    /// Watches an agent's cgroup if it is there; says whether it was not watched before.
    pub(super) fn add(&mut self, agent: &CgroupName) -> bool {
        !self.count.contains_key(agent) && self.add_tree(agent, &self.root.join(agent.as_str()))
    }

    /// Waits for a change in an agent's cgroups, and gives its name; `None` for one of the agents root. Safe to cancel.
    pub(super) async fn changed(&mut self) -> Option<CgroupName> {
        loop {
            match self.events.next().await {
                Some(Ok(event)) if event.mask.contains(EventMask::IGNORED) => self.forget(&event),
                Some(Ok(event)) => return self.take(&event),
                Some(Err(error)) => {
                    tracing::warn!(%error, "events of the agents' cgroups cannot be read");
                    tokio::time::sleep(PAUSE).await;
                }
                None => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, event: &EventOwned) -> Option<CgroupName> {
        let watched = self.watched.get(&event.wd)?;
        let agent = watched.agent.clone();
        if event.mask.contains(EventMask::CREATE | EventMask::ISDIR)
            && let (Some(directory), Some(name)) = (&watched.directory, &event.name)
        {
            let nested = directory.join(name);
            self.add_tree(&agent, &nested);
        }
        Some(agent)
    }

    /// A cgroup was removed, and its watches with it.
    fn forget(&mut self, event: &EventOwned) {
        let Some(Watched { agent, directory: Some(_) }) = self.watched.remove(&event.wd) else { return };
        if let Some(count) = self.count.get_mut(&agent) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&agent);
            }
        }
    }

    /// Watches a cgroup and what is nested in it by now.
    fn add_tree(&mut self, agent: &CgroupName, directory: &Path) -> bool {
        let mut pending = vec![directory.to_owned()];
        let mut any = false;
        while let Some(directory) = pending.pop() {
            if self.count.get(agent).is_some_and(|count| *count >= MAX_OF_AGENT) {
                break;
            }
            // First the watch, then the list: what is made in between is in one of them.
            let Ok(true) = self.add_one(agent, &directory) else { continue };
            any = true;
            let nested = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            pending
                .extend(nested.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        any
    }

    /// Watches one cgroup; `false` if it was watched already.
    fn add_one(&mut self, agent: &CgroupName, directory: &Path) -> io::Result<bool> {
        let mut events = self.events.watches();
        let wd = events.add(directory, WatchMask::CREATE | WatchMask::ONLYDIR)?;
        let watched = Watched { agent: agent.clone(), directory: Some(directory.to_owned()) };
        if self.watched.insert(wd, watched).is_some() {
            return Ok(false);
        }
        *self.count.entry(agent.clone()).or_default() += 1;
        let file = events.add(directory.join(EVENTS_FILE), WatchMask::MODIFY)?;
        self.watched.insert(file, Watched { agent: agent.clone(), directory: None });
        Ok(true)
    }
}
