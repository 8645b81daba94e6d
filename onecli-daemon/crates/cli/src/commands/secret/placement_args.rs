//! The options that select a placement, from the descriptions of its kinds.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use onecli_model::Placement;
use onecli_model::placement::{PlacementError, PlacementOption};

/// The group of the options, of which one may be given.
pub(super) const GROUP: &str = "placement";

/// The placement that the options select. `EDIT` selects the descriptions for `secret edit`.
#[derive(Debug)]
pub(crate) struct PlacementArgs<const EDIT: bool>(Option<Placement>);

impl<const EDIT: bool> PlacementArgs<EDIT> {
    /// Returns the selected placement.
    pub(super) fn selected(&self) -> Option<&Placement> {
        self.0.as_ref()
    }
}

/// The names of the options.
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    Placement::options().map(|option| option.word)
}

impl<const EDIT: bool> FromArgMatches for PlacementArgs<EDIT> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<PlacementArgs<EDIT>, clap::Error> {
        let selected = Placement::options().find_map(|option| match option.value_name {
            Some(_) => matches.get_one::<Placement>(option.word).cloned(),
            None => matches.get_flag(option.word).then(|| parse(option, "").ok()).flatten(),
        });
        Ok(PlacementArgs(selected))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = PlacementArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<const EDIT: bool> Args for PlacementArgs<EDIT> {
    fn augment_args(command: Command) -> Command {
        Placement::options().fold(command, |command, option| command.arg(arg(option, EDIT)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        PlacementArgs::<EDIT>::augment_args(command)
    }
}

fn arg(option: &'static PlacementOption, is_edit: bool) -> Arg {
    let help = option.edit_help.filter(|_| is_edit).unwrap_or(option.help);
    let arg = Arg::new(option.word).long(option.word).group(GROUP).help(help);
    match option.value_name {
        Some(name) => arg.value_name(name).value_parser(|text: &str| parse(option, text)),
        None => arg.action(ArgAction::SetTrue),
    }
}

fn parse(option: &PlacementOption, text: &str) -> Result<Placement, PlacementError> {
    Placement::parse(option.word, text)
        .unwrap_or_else(|| Err(PlacementError::Text(format!("no placement is called {}", option.word))))
}
