//! The agent's own view of the files.

pub(crate) mod devices;
pub(crate) mod git_dir;
pub(crate) mod mount_path;
pub(crate) mod mounts;
pub(crate) mod place;
pub(crate) mod project;
pub(crate) mod protect;
pub(crate) mod truststore;
