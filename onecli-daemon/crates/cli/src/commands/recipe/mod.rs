//! `onecli recipe ...`, and `--recipe` of other commands.

mod apply;
mod command;

pub(crate) use apply::{RecipeArgs, RecipePlan};
pub(crate) use command::{RecipeCommand, run};
