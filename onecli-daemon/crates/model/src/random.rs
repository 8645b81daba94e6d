//! Randomness as an argument.

/// A source of bytes fit for keys, nonces and tokens.
pub trait Random: Send + Sync + std::fmt::Debug {
    /// Fills `out` completely.
    ///
    /// # Errors
    /// The source has none to give; nothing made from it may be used.
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError>;
}

/// The kernel's generator had no bytes to give (getrandom(2)).
#[derive(Debug, thiserror::Error)]
#[error("the kernel's random generator failed: {0}")]
pub struct RandomError(pub String);
