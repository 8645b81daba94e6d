//! A row of the table, and the result of its run.

use std::fmt;

/// One technique.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// `family/technique`. `docs/security/attacks.md` names each.
    pub(crate) name: &'static str,
    /// What the agent gains if the attack works.
    pub(crate) gets: &'static str,
    /// The behaviour that is required for the run to count.
    pub(crate) control: &'static str,
    /// The function that tries it.
    pub(crate) run: fn(&mut Trial),
    /// Whether it takes at most a few seconds, and is therefore part of the test suite.
    pub(crate) quick: bool,
}

impl Row {
    pub(crate) const fn new(
        name: &'static str,
        gets: &'static str,
        control: &'static str,
        run: fn(&mut Trial),
    ) -> Self {
        Self { name, gets, control, run, quick: false }
    }

    /// Adds the row to the test suite.
    pub(crate) const fn quick(mut self) -> Self {
        self.quick = true;
        self
    }
}

/// The result of a run. A run without a control, or without an attempt, counts as broken.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    controls: Vec<(String, bool)>,
    attempts: Vec<(String, bool)>,
    notes: Vec<String>,
    not_run: Option<String>,
    crashed: Option<String>,
}

impl Trial {
    /// Records whether a control behaved as expected.
    pub(crate) fn control(&mut self, what: impl Into<String>, as_expected: bool) {
        self.controls.push((what.into(), as_expected));
    }

    /// Records an attempt, and whether it gave the agent what the row describes.
    pub(crate) fn attempt(&mut self, what: impl Into<String>, worked: bool) {
        self.attempts.push((what.into(), worked));
    }

    /// Adds a figure to the report.
    pub(crate) fn note(&mut self, figure: impl Into<String>) {
        self.notes.push(figure.into());
    }

    /// Records that the machine lacks a requirement of the technique.
    pub(crate) fn not_run(&mut self, why: impl Into<String>) {
        self.not_run = Some(why.into());
    }

    /// Records that the run panicked.
    pub(crate) fn crashed(&mut self, why: impl Into<String>) {
        self.crashed = Some(why.into());
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let controls = !self.controls.is_empty() && self.controls.iter().all(|(_, held)| *held);
        if self.crashed.is_some() {
            Verdict::Broken
        } else if self.not_run.is_some() {
            Verdict::NotRun
        } else if !controls || self.attempts.is_empty() {
            Verdict::Broken
        } else if self.attempts.iter().any(|(_, worked)| *worked) {
            Verdict::Open
        } else {
            Verdict::Held
        }
    }

    /// The reasons why the verdict is not [`Verdict::Held`], and the figures, one per line.
    pub(crate) fn details(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        lines.extend(self.crashed.iter().map(|why| format!("panicked: {why}")));
        lines.extend(self.not_run.iter().map(|why| format!("not run: {why}")));
        lines.extend(picked(&self.controls, false).map(|what| format!("control failed: {what}")));
        lines.extend(picked(&self.attempts, true).map(|what| format!("worked: {what}")));
        if self.verdict() == Verdict::Broken && lines.is_empty() {
            lines.push("the run recorded no control or no attempt".to_owned());
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }
}

fn picked(all: &[(String, bool)], wanted: bool) -> impl Iterator<Item = &String> {
    all.iter().filter(move |(_, found)| *found == wanted).map(|(what, _)| what)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The attack failed, and the control behaved as expected.
    Held,
    /// This machine lacks a requirement.
    NotRun,
    /// The attack works.
    Open,
    /// The control failed, so the run proves nothing.
    Broken,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Held => "held",
            Self::NotRun => "not run",
            Self::Open => "OPEN",
            Self::Broken => "BROKEN",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_counts_only_with_a_good_control() {
        let verdict = |controls: &[bool], attempts: &[bool]| {
            let mut trial = Trial::default();
            for held in controls {
                trial.control("", *held);
            }
            for worked in attempts {
                trial.attempt("", *worked);
            }
            trial.verdict()
        };
        assert_eq!(verdict(&[true], &[false, false]), Verdict::Held);
        assert_eq!(verdict(&[true], &[false, true]), Verdict::Open);
        for (controls, attempts) in [(&[true, false][..], &[false][..]), (&[false], &[true])] {
            assert_eq!(verdict(controls, attempts), Verdict::Broken);
        }
        assert_eq!((verdict(&[], &[false]), verdict(&[true], &[])), (Verdict::Broken, Verdict::Broken));
    }
}
