//! Decides which of the caller's directories an agent gets.

pub(crate) mod confirmed;
pub(crate) mod decide;
pub(crate) mod handover;
