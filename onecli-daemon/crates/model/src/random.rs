//! Randomness as a parameter.

/// A source of bytes fit for keys, nonces and tokens.
pub trait Random: Send + Sync + std::fmt::Debug {
    /// Fills `out` completely.
    ///
    /// # Errors
    /// The source has no bytes. The content of `out` must not be used.
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError>;
}

/// The kernel's generator returned no bytes (getrandom(2)).
#[derive(Debug, thiserror::Error)]
#[error("the kernel's random generator failed: {0}")]
pub struct RandomError(pub String);
