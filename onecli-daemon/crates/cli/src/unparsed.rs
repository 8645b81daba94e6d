//! Facts about a command line that does not parse.

use std::ffi::OsString;

use clap::{ColorChoice, ValueEnum as _};

/// Returns the value of `--color`, even from a command line that does not parse.
pub(super) fn color_of(arguments: &[OsString]) -> colorchoice_clap::Color {
    let mut color = colorchoice_clap::Color::default();
    let mut words =
        arguments.iter().skip(1).filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        let when = if word == "--color" { words.next() } else { word.strip_prefix("--color=") };
        if let Some(when) = when.and_then(|when| ColorChoice::from_str(when, false).ok()) {
            color.color = when;
        }
    }
    color
}

/// Returns whether `--json` occurs before the end of options. A program started by `run` may have the same option, so
/// after `run` only the options that directly follow it count.
pub(super) fn asks_for_json(arguments: &[OsString]) -> bool {
    let words = arguments.iter().skip(1).take_while(|word| *word != "--");
    if !names_run(arguments) {
        return words.into_iter().any(|word| word == "--json");
    }
    let mut follows_run = false;
    words
        .take_while(|word| {
            let is_ours = !follows_run || word.as_encoded_bytes().starts_with(b"-");
            follows_run |= *word == "run";
            is_ours
        })
        .any(|word| word == "--json")
}

/// Returns whether the command is `run`. Its usage errors have a distinct exit code, so that they are not mistaken for
/// those of CMD.
pub(super) fn names_run(arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--socket") => {
                words.next();
            }
            Some(option) if option.starts_with('-') => {}
            other => return other == Some("run"),
        }
    }
    false
}
