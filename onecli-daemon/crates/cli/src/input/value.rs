//! Reads a credential from standard input, a file, or a prompt. Credentials never come from the command line, which
//! every process on the host can read.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use onecli_api::WireValue;
use onecli_model::SecretValue;
use onecli_model::secret::SecretValueError;
use zeroize::Zeroizing;

use super::value_args::ValueArgs;

/// Why no value was read. Never contains the value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValueError {
    /// Standard input is empty.
    #[error("no value given: standard input is empty\nhelp: pipe the value in, or use --value-file FILE")]
    NoSource,
    /// No option names a source for the passphrase, and there is no terminal for a prompt.
    #[error("no passphrase given, and there is no terminal for a prompt\nhelp: use --passphrase-file FILE")]
    NoPassphrase,
    /// The file cannot be read.
    #[error("cannot read the value from {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of open(2) or read(2).
        source: io::Error,
    },
    /// Standard input or the terminal cannot be read.
    #[error("cannot read the value: {0}")]
    Input(io::Error),
    /// The two answers at the prompt differ.
    #[error("the two values differ, so nothing was stored\nhelp: run the command again")]
    Mismatch,
    /// The file does not contain a key.
    #[error("{} does not contain a key, which is exactly 32 bytes\nhelp: 'head -c 32 /dev/urandom' generates one", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The value cannot be stored.
    #[error(transparent)]
    Bad(#[from] SecretValueError),
}

/// The read limit: the largest value plus a line ending. Longer input is refused, not truncated.
const READ_BOUND: usize = 16 * 1024 + 3;

pub(crate) fn read(args: &ValueArgs) -> Result<WireValue, ValueError> {
    let bytes = if let Some(path) = &args.value_file {
        let failed = |source| ValueError::File { path: path.clone(), source };
        bounded(File::open(path).map_err(failed)?).map_err(failed)?
    } else if io::stdin().is_terminal() && !args.value_stdin {
        prompt()?
    } else {
        let piped = bounded(io::stdin().lock()).map_err(ValueError::Input)?;
        if piped.is_empty() {
            return Err(ValueError::NoSource);
        }
        piped
    };
    Ok(WireValue(SecretValue::of_document(&bytes)?))
}

/// Reads a passphrase from a file, standard input (`-`), or a prompt, which asks twice for a new passphrase.
pub(crate) fn read_passphrase(file: Option<&Path>, is_new: bool) -> Result<WireValue, ValueError> {
    let bytes = match file {
        Some(path) if path == Path::new("-") => bounded(io::stdin().lock()).map_err(ValueError::Input)?,
        Some(path) => {
            let failed = |source| ValueError::File { path: path.to_owned(), source };
            bounded(File::open(path).map_err(failed)?).map_err(failed)?
        }
        None if !io::stdin().is_terminal() => return Err(ValueError::NoPassphrase),
        None => {
            let ask = |text| hidden(text).map_err(ValueError::Input);
            let first = ask("Passphrase (not shown): ")?;
            if is_new && *ask("Repeat it: ")? != *first {
                return Err(ValueError::Mismatch);
            }
            Zeroizing::new(first.as_bytes().to_vec())
        }
    };
    Ok(WireValue(SecretValue::of_document(&bytes)?))
}

fn bounded(source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_BOUND + 1));
    source.take(READ_BOUND as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Asks without echo. rpassword turns Ctrl-C into SIGINT before it restores the terminal, so the signal is delayed
/// until the terminal is restored.
fn hidden(question: &str) -> io::Result<Zeroizing<String>> {
    let interrupt: SigSet = [Signal::SIGINT].into_iter().collect();
    let before = interrupt.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let answer = rpassword::prompt_password(question).map(Zeroizing::new);
    before.thread_set_mask()?;
    answer
}

fn prompt() -> Result<Zeroizing<Vec<u8>>, ValueError> {
    let ask = |text| hidden(text).map_err(ValueError::Input);
    let first = ask("Value (not shown): ")?;
    if *ask("Repeat it: ")? != *first {
        return Err(ValueError::Mismatch);
    }
    Ok(Zeroizing::new(first.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_too_long_is_refused_not_truncated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read_back = |length: usize| {
            std::fs::write(file.path(), vec![b'a'; length]).unwrap();
            read(&ValueArgs { value_stdin: false, value_file: Some(file.path().to_owned()), force: false })
        };
        assert!(read_back(16 * 1024).is_ok());
        assert!(matches!(read_back(16 * 1024 + 1), Err(ValueError::Bad(SecretValueError::TooLong))));
        assert!(matches!(read_back(100_000), Err(ValueError::Bad(SecretValueError::TooLong))));
    }
}
