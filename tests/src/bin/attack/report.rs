//! The printed table and its verdict.

use std::fmt;

use crate::stage::row::{Row, Trial, Verdict};

/// The document that lists every technique. Rows listed in its section about open techniques may be open.
pub(crate) const DOCUMENT: &str = include_str!("../../../../docs/security/attacks.md");
/// The heading of that section.
const KNOWN_OPEN: &str = "## Known to be open";

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(Row, Trial)>,
}

impl Report {
    pub(crate) fn add(&mut self, row: &Row, trial: Trial) {
        self.rows.push((*row, trial));
    }

    /// Returns whether no row is broken and each open row is documented.
    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().all(|(row, trial)| match trial.verdict() {
            Verdict::Held | Verdict::NotRun => true,
            Verdict::Open => is_known_open(row.name),
            Verdict::Broken => false,
        })
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|(_, trial)| trial.verdict() == verdict).count()
    }
}

/// Returns whether the document's section about open techniques names this row.
pub(crate) fn is_known_open(name: &str) -> bool {
    let section = DOCUMENT.split_once(KNOWN_OPEN).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    section.contains(&format!("`{name}`"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |cell: fn(&Row) -> &str, title: &str| {
            let cells = self.rows.iter().map(|(row, _)| cell(row).len());
            cells.chain([title.len()]).max().unwrap_or_default()
        };
        let name = width(|row| row.name, "technique");
        let gets = width(|row| row.gets, "what the agent gains");
        let control = width(|row| row.control, "control");
        writeln!(
            f,
            "\n{:<name$}  {:<gets$}  {:<control$}  verdict",
            "technique", "what the agent gains", "control"
        )?;
        for (row, trial) in &self.rows {
            let known = match trial.verdict() {
                Verdict::Open if is_known_open(row.name) => " (documented)",
                Verdict::Held if is_known_open(row.name) => " (documented as open: delete that row)",
                _ => "",
            };
            let Row { name: row_name, gets: row_gets, control: row_control, .. } = row;
            writeln!(
                f,
                "{row_name:<name$}  {row_gets:<gets$}  {row_control:<control$}  {}{known}",
                trial.verdict()
            )?;
        }
        self.details(f)?;
        let [held, open, broken, not_run] =
            [Verdict::Held, Verdict::Open, Verdict::Broken, Verdict::NotRun].map(|v| self.count(v));
        writeln!(f, "\n{held} held, {open} open, {broken} broken, {not_run} not run")
    }
}

impl Report {
    fn details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (row, trial) in &self.rows {
            let lines = trial.details();
            if !lines.is_empty() {
                writeln!(f, "\n{}", row.name)?;
            }
            for line in lines {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[(bool, bool)]) -> Report {
        let mut report = Report::default();
        for (held, worked) in verdicts {
            let mut trial = Trial::default();
            trial.control("the control", *held);
            trial.attempt("the attempt", *worked);
            report.add(&Row::new("x/y", "a value", "a request", |_| {}), trial);
        }
        report
    }

    #[test]
    fn an_open_or_broken_row_makes_the_report_bad() {
        for (verdicts, good) in [
            (&[(true, false)][..], true),
            (&[(true, false), (true, true)], false),
            (&[(true, false), (false, false)], false),
        ] {
            let report = report(verdicts);
            assert_eq!(report.is_good(), good, "{report}");
        }
        let text = report(&[(true, true), (false, false)]).to_string();
        for part in ["x/y", "OPEN", "BROKEN", "worked: the attempt", "control failed: the control"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
