//! The text of the faults that `onecli audit verify` found.

use onecli_audit::Findings;

pub(super) fn describe(found: &Findings) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    for (at, bad) in found.findings.iter().enumerate() {
        let _ = write!(text, "  {bad}");
        if let Some(seq) = bad.seq {
            let label = if at == 0 { "first bad record" } else { "record" };
            let _ = write!(text, "\n    {label}: {seq}");
        }
        if let Some(time) = &bad.time {
            let _ = write!(text, ", of {time}");
        }
        text.push('\n');
    }
    if found.more > 0 {
        let _ = writeln!(text, "  and {} more", found.more);
    }
    match found.good_from {
        Some(from) => {
            let _ = write!(
                text,
                "help: copy the directory; after you have investigated and noted this, '--from {from}' \
                 verifies the later records"
            );
        }
        None => text.push_str("help: copy the directory before any other step"),
    }
    text
}
