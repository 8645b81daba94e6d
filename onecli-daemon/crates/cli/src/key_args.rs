//! What `key` and `restore` take.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
The root key opens everything that is stored. It is sealed in slots, each of which another key opens; the daemon needs one
of them when it starts. It looks, in this order, at:
  the credential 'onecli.key' (LoadCredentialEncrypted= in its unit)      a key
  root.key in its data directory                                          a key, made at the first start
  the credential 'onecli.passphrase', then --passphrase-file              a passphrase or recovery key
  ONECLI_ROOT_KEY, only with --insecure-key-from-env                      a key in base64

From a key file to a TPM-bound credential:
  systemd-creds encrypt --name=onecli.key /var/lib/onecli/root.key /etc/credstore.encrypted/onecli.key
  (LoadCredentialEncrypted=onecli.key in a drop-in of the unit, restart, keep the file elsewhere)")]
pub(super) enum KeyCommand {
    /// Root key, slots, and how far a new root key is.
    Status,
    /// Make a new key file in the daemon's data directory, and a slot for it.
    AddKeyFile,
    /// Add a slot for a key of your own, to be given to the daemon as a credential.
    AddKey {
        /// 32 random bytes; '-' for standard input.
        file: PathBuf,
    },
    /// Add a slot for a passphrase (Argon2id).
    AddPassphrase {
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Add a slot for a recovery key, which is printed once.
    AddRecovery,
    /// Remove a slot. The daemon refuses if it could not start again.
    RemoveSlot {
        /// Its number.
        number: u32,
    },
    /// Give the vault a new root key while it serves. Recovery keys are replaced: the new ones are printed once.
    ///
    /// Every value is sealed anew under it, in the background; both keys are usable until that is done, and a daemon that
    /// is killed goes on where it was. Tokens and placeholders stay as they are. The key file gets a new key, recovery keys
    /// are made anew and printed, passphrases are asked for.
    ///
    /// Backups made before open only with a copy of the old root.key, which is overwritten: copy it first.
    ///
    /// Whoever had the old key and a copy of the database knows the values: after a theft, rotate these as well.
    Rotate {
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// Drop slots whose keys are not there.
        #[arg(long)]
        drop_other_slots: bool,
        /// Do not wait until it is done.
        #[arg(long)]
        no_wait: bool,
    },
}

/// Where a passphrase is read from. Without it, a terminal is prompted.
#[derive(Debug, ClapArgs)]
pub(super) struct PassphraseArgs {
    /// Read the passphrase from a file; '-' for standard input.
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
}

/// Put a backup in the database's place.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Run as root, or as the daemon's user, with the daemon and its socket stopped: a command that connects to the socket would
start the daemon again. The backup is checked first: its integrity, its tables, whether the key
that is here opens it, and whether every value in it opens. The database that was there is kept beside it under another
name; nothing is deleted. A backup is older than the audit log: what the log has and the database has not is added when
the daemon starts.

Example:
  sudo systemctl stop onecli-daemon.socket onecli-daemon.service
  sudo onecli restore --dry-run /srv/onecli-2026-01-31.db
  sudo onecli restore /srv/onecli-2026-01-31.db
  sudo systemctl start onecli-daemon.socket onecli-daemon.service")]
pub(super) struct RestoreArgs {
    /// The backup.
    pub(super) file: PathBuf,
    /// Check, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The daemon's configuration, as it is given to the daemon.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The daemon's data directory, as it is given to the daemon.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// A passphrase or recovery key that opens the backup.
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
}
