//! Restrictions on the command's process.

pub(crate) mod landlock;
pub(crate) mod privileges;
pub(crate) mod seccomp;
