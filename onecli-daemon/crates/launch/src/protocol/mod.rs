//! The messages between client and launcher.

pub(crate) mod wire;
