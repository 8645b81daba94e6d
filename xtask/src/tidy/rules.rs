//! The rules as data.

/// Crates that may hold `unsafe` code; every other one forbids it.
pub(super) const UNSAFE: &[&str] =
    &["onecli-common", "onecli-ebpf", "onecli-daemon/crates/sys", "onecli-daemon/crates/launch"];

/// The maximum number of lines in a file of code.
pub(super) const LONGEST: usize = 500;

/// The commands that the README must name.
pub(super) const README_NAMES: &[&str] = &["cargo xtask demo", "cargo xtask test"];
