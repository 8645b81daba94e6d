//! The directories that `onecli run` passes to the agent, opened as the caller.

use std::fs::File;
use std::path::{Path, PathBuf};

use onecli_launch::{MAX_SHARES, Project, shown};
use onecli_model::recipe::Recipe;
use onecli_sys::trusted;

use super::args::RunArgs;

/// The directories to pass.
pub(crate) struct Directories {
    /// How the caller selected the project directory.
    pub(crate) project: Project,
    /// The directory in which the command starts.
    pub(crate) start: File,
    /// The other shared directories, and whether the agent may change them.
    pub(super) shares: Vec<(File, bool)>,
}

/// Opens the directories.
///
/// # Errors
/// The directory that cannot be passed, and the reason.
pub(crate) fn open(args: &RunArgs) -> Result<Directories, String> {
    let here = CurrentDirectory::find();
    let (project, start) = match &args.dir {
        Some(path) => {
            let (file, physical) = here.follow("--dir", path)?;
            (Project::Named { physical: path.is_absolute() && *path == physical }, file)
        }
        None => (if args.no_dir { Project::Plain } else { here.project() }, CurrentDirectory::open()?),
    };
    let named = args.share.iter().map(|path| ("--share", path, false));
    let named = named.chain(args.share_rw.iter().map(|path| ("--share-rw", path, true)));
    let shares = named.map(|(option, path, writable)| Ok((here.follow(option, path)?.0, writable)));
    let shares = shares.collect::<Result<Vec<_>, String>>()?;
    if shares.len() > MAX_SHARES {
        return Err(format!("at most {MAX_SHARES} directories can be shared with one command"));
    }
    Ok(Directories { project, start, shares })
}

/// Returns the directories of a recipe that exist in the caller's home. Directories behind a link that root did not
/// create are left out: another program may have created the link to share a different directory.
pub(super) fn recipe_directories(recipe: &Recipe) -> Vec<PathBuf> {
    let Some(home) = std::env::home_dir() else { return Vec::new() };
    let paths = recipe.share.iter().filter_map(|dir| dir.strip_prefix("~/")).map(|dir| home.join(dir));
    paths.filter(|path| trusted::directory(path).is_ok()).collect()
}

/// The current directory.
struct CurrentDirectory {
    physical: Option<PathBuf>,
    /// The path according to the shell, including links.
    logical: Option<PathBuf>,
}

impl CurrentDirectory {
    fn find() -> CurrentDirectory {
        let named = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
        let logical = named.filter(|path| is_same(path, Path::new(".")));
        CurrentDirectory { physical: std::env::current_dir().ok(), logical }
    }

    /// Returns whether a link that root did not create is part of the path in `$PWD`.
    fn project(&self) -> Project {
        let followed = |path: &PathBuf| trusted::directory(path).ok().map(|(_, physical)| physical);
        let linked = self.logical.as_ref().is_some_and(|path| followed(path) != self.physical);
        Project::Current { linked }
    }

    fn open() -> Result<File, String> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let open = |flags| File::options().read(true).custom_flags(libc::O_DIRECTORY | flags).open(".");
        // A command can start even in a directory that cannot be read.
        let opened = open(0).or_else(|_| open(libc::O_PATH));
        opened.map_err(|error| format!("cannot open the current directory: {error}"))
    }

    /// Opens a directory that an option names. A relative path starts at the shell's directory, and links in that
    /// directory's path count as well.
    fn follow(&self, option: &str, path: &Path) -> Result<(File, PathBuf), String> {
        let base = self.logical.as_ref().or(self.physical.as_ref());
        let absolute = base.map_or_else(|| path.to_owned(), |base| base.join(path));
        trusted::directory(&absolute).map_err(|why| {
            let hint = match std::fs::canonicalize(&absolute) {
                Ok(physical) if physical != absolute => {
                    format!("; its physical path is {}", shown(&physical))
                }
                _ => String::new(),
            };
            format!("cannot use {option} {}: {why}{hint}", shown(path))
        })
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    id(one).is_some() && id(one) == id(other)
}
