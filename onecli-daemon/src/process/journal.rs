//! Destinations of the daemon's own log: standard error, and for alerts also the journal, with one field for each
//! part.

use nix::sys::stat::fstat;
use onecli_audit::ALERT_TARGET;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// Device and inode of the journal stream. The service manager sets it if it connects standard error to the journal
/// (systemd.exec(5)).
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// The prefix of each field name in the journal.
const PREFIX: &str = "ONECLI";

/// Starts the log. Alerts go to standard error as well if no journal is connected to it.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_env("ONECLI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let journal = journal();
    let is_elsewhere = journal.is_some();
    let text = tracing_subscriber::fmt::layer()
        .with_ansi(colour)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_filter(filter_fn(move |event| !(is_elsewhere && is_alert(event))))
        .with_filter(filter);
    // A second call, in a test, leaves the first log in place.
    let _ = tracing_subscriber::registry().with(text).with(journal).try_init();
}

/// Returns the journal layer for alerts. `None` if standard error is not connected to the journal, or no process
/// receives at the journal's socket.
fn journal<S: Subscriber + for<'s> LookupSpan<'s>>() -> Option<impl Layer<S>> {
    let stream = std::env::var(JOURNAL_STREAM).ok()?;
    let stderr = fstat(std::io::stderr()).ok()?;
    if stream != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
        return None;
    }
    let journal = tracing_journald::layer().ok()?;
    let journal =
        journal.with_field_prefix(Some(PREFIX.to_owned())).with_syslog_identifier("onecli-daemon".to_owned());
    Some(journal.with_filter(filter_fn(is_alert)))
}

fn is_alert(event: &Metadata<'_>) -> bool {
    event.target() == ALERT_TARGET
}
