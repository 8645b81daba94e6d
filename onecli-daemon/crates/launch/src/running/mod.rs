//! The state that the launcher holds for each running command.

pub(crate) mod gate;
pub(crate) mod hold;
pub(crate) mod leftovers;
pub(crate) mod records;
pub(crate) mod watched;
