//! The placement of a credential in a request. Each kind is one file, and one line of [`kinds`] registers it.

mod basic;
mod error;
mod field;
mod form;
mod header;
mod kind;
pub mod location;
mod query;
mod replace;
mod segment;
mod sigv4;
mod template;
pub mod wire_form;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::basic::Basic;
pub use self::error::PlacementError;
pub use self::form::Form;
pub use self::header::Header;
pub use self::kind::{InjectionTarget, PlacementKind, PlacementOption, RequestPart};
pub use self::query::Query;
pub use self::replace::Replace;
pub use self::segment::Segment;
pub use self::sigv4::SigV4;
pub use self::template::Template;
use self::wire_form::WireForm;
use crate::request::refusal::Challenge;
use crate::value::secret_value::SecretValue;

/// Makes [`Placement`] from the kinds, each with its word in the stored form.
macro_rules! kinds {
    ($($kind:ident = $word:literal,)*) => {
        /// The placement of a credential. Deserialization applies the same checks as parsing.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        pub enum Placement {
            $(
                #[doc = concat!("See [`", stringify!($kind), "`].")]
                #[serde(rename = $word)]
                $kind($kind),
            )*
        }

        impl Placement {
            fn kind(&self) -> &dyn PlacementKind {
                match self {
                    $(Placement::$kind(kind) => kind,)*
                }
            }

            /// Returns the options that select a placement, in the order of the help.
            pub fn options() -> impl Iterator<Item = &'static PlacementOption> {
                std::iter::empty()$(.chain($kind::options()))*
            }

            /// Parses the value of the option `word`, which is empty for a flag. Templates have the same form. Returns
            /// `None` if there is no such option.
            pub fn parse(word: &str, text: &str) -> Option<Result<Placement, PlacementError>> {
                let has = |options: &[PlacementOption]| options.iter().any(|option| option.word == word);
                $(if has($kind::options()) {
                    return Some($kind::parse(word, text).map(Placement::$kind));
                })*
                None
            }
        }
    };
}

kinds! {
    Header = "header",
    Basic = "basic",
    Query = "query",
    Form = "form",
    Segment = "segment",
    Replace = "replace",
    SigV4 = "sigv4",
}

impl Placement {
    /// Returns `Authorization: Bearer {secret}` (RFC 6750 section 2.1).
    pub fn bearer() -> Placement {
        Placement::Header(Header::bearer())
    }

    /// Returns `Authorization: Basic` for this user.
    ///
    /// # Errors
    /// [`PlacementError::BasicUser`].
    pub fn basic(user: &str) -> Result<Placement, PlacementError> {
        Basic::parse("basic", user).map(Placement::Basic)
    }

    /// Returns a query parameter with this name.
    ///
    /// # Errors
    /// [`PlacementError::Query`].
    pub fn query(name: &str) -> Result<Placement, PlacementError> {
        Query::parse("query", name).map(Placement::Query)
    }

    /// Returns Signature Version 4 for `REGION/SERVICE`, either of them `*`, and never for the services `except`.
    ///
    /// # Errors
    /// [`PlacementError::Scope`].
    pub fn sigv4(scope: &str, except: Vec<String>) -> Result<Placement, PlacementError> {
        SigV4::scoped(scope, except).map(Placement::SigV4)
    }

    /// Returns a header with a template, from the format `Name: text with {secret}`.
    ///
    /// # Errors
    /// [`PlacementError::Header`], [`PlacementError::Template`], [`PlacementError::ReservedHeader`].
    pub fn header(text: &str) -> Result<Placement, PlacementError> {
        Header::parse("header", text).map(Placement::Header)
    }

    /// Returns the replacement of a placeholder at this place.
    ///
    /// # Errors
    /// [`PlacementError::Location`], and the errors of the place's own text.
    pub fn replace(at: &str) -> Result<Placement, PlacementError> {
        Replace::parse("replace", at).map(Placement::Replace)
    }

    /// See [`PlacementKind::target`].
    pub fn injection_target(&self) -> InjectionTarget {
        self.kind().target()
    }

