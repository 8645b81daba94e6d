//! A record of each running command, in a file that its worker locks (flock(2)).
//!
//! Other workers learn from it which agents may change a directory now. If the worker is killed, its lock is released,
//! and the next worker cleans up: it ends processes without a supervisor and their cgroup, and removes placeholders in
//! git directories.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::watched_directory::remove_placeholder;
use crate::files::tree::Tree;
use crate::host::agents_dir::AgentsDir;
use crate::process::cgroup;
use crate::text::shown;

/// Records that are read. The launcher starts at most 1,024 commands; root starts others.
const MAX_RECORDS: usize = 4096;
/// Largest record, bytes: the paths of its directories and placeholders (`MAX_PLACEHOLDER_BYTES` in `watched.rs`), each
/// byte as a number.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Time for processes to leave their cgroup after they are killed.
const KILL_TIME: Duration = Duration::from_secs(1);
/// Time for processes that end with the command.
const EXIT_TIME: Duration = Duration::from_millis(100);
/// Attempts to read a record that its worker may be writing.
const READS: usize = 500;
const READ_PAUSE: Duration = Duration::from_millis(2);
/// The kernel's id of this boot (random(4)). Ids of cgroups start again with each boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A directory that a command may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedDirectory {
    /// Its physical path.
    path: OsString,
    /// Device and inode.
    id: (u64, u64),
    /// Files and directories that were made in it for the time of the command, relative to it.
    placeholders: Vec<OsString>,
}

impl RecordedDirectory {
    pub(crate) fn new(path: &Path, id: (u64, u64), placeholders: &[PathBuf]) -> RecordedDirectory {
        let placeholders = placeholders.iter().map(|path| path.clone().into_os_string()).collect();
        RecordedDirectory { path: path.as_os_str().to_owned(), id, placeholders }
    }

    /// Whether one contains the other.
    fn overlaps(&self, other: &RecordedDirectory) -> bool {
        let (one, other) = (Path::new(&self.path), Path::new(&other.path));
        one.starts_with(other) || other.starts_with(one)
    }

    fn remove_placeholders(&self) {
        let Ok(opened) = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&self.path)
        else {
            return;
        };
        let found = opened.metadata().map(|found| (found.dev(), found.ino()));
        if found.is_ok_and(|id| id == self.id) {
            let tree = Tree::new(opened.into());
            for path in self.placeholders.iter().rev() {
                let _ = remove_placeholder(&tree, Path::new(path));
            }
        }
    }
}

/// The cgroup of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CommandCgroup {
    path: PathBuf,
    /// The inode of its directory. Another cgroup may have this path by now.
    inode: u64,
    /// The boot in which it has this inode.
    boot: String,
}

impl CommandCgroup {
    fn new(path: &Path) -> Option<CommandCgroup> {
        let inode = fs::metadata(path).ok()?.ino();
        Some(CommandCgroup { path: path.to_owned(), inode, boot: fs::read_to_string(BOOT).ok()? })
    }

    /// Kills the processes in it, and removes it.
    fn end(&self) {
        if CommandCgroup::new(&self.path).as_ref() == Some(self) {
            cgroup::kill(&self.path, KILL_TIME);
            cgroup::remove(&self.path);
        }
    }
}

/// The record of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The agent's name, for messages.
    agent: String,
    /// The user who started the command.
    uid: u32,
    /// The agent's cgroup.
    pub(crate) agent_cgroup: Option<PathBuf>,
    /// The file that is locked while the processes of that cgroup are stopped.
    pub(crate) lock: PathBuf,
    /// The directories that the command may change.
    places: Vec<RecordedDirectory>,
    /// The command's own cgroup.
    command: Option<CommandCgroup>,
}

impl Record {
    pub(crate) fn new(
        (agent, uid): (&str, u32),
        agent_cgroup: Option<PathBuf>,
        lock: PathBuf,
        places: Vec<RecordedDirectory>,
    ) -> Record {
        Record { agent: agent.to_owned(), uid, agent_cgroup, lock, places, command: None }
    }

