//! The host: users, homes, directories, programs.

pub(crate) mod agents_dir;
pub(crate) mod clients;
pub(crate) mod homes;
pub(crate) mod program;
pub(crate) mod subordinate;
pub(crate) mod user;
