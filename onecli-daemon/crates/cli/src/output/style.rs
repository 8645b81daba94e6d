//! Colours and weights. They appear only on a terminal that supports them, subject to `--color`, `NO_COLOR`, `CLICOLOR`
//! and `TERM`.

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

pub(super) const HEADING: Style = Style::new().bold();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const HELP: Style = AnsiColor::Cyan.on_default();

/// Returns whether style codes may be written to the stream.
pub(super) fn shows_colors(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Returns `text` in a style, or unchanged.
pub(super) fn painted(style: Style, text: &str, has_colors: bool) -> String {
    if has_colors { format!("{style}{text}{style:#}") } else { text.to_owned() }
}
