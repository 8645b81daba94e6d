//! The command lines of `onecli key` and `onecli restore`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
The root key decrypts all stored values. It is sealed in slots, each of which opens with a different key. The daemon
needs one of these keys when it starts. It tries the following sources in this order:
  the credential 'onecli.key' (LoadCredentialEncrypted= in its unit)      a key
  root.key in its data directory                                          a key, created at the first start
  the credential 'onecli.passphrase', then --passphrase-file              a passphrase or recovery key
  ONECLI_ROOT_KEY, only with --insecure-key-from-env                      a key in base64

From a key file to a TPM-bound credential:
  systemd-creds encrypt --name=onecli.key /var/lib/onecli/root.key /etc/credstore.encrypted/onecli.key
  (then set LoadCredentialEncrypted=onecli.key in a drop-in of the unit, restart, and move the file elsewhere)")]
pub(crate) enum KeyCommand {
    /// Show the root key, its slots, and the progress of a rotation.
    Status,
    /// Create a new key file in the daemon's data directory, and a slot for it.
    AddKeyFile,
    /// Add a slot for a key of your own, which you pass to the daemon as a credential.
    AddKey {
        /// A file with 32 random bytes; '-' for standard input.
        file: PathBuf,
    },
    /// Add a slot for a passphrase (Argon2id).
    AddPassphrase {
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Add a slot for a recovery key, which is printed once.
    AddRecovery,
    /// Remove a slot. The daemon refuses if it could not start without it.
    RemoveSlot {
        /// The slot's number.
        number: u32,
    },
    /// Replace the vault's root key while the daemon runs. Recovery keys are replaced as well: the new ones are printed
    /// once.
    ///
    /// Earlier backups open only with a copy of the old root.key, which is overwritten: copy it first.
    ///
    /// The daemon seals every value again under the new key, in the background. Both keys work until that is done, and
    /// a killed daemon resumes after its restart. Tokens and placeholders stay unchanged. The key file gets a new key,
    /// recovery keys are generated again and printed, and passphrases are prompted for.
    ///
    /// An attacker with the old key and a copy of the database knows the values: after a theft, rotate the credentials
    /// as well.
    Rotate {
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// Drop slots whose keys are not available.
        #[arg(long)]
        drop_other_slots: bool,
        /// Do not wait for completion.
        #[arg(long)]
        no_wait: bool,
    },
}

/// The source of a passphrase. Default: a prompt on the terminal.
#[derive(Debug, ClapArgs)]
pub(crate) struct PassphraseArgs {
    /// Read the passphrase from a file; '-' for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}
