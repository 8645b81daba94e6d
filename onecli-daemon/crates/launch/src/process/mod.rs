//! Processes, their cgroups, terminals and time limits.

pub(crate) mod cgroup;
pub(crate) mod child;
pub(crate) mod deadline;
pub(crate) mod permitted;
pub(crate) mod terminal;
