//! The rules and secrets that a decision considered, for `onecli why`.

use std::sync::Arc;

use onecli_model::{Mismatch, Rule, Secret};

/// The rules and secrets that a decision considered. Decisions on the request path record nothing.
#[derive(Debug, Default)]
pub struct Trace(Option<Vec<Considered>>);

/// One rule or secret, and whether it applies.
#[derive(Debug, Clone)]
pub struct Considered {
    /// The rule or secret.
    pub subject: Subject,
    /// The reason why it does not apply, if it does not.
    pub mismatch: Option<Mismatch>,
}

/// A rule or a secret.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A rule.
    Rule(Arc<Rule>),
    /// A secret that was granted to the agent.
    Secret(Arc<Secret>),
}

impl Trace {
    /// Records nothing.
    pub fn none() -> Trace {
        Trace(None)
    }

    /// Records everything.
    pub fn wanted() -> Trace {
        Trace(Some(Vec::new()))
    }

    /// The recorded entries.
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
