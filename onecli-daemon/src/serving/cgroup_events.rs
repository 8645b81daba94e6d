//! Events of the agents' cgroups (inotify(7)): a cgroup is created, or becomes populated or empty.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use onecli_model::CgroupName;

/// The number of cgroups watched for one agent: its own and the nested ones. The sweep finds changes in any others.
const MAX_OF_AGENT: usize = 256;

/// The file whose change signals that the cgroup became populated or empty (`populated`, cgroups(7)).
const EVENTS_FILE: &str = "cgroup.events";

/// Room for several dozen events, each with a name of up to 255 bytes.
const BUFFER: usize = 16 * 1024;

/// The pause after events could not be read. The sweep continues meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// Reports which agents' cgroups changed.
pub(super) struct Watch {
    events: EventStream<Vec<u8>>,
    root: PathBuf,
    watched: HashMap<WatchDescriptor, WatchTarget>,
    /// The number of watched cgroups of each agent.
    count: HashMap<CgroupName, usize>,
}

struct WatchTarget {
    agent: CgroupName,
    /// The directory; `None` for a file in it.
    directory: Option<PathBuf>,
}

impl Watch {
    /// Watches for new agents' cgroups. Must be called in a tokio runtime.
    pub(super) fn new(root: PathBuf) -> io::Result<Watch> {
        let events = Inotify::init()?.into_event_stream(vec![0; BUFFER])?;
        events.watches().add(&root, WatchMask::CREATE | WatchMask::ONLYDIR)?;
        Ok(Watch { events, root, watched: HashMap::new(), count: HashMap::new() })
    }

    /// Watches an agent's cgroup if it exists. Returns whether the watch is new.
    pub(super) fn add(&mut self, agent: &CgroupName) -> bool {
        !self.count.contains_key(agent) && self.add_tree(agent, &self.root.join(agent.as_str()))
    }

    /// Waits for a change in an agent's cgroups and returns the agent's cgroup name, or `None` for a change of the
    /// agents root. Cancel safe.
    pub(super) async fn changed(&mut self) -> Option<CgroupName> {
        loop {
            match self.events.next().await {
                Some(Ok(event)) if event.mask.contains(EventMask::IGNORED) => self.forget(&event),
                Some(Ok(event)) => return self.take(&event),
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot read events of the agents' cgroups");
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

    /// Drops the entries of a removed cgroup. The kernel removed its watches.
    fn forget(&mut self, event: &EventOwned) {
        let Some(WatchTarget { agent, directory: Some(_) }) = self.watched.remove(&event.wd) else { return };
        if let Some(count) = self.count.get_mut(&agent) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&agent);
            }
        }
    }

    /// Watches a cgroup and the cgroups that are currently nested in it.
    fn add_tree(&mut self, agent: &CgroupName, directory: &Path) -> bool {
        let mut pending = vec![directory.to_owned()];
        let mut any = false;
        while let Some(directory) = pending.pop() {
            if self.count.get(agent).is_some_and(|count| *count >= MAX_OF_AGENT) {
                break;
            }
            // Watch first, then list: a cgroup created in between appears in at least one of them.
            let Ok(true) = self.add_one(agent, &directory) else { continue };
            any = true;
            let nested = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            pending
                .extend(nested.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        any
    }

    /// Watches one cgroup. Returns `false` if it was already watched.
    fn add_one(&mut self, agent: &CgroupName, directory: &Path) -> io::Result<bool> {
        let mut events = self.events.watches();
        let wd = events.add(directory, WatchMask::CREATE | WatchMask::ONLYDIR)?;
        let watched = WatchTarget { agent: agent.clone(), directory: Some(directory.to_owned()) };
        if self.watched.insert(wd, watched).is_some() {
            return Ok(false);
        }
        *self.count.entry(agent.clone()).or_default() += 1;
        let file = events.add(directory.join(EVENTS_FILE), WatchMask::MODIFY)?;
        self.watched.insert(file, WatchTarget { agent: agent.clone(), directory: None });
        Ok(true)
    }
}
