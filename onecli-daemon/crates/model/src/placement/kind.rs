//! The interface of a kind of placement.

use std::fmt;

use http::HeaderName;

use super::error::PlacementError;
use super::wire_form::WireForm;
use crate::request::refusal::Challenge;
use crate::value::secret_value::SecretValue;

/// The place in a request that a credential fills. At most one credential fills each target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InjectionTarget {
    /// A header field.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
    /// A part that one kind of place has, such as a field of a JSON body.
    Part {
        /// The kind of place.
        kind: &'static str,
        /// The part, in the notation of that kind.
        name: String,
    },
}

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPart {
    /// The URL and the header fields.
    Head,
    /// The body, which must be read before policy decides.
    Body,
}

/// An option of the command line that selects a placement. Templates use the same words: `query key`.
#[derive(Debug)]
pub struct PlacementOption {
    /// Its name, without dashes.
    pub word: &'static str,
    /// The name of its value. `None` for a flag.
    pub value_name: Option<&'static str>,
    /// Its description in `secret add --help`.
    pub help: &'static str,
    /// Its description in `secret edit --help`, if that is shorter.
    pub edit_help: Option<&'static str>,
}

impl PlacementOption {
    /// Returns an option with the same description for all commands.
    pub(super) const fn new(
        word: &'static str,
        value_name: &'static str,
        help: &'static str,
    ) -> PlacementOption {
        PlacementOption { word, value_name: Some(value_name), help, edit_help: None }
    }

    /// Sets a shorter description for `secret edit`.
    pub(super) const fn edited(self, help: &'static str) -> PlacementOption {
        PlacementOption { edit_help: Some(help), ..self }
    }
}

/// A kind of placement. Its file in this folder has everything that does not need the request: the stored form, the
/// options, and how the value looks when it is sent. A file of the same name in the proxy places the value.
///
/// The stored form is the type's `Serialize` and `Deserialize`; the latter applies the same checks as
/// [`PlacementKind::parse`]. `Display` gives the form in `secret list`.
pub trait PlacementKind: fmt::Display {
    /// Returns the options that select this kind, in the order of the help.
    fn options() -> &'static [PlacementOption]
    where
        Self: Sized;

    /// Parses the value of the option `word`; empty for a flag.
    ///
    /// # Errors
    /// A [`PlacementError`].
    fn parse(word: &str, text: &str) -> Result<Self, PlacementError>
    where
        Self: Sized;

    /// Returns the place that the credential fills.
    fn target(&self) -> InjectionTarget;

    /// Returns every form in which a response can contain `value` after it was sent, before any encoding of the
    /// response itself. The first is the value: a server may decode what it received and echo that. Empty if no part
    /// of the value is sent, as with keys that sign.
    fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm>;

    /// Returns the part of the request that must contain the placeholder itself, if one must.
    fn placeholder_part(&self) -> Option<RequestPart> {
        None
    }

    /// Returns the place of the placeholder, for messages.
    fn place(&self) -> String {
        self.to_string()
    }

    /// Returns the challenge of a refusal because of a missing placeholder.
    fn challenge(&self) -> Challenge {
        Challenge::Bearer
    }

    /// Checks that a value can be placed.
    ///
    /// # Errors
    /// A sentence about the value, without a part of it.
    fn check_value(&self, _value: &SecretValue) -> Result<(), String> {
        Ok(())
    }

    /// Returns whether the value is sent as it is stored. Values that sign are not sent.
    fn sends_value(&self) -> bool {
        true
    }

    /// Returns whether a token that the daemon requested can be placed.
    fn takes_issued_token(&self) -> bool {
        false
    }

    /// Returns whether its values are tokens. Passwords may have any character.
    fn is_token(&self) -> bool {
        false
    }

    /// Returns the texts that the placement writes before the value. Some people paste them with the value.
    fn added_texts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns whether the value may begin with an authentication scheme.
    fn includes_scheme(&self) -> bool {
        false
    }
}
