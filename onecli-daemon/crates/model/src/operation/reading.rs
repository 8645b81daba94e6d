//! The parts of a request that denials depend on.

/// A denial depends on the body, and this program cannot read it as the server would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body has a content coding, character set or media type that is not supported")]
pub struct UnreadableBody;

/// The parts besides the head that denials must read of a request. A greater one includes all lesser ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// Nothing.
    #[default]
    Nothing,
    /// The fields of a form, or the members of a JSON document, in the body.
    Form,
    /// Words of a text, in the body or in the query.
    Text,
    /// Words of a GraphQL document, in the body or in the query.
    GraphQl,
}
