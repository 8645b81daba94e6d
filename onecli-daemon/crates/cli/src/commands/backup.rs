//! `onecli backup` and `onecli restore`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args as ClapArgs;
use onecli_api::routes;

use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, Progress, Unit};

/// The first bytes of a SQLite database (<https://sqlite.org/fileformat.html>, section 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Writes a backup. The file appears under its name only when it is complete and on disk.
pub(crate) fn backup(client: &Client, path: &Path, output: &mut Output) -> Result<(), CliError> {
    let failed = |source| CliError::File { path: path.to_owned(), source };
    if path.exists() {
        let what = "the file exists, and a backup never replaces a file: choose another name, or remove it";
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, what)));
    }
    let beside = TemporaryFile::create(path).map_err(failed)?;
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
        let result = serde_json::json!({ "file": path, "bytes": length });
        return Ok(output.document(&result)?);
    }
    output.line(&format!("wrote {} ({length} bytes)", path.display()))?;
    output.line(
        "the key is not in it: store the keys that open the vault ('onecli key status') in another place",
    )?;
    Ok(output.line("to test it: onecli restore --dry-run FILE, as root, with the daemon stopped")?)
}

/// Replace the database by a backup.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Stop the daemon and its socket first: a command that connects to the socket would start the daemon again. Run this as
root or as the daemon's user.

The command first checks the backup: its integrity, its tables, and whether this host's key opens it and every value in
it. The current database is retained in the same directory under another name; nothing is deleted. Audit records newer
than the backup are added to the database from the audit log when the daemon starts.

Example:
  sudo systemctl stop onecli-daemon.socket onecli-daemon.service
  sudo onecli restore --dry-run /srv/onecli-2026-01-31.db
  sudo onecli restore /srv/onecli-2026-01-31.db
  sudo systemctl start onecli-daemon.socket onecli-daemon.service")]
pub(crate) struct RestoreArgs {
    /// The backup file.
    pub(crate) file: PathBuf,
    /// Check the backup, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The daemon's configuration file, as passed to the daemon.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The daemon's data directory, as passed to the daemon.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A passphrase or recovery key that opens the backup.
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
}

/// A temporary file in the same directory, removed unless it is linked to its final name.
struct TemporaryFile {
    path: PathBuf,
    file: File,
}

impl TemporaryFile {
    fn create(path: &Path) -> io::Result<TemporaryFile> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut unfinished = name.to_owned();
        unfinished.push(format!(".{}.unfinished", std::process::id()));
        let path = path.with_file_name(unfinished);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(TemporaryFile { path, file })
    }

    /// Links the file to its final name. link(2) fails if the name exists. The temporary name is removed on drop.
    fn name(self, path: &Path) -> io::Result<()> {
        std::fs::hard_link(&self.path, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Replaces this process with the daemon's program, which knows its configuration and its vault. Returns only if that
/// fails.
pub(crate) fn restore(args: &RestoreArgs, json: bool) -> CliError {
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
