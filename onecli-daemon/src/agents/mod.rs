//! The agents on this host: their cgroups, the kernel programs attached to them, and the refusals of those programs.

mod connection_identity;
mod denials;
mod launches;
mod transparent_mode;

pub(crate) use denials::DenialReport;
pub(crate) use transparent_mode::TransparentMode;
