//! The reasons why a placement is refused.

/// The reason why a placement was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The text is not `Name: template`.
    #[error("'{0}' is not a header template: write 'Name: text with {{secret}}'")]
    Header(String),
    /// The template does not contain `{secret}` exactly once, or contains control characters.
    #[error("the template '{0}' must contain {{secret}} exactly once and no control characters")]
    Template(String),
    /// The daemon itself writes framing and routing headers.
    #[error("the header '{0}' controls framing or routing and cannot carry a credential")]
    ReservedHeader(String),
    /// The Basic user name contains `:` or a control character (RFC 7617 section 2).
    #[error("a Basic user name cannot contain ':' or control characters")]
    BasicUser,
    /// The query parameter name is empty or contains other characters than unreserved ones.
    #[error("'{0}' is not a query parameter name: use letters, digits, '-', '.', '_', '~'")]
    Query(String),
    /// The text is not a supported place.
    #[error("'{0}' is not a place for a placeholder: write header:NAME, basic, query:NAME or json:/POINTER")]
    Location(String),
    /// The text is not a JSON pointer, or points to the whole document.
    #[error(
        "'{0}' is not a JSON pointer (RFC 6901): write /name/0/name, with ~0 for '~' and ~1 for '/' in a name"
    )]
    Pointer(String),
    /// A kind of placement refuses the text, for the reason in this sentence.
    #[error("{0}")]
    Text(String),
    /// The region or service cannot be part of a credential scope.
    #[error(
        "'{0}' is not an AWS region or service: use a-z, 0-9 and '-', or '*' for the one in the agent's signature"
    )]
    Scope(String),
}

impl PlacementError {
    /// Returns an error that quotes the text: `'TEXT' REASON`.
    pub(super) fn text(text: &str, reason: &str) -> PlacementError {
        let quoted: String = text.chars().take(80).flat_map(char::escape_default).collect();
        PlacementError::Text(format!("'{quoted}' {reason}"))
    }
}
