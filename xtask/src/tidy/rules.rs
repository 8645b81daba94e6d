//! The rules as data.

/// Crates that may hold `unsafe` code; every other one forbids it.
pub(super) const UNSAFE: &[&str] =
    &["onecli-common", "onecli-ebpf", "onecli-daemon/crates/sys", "onecli-daemon/crates/launch"];

/// Longest file of code.
pub(super) const LONGEST: usize = 500;

/// The commands README has to name.
pub(super) const README_NAMES: &[&str] = &["cargo xtask demo", "cargo xtask test"];
