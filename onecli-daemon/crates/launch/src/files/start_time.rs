//! The time at which a command starts, for comparison with the kernel's time stamps of files.

use onecli_model::Clock;

/// The kernel stamps files with a clock that is up to one tick late: 10 ms if it has 100 ticks a second.
const BEHIND: i64 = 10_000_000;
const SECOND: i64 = 1_000_000_000;

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StartTime(i64, i64);

impl StartTime {
    #[cfg(test)]
    pub(crate) const MAX: StartTime = StartTime(i64::MAX, 0);

    pub(crate) fn now(clock: &dyn Clock) -> StartTime {
        let now = clock.now();
        let nanoseconds = i64::from(now.subsec_nanosecond()) - BEHIND;
        StartTime(now.as_second() + nanoseconds.div_euclid(SECOND), nanoseconds.rem_euclid(SECOND))
    }

    /// Returns the whole second.
    pub(crate) fn second(self) -> i64 {
        self.0
    }

    /// Whether a file was stamped at this time or later. Some file systems store whole seconds.
    pub(crate) fn is_before(self, (second, nanosecond): (i64, i64)) -> bool {
        if nanosecond == 0 { second >= self.0 } else { (second, nanosecond) >= (self.0, self.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_compared_with_the_start() {
        let start = StartTime(5, 500_000_000);
        for (stamp, expected) in [
            ((5, 499_000_000), false),
            ((5, 500_000_000), true),
            ((6, 1), true),
            ((5, 0), true),
            ((4, 0), false),
        ] {
            assert_eq!(start.is_before(stamp), expected, "{stamp:?}");
        }
    }

    #[test]
    fn file_written_before_the_start_is_older() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = || {
            use std::os::unix::fs::MetadataExt as _;
            std::fs::write(dir.path().join("file"), "x").unwrap();
            let found = std::fs::metadata(dir.path().join("file")).unwrap();
            (found.ctime(), found.ctime_nsec())
        };
        let before = stamp();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let start = StartTime::now(&onecli_sys::SystemClock);
        assert!(!start.is_before(before) && start.is_before(stamp()));
    }
}
