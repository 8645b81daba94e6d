//! Times in the form "3 minutes ago".

use jiff::{SignedDuration, Timestamp};

/// The unit, its length in seconds, and the smallest number of seconds for which it is used.
const UNITS: [(&str, i64, i64); 4] =
    [("day", 86_400, 2 * 86_400), ("hour", 3_600, 2 * 3_600), ("minute", 60, 2 * 60), ("second", 1, 1)];

/// Returns `time` relative to `now`, in one unit, rounded down.
pub(super) fn relative(time: Timestamp, now: Timestamp) -> String {
    let apart = now.duration_since(time);
    match length(apart.abs()) {
        None => "just now".to_owned(),
        Some(length) if apart.is_negative() => format!("in {length}"),
        Some(length) => format!("{length} ago"),
    }
}

fn length(apart: SignedDuration) -> Option<String> {
    let seconds = apart.as_secs();
    let (name, unit, _) = UNITS.into_iter().find(|(_, _, from)| seconds >= *from)?;
    let count = seconds / unit;
    let plural = if count == 1 { "" } else { "s" };
    Some(format!("{count} {name}{plural}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_in_one_unit() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let check = |time: &str, expected: &str| {
            assert_eq!(relative(time.parse().unwrap(), now), expected, "{time}");
        };
        check("2026-01-31T12:00:00Z", "just now");
        check("2026-01-31T11:59:59.5Z", "just now");
        check("2026-01-31T11:59:59Z", "1 second ago");
        check("2026-01-31T11:58:01Z", "119 seconds ago");
        check("2026-01-31T11:57:00Z", "3 minutes ago");
        check("2026-01-31T09:30:00Z", "2 hours ago");
        check("2026-01-30T12:00:00Z", "24 hours ago");
        check("2025-12-31T12:00:00Z", "31 days ago");
        check("2026-01-31T12:04:30Z", "in 4 minutes");
    }
}
