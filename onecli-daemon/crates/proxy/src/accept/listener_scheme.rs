//! The protocols of the explicit proxy.

/// The protocol that clients use with the explicit proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerScheme {
    /// Without TLS.
    Plain,
    /// Over TLS, so that the token cannot be read in transit.
    Tls,
}