    /// Whether the command may change no directory.
    pub(crate) fn changes_nothing(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether both commands may change a file.
    pub(crate) fn shares_places(&self, other: &Record) -> bool {
        self.places.iter().any(|place| other.places.iter().any(|theirs| place.overlaps(theirs)))
    }
}

/// A command of this process. Its record exists until this is dropped.
#[derive(Debug)]
pub(crate) struct Run {
    runs: PathBuf,
    path: PathBuf,
    file: File,
    is_left: bool,
    pub(crate) record: Record,
}

impl Run {
    /// Records a command in the directory `runs`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn begin(runs: &Path, record: Record) -> io::Result<Run> {
        for number in 0..MAX_RECORDS {
            let path = runs.join(format!("{}.{number}", std::process::id()));
            let file = match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            };
            // Another worker may have locked the empty file, as one of a killed worker.
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && file.metadata()?.nlink() == 1
            {
                let mut run = Run { runs: runs.to_owned(), path, file, is_left: false, record };
                run.write()?;
                return Ok(run);
            }
        }
        Err(io::Error::other(format!("{} holds too many records: remove them", runs.display())))
    }

    /// Records the directories that the command may change, with their placeholders.
    pub(crate) fn set_places(&mut self, places: Vec<RecordedDirectory>) -> io::Result<()> {
        self.record.places = places;
        self.write()
    }

    /// Records the command's cgroup, unless it is the agent's.
    pub(crate) fn set_cgroup(&mut self, cgroup: Option<&Path>) -> io::Result<()> {
        let own = cgroup.filter(|cgroup| Some(*cgroup) != self.record.agent_cgroup.as_deref());
        self.record.command = own.and_then(CommandCgroup::new);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.record)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::other("the paths of its directories are too long"));
        }
        self.file.rewind()?;
        self.file.write_all(&bytes)?;
        self.file.set_len(bytes.len() as u64)
    }

    /// Returns the records of the other running commands.
    ///
    /// # Errors
    /// A record cannot be read. Its command may change any directory.
    pub(crate) fn others(&self) -> io::Result<Vec<Record>> {
        let mut others = Vec::new();
        for path in files(&self.runs).into_iter().filter(|path| *path != self.path) {
            match look(&path) {
                None | Some((_, Some(_))) => {}
                Some((Some(record), None)) => others.push(record),
                Some((None, None)) => {
                    let what = format!("the record {} of a running command cannot be read", path.display());
                    return Err(io::Error::other(what));
                }
            }
        }
        Ok(others)
    }

    /// Whether another command may change the same files. This command's placeholders protect them there, too.
    fn is_shared(&self) -> bool {
        self.others().map_or(true, |others| others.iter().any(|other| other.shares_places(&self.record)))
    }

    /// Whether placeholders must remain although the command has ended: one of its processes may still use them, or
    /// another command.
    pub(crate) fn needs_placeholders(&self) -> bool {
        let is_used = |command: &CommandCgroup| !cgroup::is_empty_within(&command.path, EXIT_TIME);
        self.record.command.as_ref().is_some_and(is_used) || self.is_shared()
    }

    /// Leaves the record in place: the next [`clean`] removes the placeholders once no command needs them.
    pub(crate) fn leave_placeholders(&mut self) {
        self.is_left = true;
    }

    /// Removes the record of the command, which has no process left.
    pub(crate) fn end(mut self) {
        let runs = self.runs.clone();
        self.record.command = None;
        self.is_left &= self.write().is_ok();
        drop(self);
        for (_, line) in clean(&runs) {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.is_left {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Cleans up after commands whose worker was killed. Returns lines for the log.
pub fn clean_up(agents: &AgentsDir) -> Vec<String> {
    clean(&agents.runs()).into_iter().map(|(_, line)| line).collect()
}

/// Cleans up, and returns each line with the user who started the command.
pub(crate) fn clean(runs: &Path) -> Vec<(u32, String)> {
    let looked: Vec<_> = files(runs).into_iter().filter_map(|path| Some((look(&path)?, path))).collect();
    let running: Vec<&Record> = looked
        .iter()
        .filter(|((_, held), _)| held.is_none())
        .filter_map(|((record, _), _)| record.as_ref())
        .collect();
    // The command of an unread record may need placeholders of another.
    let is_any_unread = looked.iter().any(|((record, held), _)| record.is_none() && held.is_none());
    let mut lines = Vec::new();
    for ((record, held), path) in &looked {
        if held.is_none() {
            continue;
        }
        let Some(record) = record else {
            let _ = fs::remove_file(path);
            continue;
        };
        if let Some(command) = &record.command {
            command.end();
            lines.push((record.uid, line(record)));
        }
        if is_any_unread || running.iter().any(|other| other.shares_places(record)) {
            continue;
        }
        record.places.iter().for_each(RecordedDirectory::remove_placeholders);
        let _ = fs::remove_file(path);
    }
    lines
}

fn line(record: &Record) -> String {
    let places: Vec<String> = record.places.iter().map(|place| shown(Path::new(&place.path))).collect();
    format!(
        "a command of agent '{}' in {} lost its launcher and was killed; its changes were not reported: \
         check the files before you run anything there",
        record.agent,
        if places.is_empty() { "no directory".to_owned() } else { places.join(", ") }
    )
}

fn files(runs: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    entries.take(MAX_RECORDS).map(|entry| entry.path()).collect()
}

/// Reads a record. Returns its file, locked, if no worker holds it. `None` if the file is gone.
fn look(path: &Path) -> Option<(Option<Record>, Option<File>)> {
    let mut file = File::options().read(true).write(true).open(path).ok()?;
    let held = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(Errno::WOULDBLOCK) => false,
        Err(_) => return None,
    };
    for _ in 0..READS {
        let mut bytes = Vec::new();
        file.rewind().ok()?;
        (&mut file).take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        let record = serde_json::from_slice(&bytes).ok();
        if held || record.is_some() {
            return Some((record, held.then_some(file)));
        }
        std::thread::sleep(READ_PAUSE);
    }
    Some((None, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_record_counts_for_every_directory() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::new(("robot", 1), None, dir.path().join("start"), Vec::new());
        let run = Run::begin(dir.path(), record).unwrap();
        assert!(run.others().is_ok_and(|others| others.is_empty()) && !run.needs_placeholders());
        let path = dir.path().join("other");
        fs::write(&path, "{").unwrap();
        let other = File::open(&path).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(run.others().unwrap_err().to_string().contains("cannot be read"));
        assert!(run.needs_placeholders());
        // The record of a killed worker that had written nothing.
        drop(other);
        assert!(run.others().is_ok() && clean(dir.path()).is_empty() && !path.exists());
    }
}
