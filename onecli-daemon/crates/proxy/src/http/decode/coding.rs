//! Content codings.

/// A coding that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// Returns whether the window has megabytes, unlike the 32 KiB of deflate (RFC 1951 section 2).
    pub(super) fn is_large(self) -> bool {
        matches!(self, Coding::Brotli | Coding::Zstd)
    }
}