    /// See [`PlacementKind::wire_forms`].
    pub fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm> {
        self.kind().wire_forms(value)
    }

    /// See [`PlacementKind::placeholder_part`].
    pub fn placeholder_part(&self) -> Option<RequestPart> {
        self.kind().placeholder_part()
    }

    /// See [`PlacementKind::place`].
    pub fn place(&self) -> String {
        self.kind().place()
    }

    /// See [`PlacementKind::challenge`].
    pub fn challenge(&self) -> Challenge {
        self.kind().challenge()
    }

    /// See [`PlacementKind::check_value`].
    ///
    /// # Errors
    /// A sentence about the value, without a part of it.
    pub fn check_value(&self, value: &SecretValue) -> Result<(), String> {
        self.kind().check_value(value)
    }

    /// See [`PlacementKind::sends_value`].
    pub fn sends_value(&self) -> bool {
        self.kind().sends_value()
    }

    /// See [`PlacementKind::takes_issued_token`].
    pub fn takes_issued_token(&self) -> bool {
        self.kind().takes_issued_token()
    }

    /// See [`PlacementKind::is_token`].
    pub fn is_token(&self) -> bool {
        self.kind().is_token()
    }

    /// See [`PlacementKind::added_texts`].
    pub fn added_texts(&self) -> Vec<String> {
        self.kind().added_texts()
    }

    /// See [`PlacementKind::includes_scheme`].
    pub fn includes_scheme(&self) -> bool {
        self.kind().includes_scheme()
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_templates() {
        let placement = Placement::header("X-Api-Key: {secret}").unwrap();
        assert_eq!(placement.to_string(), "header x-api-key: {secret}");
        for bad in [
            "X-Api-Key",
            "X-Api-Key: none",
            "A: {secret}{secret}",
            "Host: {secret}",
            "Accept-Encoding: {secret}",
            "Range: {secret}",
            "If-Range: {secret}",
            "Sec-WebSocket-Extensions: {secret}",
            "a b: {secret}",
            "A: {secret}\r\nB: c",
        ] {
            assert!(Placement::header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stored_form_round_trips() {
        for placement in [
            Placement::bearer(),
            Placement::header("x-goog-api-key: {secret}").unwrap(),
            Placement::basic("x-access-token").unwrap(),
            Placement::query("key").unwrap(),
            Placement::replace("json:/auth/token").unwrap(),
            Placement::replace("header:x-api-key").unwrap(),
            Placement::sigv4("*/*", vec!["sts".to_owned()]).unwrap(),
            Placement::sigv4("eu-central-1/s3", Vec::new()).unwrap(),
        ] {
            let text = serde_json::to_string(&placement).unwrap();
            assert_eq!(serde_json::from_str::<Placement>(&text).unwrap(), placement, "{text}");
        }
    }

    /// The admin API and the store accept only placements that the constructors would create.
    #[test]
    fn deserialized_placements_are_validated() {
        for bad in [
            r#"{"kind":"header","name":"host","template":"{secret}"}"#,
            r#"{"kind":"header","name":"accept-encoding","template":"{secret}"}"#,
            r#"{"kind":"header","name":"a b","template":"{secret}"}"#,
            r#"{"kind":"header","name":"x-key","template":"none"}"#,
            r#"{"kind":"basic","user":"a:b"}"#,
            r#"{"kind":"query","name":"a=b&c"}"#,
            r#"{"kind":"query","name":""}"#,
            r#"{"kind":"replace","at":"header:host"}"#,
            r#"{"kind":"replace","at":"json:x"}"#,
            r#"{"kind":"sigv4","region":"a/b","service":null}"#,
            r#"{"kind":"sigv4","region":null,"service":null,"except":["A"]}"#,
        ] {
            assert!(serde_json::from_str::<Placement>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn basic_users_and_query_names_are_validated() {
        assert!(Placement::basic("a:b").is_err());
        assert!(Placement::query("").is_err());
        assert!(Placement::query("a=b").is_err());
    }
}
