//! The state that the launcher holds for each running command.

pub(crate) mod freeze;
pub(crate) mod gate;
pub(crate) mod leftovers;
pub(crate) mod records;
pub(crate) mod watched_directory;
