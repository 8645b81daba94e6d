//! The kernel half's user space: cgroups, loading and attaching the programs, and reading what they tell.
//!
//! The only module that names `aya`. What each step needs:
//!
//! | step | needs |
//! |---|---|
//! | [`Cgroup2::ensure`], [`Cgroup2::move_self_into`] | write access to the cgroup tree (root, or a delegated subtree) |
//! | [`Redirect::attach`] | `CAP_BPF`, `CAP_NET_ADMIN`, `CAP_PERFMON`; `CAP_SYS_ADMIN` if bpffs is to be mounted |
//! | [`Redirect::open`], [`open_maps`], [`check`], [`report()`], [`detach`] | `CAP_DAC_OVERRIDE`: the pin directory belongs to no user; [`check`] only reads |
//! | [`Namespaces`] | `CAP_SYS_ADMIN`, `CAP_SYS_PTRACE`; `CAP_NET_BIND_SERVICE` for a port below 1024 |
//! | [`Redirect::adopt`], and everything on a [`Redirect`] once open | nothing, from Linux 5.19; before that `CAP_BPF` |
//!
//! A [`Redirect`] holds map descriptors only. Whoever holds a link or program descriptor could detach enforcement, so
//! none outlives the call that used it.

mod attach;
mod bpffs;
mod btf;
mod cgroup;
mod claim;
mod conflict;
mod denials;
mod error;
mod link;
mod netns;
mod processes;
mod redirect;
mod report;
mod retire;
mod security;
mod syn;
#[cfg(test)]
mod tests;

pub use attach::{Health, KernelConfig, LinkHealth, LinkState, check, detach};
pub use cgroup::{AgentCgroup, Cgroup2, agent_directory};
pub use claim::{Claim, claim};
pub use denials::{Denial, Denials, KernelLog, Task};
pub use error::KernelError;
pub use netns::{Found, Namespaces, NetnsError};
pub use onecli_common::{AgentEntry, Hook, Reason};
pub use processes::{Processes, processes};
pub use redirect::{Redirect, open_maps};
pub use report::{clock, ports, report};
pub use retire::{Kept, Retired, retire};
