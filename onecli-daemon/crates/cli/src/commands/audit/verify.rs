//! `onecli audit verify`.

use std::path::Path;

use onecli_audit::{Finding, Findings, Verification, Verified, VerifyError, verify};

use super::args::VerifyArgs;
use crate::error::CliError;
use crate::output::{Output, Progress, Unit};

pub(crate) fn run(args: VerifyArgs, output: &mut Output) -> Result<(), CliError> {
    let mut witnessed = Vec::new();
    for file in &args.witness {
        witnessed.extend(checkpoints(file)?);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = Verification { dir: args.dir, key: args.public_key, witnessed, from: args.from, threads };
    let found = Progress::during("verifying", Unit::Bytes, |progress| {
        verify(&wanted, &|done, total| progress.at(done, Some(total)))
    });
    match found {
        Ok(verified) => show(&verified, output),
        Err(VerifyError::Audit(error)) => Err(CliError::Audit(error)),
        Err(error @ VerifyError::NoSegment { .. }) => Err(CliError::Usage(error.to_string())),
        Err(VerifyError::Findings(found)) => Err(print_error(found, output)?),
    }
}

/// Reads the checkpoints of a file. A file without any is an error, because the user wants the log compared with it.
fn checkpoints(file: &Path) -> Result<Vec<String>, CliError> {
    let text = std::fs::read_to_string(file).map_err(|source| {
        CliError::Usage(format!("cannot read the checkpoints in {}: {source}", file.display()))
    })?;
    let notes = notes(&text);
    if notes.is_empty() {
        let file = file.display();
        return Err(CliError::Usage(format!(
            "there is no checkpoint in {file}, so it cannot verify anything\nhelp: use the file of \
             audit.witnesses, or its rotated copy"
        )));
    }
    Ok(notes)
}

/// Returns the notes in a file of appended checkpoints. Each begins with its origin and ends with its signatures, or is
/// a line of a syslog.
fn notes(text: &str) -> Vec<String> {
    let mut notes: Vec<String> = text.lines().filter_map(onecli_audit::from_single_line).collect();
    if !notes.is_empty() {
        return notes;
    }
    let mut note = String::new();
    let mut signed = false;
    for line in text.lines() {
        let signature = line.starts_with('\u{2014}');
        if signed && !signature {
            notes.push(std::mem::take(&mut note));
            signed = false;
            if line.is_empty() {
                continue;
            }
        }
        signed |= signature;
        note.push_str(line);
        note.push('\n');
    }
    if !note.trim().is_empty() {
        notes.push(note);
    }
    notes
}

fn show(verified: &Verified, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.document(&Answer {
            ok: true,
            verified: Some(verified),
            bad: None,
            found: None,
        })?);
    }
    let Verified { first, last, segments, signed, .. } = verified;
    output.line(&format!("verified: records {first} to {last} in {segments} segments, nothing changed"))?;
    output.line(&format!("signed:   up to {signed}, at {:.6}", verified.signed_at))?;
    if last > signed {
        output.line(&format!("          {} newer records are linked, but not signed yet", last - signed))?;
    }
    if let Some(from) = verified.from {
        output
            .line(&format!("from:     segment {from}, record {first}; earlier records were not verified"))?;
    } else if *first > 1 {
        output.line(&format!("pruned:   records 1 to {}, according to the log itself", first - 1))?;
    }
    if verified.unfinished > 0 {
        output
            .line(&format!("note:     {} bytes at the end are an incomplete record", verified.unfinished))?;
    }
    if verified.witnessed > 0 {
        output.line(&format!("witness:  {} checkpoints agree", verified.witnessed))?;
    }
    output.line(&format!("key:      {}", verified.key))?;
    if verified.key_from_log {
        output.line(
            "          from the log's own directory: an attacker who can replace all of it can replace the key.",
        )?;
        output.line("          Note it somewhere else, and pass it with --public-key.")?;
    }
    Ok(())
}

/// Prints the findings on standard output; the exit code is 1.
fn print_error(found: Box<Findings>, output: &mut Output) -> Result<CliError, CliError> {
    if output.is_json() {
        let bad = found.findings.first();
        output.document(&Answer { ok: false, verified: None, bad, found: Some(&found) })?;
        output.finish()?;
    }
    Ok(CliError::NotVerified(found))
}

#[derive(serde::Serialize)]
struct Answer<'a> {
    ok: bool,
    #[serde(flatten)]
    verified: Option<&'a Verified>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bad: Option<&'a Finding>,
    #[serde(flatten)]
    found: Option<&'a Findings>,
}

#[cfg(test)]
mod tests {
    /// An empty file must not pass as a successful verification.
    #[test]
    fn witness_without_checkpoints_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kept");
        for (text, count) in [("", None), ("\n \n", None), ("o\n1\nr\n\n\u{2014} o s1\n", Some(1))] {
            std::fs::write(&file, text).unwrap();
            let found = super::checkpoints(&file);
            assert_eq!(found.as_ref().ok().map(Vec::len), count, "{text:?}");
            if let Err(error) = found {
                assert!(error.to_string().contains("no checkpoint in"), "{error}");
            }
        }
    }

    #[test]
    fn notes_in_one_file_are_separated() {
        let note = |n: u8| format!("o\n{n}\nr\n\n\u{2014} o s{n}\n");
        assert_eq!(super::notes(&format!("{}{}", note(1), note(2))), [note(1), note(2)]);
        assert_eq!(super::notes(&format!("{}\n{}", note(1), note(2))), [note(1), note(2)]);
        assert!(super::notes("\n").is_empty());
        let logged =
            |n: u8| format!("Jan  2 host onecli-daemon: {}\n", onecli_audit::to_single_line(&note(n)));
        let syslog = format!("Jan  2 host sshd: hello\n{}{}", logged(1), logged(2));
        assert_eq!(super::notes(&syslog), [note(1), note(2)]);
    }
}
