//! Progress of work that takes longer than a second, on standard error. It appears only on a terminal.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that ends within this time shows nothing.
const QUIET: Duration = Duration::from_secs(1);
/// The redraw interval.
const TICK: Duration = Duration::from_millis(250);

/// The unit of progress.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// Bytes, printed in MiB and similar units.
    Bytes,
    /// Items with this name.
    Items(&'static str),
    /// No unit: the work does not report progress.
    Unknown,
}

/// Displays the progress of some work.
pub(crate) struct Progress {
    label: &'static str,
    unit: Unit,
    /// Set after [`QUIET`].
    bar: OnceLock<ProgressBar>,
}

impl Progress {
    /// Runs `work`, which reports progress with [`Progress::at`]. The display disappears at the end.
    pub(crate) fn during<T>(label: &'static str, unit: Unit, work: impl FnOnce(&Progress) -> T) -> T {
        let progress = Progress { label, unit, bar: OnceLock::new() };
        if !io::stderr().is_terminal() {
            return work(&progress);
        }
        std::thread::scope(|scope| {
            // Dropped when the work ends, including by a panic. That ends the wait.
            let (_working, end) = channel::<()>();
            let progress = &progress;
            scope.spawn(move || {
                use std::sync::mpsc::RecvTimeoutError::Timeout;
                if end.recv_timeout(QUIET) == Err(Timeout) {
                    let bar = progress.bar.get_or_init(|| progress.new_bar());
                    bar.enable_steady_tick(TICK);
                    let _ = end.recv();
                    bar.finish_and_clear();
                }
            });
            work(progress)
        })
    }

    /// Reports that `done` is complete, of `total` if known.
    pub(crate) fn at(&self, done: u64, total: Option<u64>) {
        let Some(bar) = self.bar.get() else { return };
        if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
            bar.set_length(total);
            bar.set_style(self.style(true));
        }
        bar.set_position(done);
    }

    fn new_bar(&self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(self.style(false));
        bar.with_prefix(self.label)
    }

    fn style(&self, is_bounded: bool) -> ProgressStyle {
        let template = match (self.unit, is_bounded) {
            (Unit::Bytes, true) => "{prefix} {bar:30} {bytes} of {total_bytes}, {eta} left".to_owned(),
            (Unit::Bytes, false) => "{prefix} {spinner} {bytes}, {elapsed}".to_owned(),
            (Unit::Items(name), true) => {
                format!("{{prefix}} {{bar:30}} {{pos}} of {{len}} {name}, {{eta}} left")
            }
            (Unit::Items(name), false) => format!("{{prefix}} {{spinner}} {{pos}} {name}, {{elapsed}}"),
            (Unit::Unknown, _) => "{prefix} {spinner} {elapsed}".to_owned(),
        };
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_spinner())
    }
}
