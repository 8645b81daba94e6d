//! The messages between client and launcher.

pub(crate) mod descriptors;
pub(crate) mod wire;
