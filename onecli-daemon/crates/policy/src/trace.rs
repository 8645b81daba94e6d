//! What a decision looked at, for those who ask why.

use std::sync::Arc;

use onecli_model::{Mismatch, Rule, Secret};

/// What a decision looked at. Decisions on the request path note nothing.
#[derive(Debug, Default)]
pub struct Trace(Option<Vec<Considered>>);

/// One rule or secret, and whether it applies.
#[derive(Debug, Clone)]
pub struct Considered {
    /// What was looked at.
    pub subject: Subject,
    /// Why it does not apply, if it does not.
    pub mismatch: Option<Mismatch>,
}

/// What can decide.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A rule.
    Rule(Arc<Rule>),
    /// A secret that the agent was granted.
    Secret(Arc<Secret>),
}

impl Trace {
    /// Notes nothing.
    pub fn none() -> Trace {
        Trace(None)
    }

    /// Notes everything.
    pub fn wanted() -> Trace {
        Trace(Some(Vec::new()))
    }

    /// What was noted.
    pub fn into_considered(self) -> Vec<Considered> {
        self.0.unwrap_or_default()
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn rule(&mut self, rule: &Arc<Rule>, judged: Result<(), Mismatch>) {
        if let Some(considered) = &mut self.0 {
            considered.push(Considered { subject: Subject::Rule(Arc::clone(rule)), mismatch: judged.err() });
        }
    }

    pub(super) fn secret(&mut self, secret: &Arc<Secret>, judged: Result<(), Mismatch>) {
        if let Some(considered) = &mut self.0 {
            considered
                .push(Considered { subject: Subject::Secret(Arc::clone(secret)), mismatch: judged.err() });
        }
    }
}
