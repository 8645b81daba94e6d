//! The user-space side of the kernel programs: cgroups, loading and attaching, and reading the records of the programs.
//!
//! This is the only module that uses `aya`. The requirements of each step:
//!
//! | step | needs |
//! |---|---|
//! | [`Cgroup2::ensure`], [`Cgroup2::move_self_into`] | write access to the cgroup tree (root, or delegated) |
//! | [`Redirect::attach`] | `CAP_BPF`, `CAP_NET_ADMIN`, `CAP_PERFMON`; `CAP_SYS_ADMIN` to mount bpffs |
//! | [`Redirect::open`], [`open_maps`], [`report()`], [`detach`] | `CAP_DAC_OVERRIDE`: no user owns the pin directory |
//! | [`check`] | `CAP_DAC_OVERRIDE`; it only reads |
//! | [`Namespaces`] | `CAP_SYS_ADMIN`, `CAP_SYS_PTRACE`; `CAP_NET_BIND_SERVICE` for a port below 1024 |
//! | [`Redirect::adopt`], and methods of an open [`Redirect`] | nothing, from Linux 5.19; before that `CAP_BPF` |
//!
//! A [`Redirect`] holds only map descriptors. A process with a link or program descriptor could detach enforcement, so
//! none outlives the call that used it.

mod attach;
mod bpffs;
mod btf;
mod cgroup;
mod config;
mod conflict;
mod decode;
mod denials;
mod error;
mod health;
mod hooks;
mod link;
mod netns;
mod processes;
mod program_log;
mod redirect;
mod report;
mod retire;
mod security;
mod single_daemon;
mod syn;
#[cfg(test)]
mod tests;
mod version;

pub use attach::{check, detach};
pub use cgroup::{AgentCgroup, Cgroup2, agent_directory};
pub use config::KernelConfig;
pub use denials::{Denial, Denials, DeniedProcess};
pub use error::{KernelError, NetnsError};
pub use health::{Health, LinkHealth, LinkState};
pub use netns::{CgroupNamespaces, Namespaces};
pub use onecli_common::{AgentEntry, Hook, Reason};
pub use processes::{Processes, processes};
pub use program_log::KernelLog;
pub use redirect::{Redirect, open_maps};
pub use report::{clock, ports, report};
pub use retire::{RetireOutcome, StillAttached, retire};
pub use single_daemon::{Claim, claim};
