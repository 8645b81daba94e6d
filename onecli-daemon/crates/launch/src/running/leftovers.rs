//! Reports files that an agent left in a project and that would run with its owner's rights.
//!
//! `seccomp` and `devices` close the ways to make such files. This is the second layer: it warns the caller before a
//! user runs one.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use onecli_sys::SystemClock;

use crate::files::mount::open_same;
use crate::files::set_id::{Fault, Findings, FlaggedFile, Search};
use crate::files::start_time::StartTime;
use crate::host::user::LaunchUser;
use crate::text::shown;
use crate::view::project::Directory;

/// Files that a report names. Further ones are counted.
const MAX_NAMED: usize = 10;

/// The directories that an agent may change, from the start of its command.
#[derive(Debug)]
pub(crate) struct Leftovers {
    since: StartTime,
    places: Vec<SearchedDirectory>,
}

#[derive(Debug)]
struct SearchedDirectory {
    opened: OwnedFd,
    /// The path for messages.
    path: PathBuf,
    /// Users to whom files may belong.
    owners: Vec<u32>,
}

impl Leftovers {
    /// Opens the directories. One that cannot be opened cannot be mapped either.
    pub(crate) fn of(directories: &[Directory], user: &LaunchUser) -> Leftovers {
        let writable = directories.iter().filter(|directory| directory.writable);
        let places = writable.filter_map(|directory| {
            let opened = open_same(&directory.path, &directory.found).ok()?.into();
            let owners = match directory.ids {
                Some((uid, _)) => vec![uid, directory.found.st_uid],
                None => vec![user.uid.as_raw(), directory.found.st_uid],
            };
            Some(SearchedDirectory { opened, path: directory.path.clone(), owners })
        });
        Leftovers { since: StartTime::now(&SystemClock), places: places.collect() }
    }

    /// Searches for such files. Returns lines for the caller; none if there are no such files.
    pub(crate) fn report(&self) -> Vec<String> {
        self.places.iter().flat_map(|place| place.report(self.since)).collect()
    }
}

impl SearchedDirectory {
    fn report(&self, since: StartTime) -> Vec<String> {
        let search = Search { since: Some(since), owners: Some(self.owners.clone()) };
        let path = shown(&self.path);
        match search.through(self.opened.as_fd()) {
            Ok(found) => self.lines(&found),
            Err(error) => vec![format!("cannot search {path} for set-user-ID files: {error}")],
        }
    }

    fn lines(&self, found: &Findings) -> Vec<String> {
        let mut lines: Vec<String> = found.files.iter().take(MAX_NAMED).map(|file| self.line(file)).collect();
        let others = found.files.len() - lines.len() + found.more;
        let path = shown(&self.path);
        if others > 0 {
            lines.push(format!("WARNING: {others} more such files in {path}"));
        }
        if let Some(why) = found.cut_off {
            lines.push(format!("{path} has {why}: not all of it was searched for set-user-ID files"));
        }
        lines
    }

    fn line(&self, file: &FlaggedFile) -> String {
        let what = match file.fault {
            Fault::SetId => "it runs with its owner's rights (set-user-ID or set-group-ID)",
            Fault::Capability => "it has file capabilities",
            Fault::ForeignOwner => "it belongs to another user",
        };
        let path = self.path.join(&file.path);
        format!("WARNING: \"{}\" was made or changed during this run, and {what}", shown(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_names_a_few_files_and_escapes_their_names() {
        let opened = std::fs::File::open("/").unwrap().into();
        let place = SearchedDirectory { opened, path: "/p".into(), owners: vec![] };
        let file = |name: &str| FlaggedFile { path: name.into(), fault: Fault::SetId, id: (0, 0) };
        let mut found = Findings { files: vec![file("x\u{1b}[2J\u{202e}y")], ..Findings::default() };
        assert_eq!(
            place.lines(&found),
            [
                r#"WARNING: "/p/x\u{1b}[2J\u{202e}y" was made or changed during this run, and it runs with its owner's rights (set-user-ID or set-group-ID)"#
            ]
        );
        found.files = vec![file("x"); 12];
        found.more = 3;
        found.cut_off = Some("more than 4 million entries");
        let lines = place.lines(&found);
        assert_eq!(lines.len(), 12);
        assert_eq!(lines[10], "WARNING: 5 more such files in /p");
        assert!(lines[11].contains("not all of it was searched"), "{lines:?}");
        assert!(place.lines(&Findings::default()).is_empty());
        let place = SearchedDirectory { path: "/p\u{1b}[2J\u{202e}".into(), ..place };
        for line in place.lines(&found) {
            assert!(line.contains("/p\\u{1b}[2J\\u{202e}"), "{line:?}");
        }
    }
}
