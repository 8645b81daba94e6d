//! `onecli rule ...`, `onecli why` and `onecli agent learn`.

mod command;
mod why;

pub(crate) use command::{RuleCommand, command, learn, run, sentence};
pub(crate) use why::{WhyArgs, why};
