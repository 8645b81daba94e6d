//! The kernel's random generator.

use onecli_model::{Random, RandomError};

/// getrandom(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

#[expect(clippy::disallowed_methods, reason = "the one place that asks the kernel")]
impl Random for OsRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(out).map_err(|error| RandomError(error.to_string()))
    }
}
