//! `onecli backup` and `onecli restore`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use onecli_api::routes;

use super::CliError;
use super::client::Client;
use super::key_args::RestoreArgs;
use super::output::{Output, Progress, Unit};

/// The first bytes of a SQLite database (<https://sqlite.org/fileformat.html>, section 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Writes a backup. The file appears under its name only when it is complete and on disk.
pub(super) fn backup(client: &Client, path: &Path, output: &mut Output) -> Result<(), CliError> {
    let failed = |source| CliError::File { path: path.to_owned(), source };
    if path.exists() {
        let what = "the file exists, and a backup never replaces a file: choose another name, or remove it";
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, what)));
    }
    let beside = Beside::create(path).map_err(failed)?;
    let mut file = &beside.file;
    let (mut length, mut start) = (0_u64, Vec::new());
    Progress::during("copying", Unit::Bytes, |progress| {
        client.bytes(routes::BACKUP, |bytes| {
            length += bytes.len() as u64;
            if start.len() < MAGIC.len() {
                start.extend_from_slice(&bytes[..bytes.len().min(MAGIC.len() - start.len())]);
            }
            progress.at(length, None);
            file.write_all(bytes).map_err(failed)
        })
    })?;
    if start != MAGIC {
        return Err(failed(io::Error::other("the daemon's response is not a copy of its database")));
    }
    file.sync_all().map_err(failed)?;
    beside.name(path).map_err(failed)?;
    if output.is_json() {
        let told = serde_json::json!({ "file": path, "bytes": length });
        return Ok(output.document(&told)?);
    }
    output.line(&format!("wrote {} ({length} bytes)", path.display()))?;
    output.line(
        "the key is not in it: store the keys that open the vault ('onecli key status') in another place",
    )?;
    Ok(output.line("to test it: onecli restore --dry-run FILE, as root, with the daemon stopped")?)
}

/// A temporary file in the same directory, removed unless it is linked to its final name.
struct Beside {
    path: PathBuf,
    file: File,
}

impl Beside {
    fn create(path: &Path) -> io::Result<Beside> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut unfinished = name.to_owned();
        unfinished.push(format!(".{}.unfinished", std::process::id()));
        let path = path.with_file_name(unfinished);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Beside { path, file })
    }

    /// Links the file to its final name. link(2) fails if the name exists. The temporary name is removed on drop.
    fn name(self, path: &Path) -> io::Result<()> {
        std::fs::hard_link(&self.path, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Replaces this process with the daemon's program, which knows its configuration and its vault. Returns only if that
/// fails.
pub(super) fn restore(args: &RestoreArgs, json: bool) -> CliError {
    let program = std::env::current_exe()
        .ok()
        .map(|ours| ours.with_file_name("onecli-daemon"))
        .filter(|beside| beside.exists())
        .unwrap_or_else(|| PathBuf::from("onecli-daemon"));
    let mut command = Command::new(&program);
    command.arg("--restore").arg(&args.file);
    if args.dry_run {
        command.arg("--dry-run");
    }
    if json {
        command.arg("--json");
    }
    for (option, value) in [
        ("--config", &args.config),
        ("--data-dir", &args.data_dir),
        ("--passphrase-file", &args.passphrase_file),
    ] {
        if let Some(value) = value {
            command.arg(option).arg(value);
        }
    }
    CliError::File { path: program, source: command.exec() }
}
