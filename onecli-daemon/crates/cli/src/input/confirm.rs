//! Questions to the user at the controlling terminal. They use `/dev/tty`, because standard input may be a pipe with a
//! value.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use nix::unistd::{getpgrp, tcgetpgrp};
use onecli_model::printable;

const TERMINAL: &str = "/dev/tty";
/// The longest answer in bytes. The rest of the line is ignored.
const MAX_ANSWER: usize = 4096;

/// Why a step was not confirmed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfirmError {
    /// There is no terminal, or another process group uses it (this is a background job).
    #[error(
        "nothing was changed: this needs confirmation, and there is no terminal to ask on\nhelp: add {option} \
         to continue without confirmation"
    )]
    NoTerminal {
        /// The option that answers yes.
        option: &'static str,
    },
    /// The answer was not yes.
    #[error("not confirmed; nothing was changed")]
    Declined,
    /// The terminal failed.
    #[error("cannot ask on {TERMINAL}: {0}")]
    Terminal(#[from] io::Error),
}

impl ConfirmError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            ConfirmError::NoTerminal { .. } => 2,
            ConfirmError::Declined | ConfirmError::Terminal(_) => 1,
        }
    }
}

/// Asks `question` followed by `[y/N]`, unless `option` was given.
///
/// # Errors
/// The answer is no, or there is no terminal.
pub(crate) fn confirm(question: &str, option: &'static str, given: bool) -> Result<(), ConfirmError> {
    if given {
        return Ok(());
    }
    let mut terminal = Terminal::open().ok_or(ConfirmError::NoTerminal { option })?;
    if terminal.agrees(question, false)? { Ok(()) } else { Err(ConfirmError::Declined) }
}

/// The controlling terminal.
pub(crate) struct Terminal(File);

impl Terminal {
    /// Opens the terminal. `None` if the process has none or runs in the background, where a read would stop it.
    pub(crate) fn open() -> Option<Terminal> {
        let file = File::options().read(true).write(true).open(TERMINAL).ok()?;
        (tcgetpgrp(&file) == Ok(getpgrp())).then_some(Terminal(file))
    }

    /// Reads one line and trims white space. The end of the input is an error.
    pub(crate) fn ask(&mut self, question: &str) -> io::Result<String> {
        write!(self.0, "{} ", printable(question))?;
        let line = self.line()?;
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }

    /// Asks until the answer is yes, no or empty; empty selects `default`.
    pub(crate) fn agrees(&mut self, question: &str, default: bool) -> io::Result<bool> {
        let choices = if default { "[Y/n]" } else { "[y/N]" };
        loop {
            if let Some(answer) = parse(&self.ask(&format!("{question} {choices}"))?, default) {
                return Ok(answer);
            }
        }
    }

    /// Reads byte by byte, so that later input remains for the next reader of the terminal.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match self.0.read(&mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if byte == *b"\n" => return Ok(line),
                Ok(_) if line.len() < MAX_ANSWER => line.extend(byte),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn parse(answer: &str, default: bool) -> Option<bool> {
    match answer.to_ascii_lowercase().as_str() {
        "" => Some(default),
        "y" | "yes" => Some(true),
        "n" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_and_no_are_answers() {
        let answers = ["y", "YES", "n", "No", "", "yess", "j"].map(|answer| parse(answer, false));
        assert_eq!(answers, [Some(true), Some(true), Some(false), Some(false), Some(false), None, None]);
        assert_eq!(parse("", true), Some(true));
    }

    #[test]
    fn option_confirms_without_a_terminal() {
        assert!(confirm("Replace it?", "--force", true).is_ok());
    }
}
