//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names the directory that holds `onecli` and `onecli-daemon`; `cargo xtask` sets it.
pub const BIN_DIR: &str = "ONECLI_BIN_DIR";

/// The path of `onecli` or `onecli-daemon`. Without [`BIN_DIR`] the debug build is brought up to date, once.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| std::env::var_os(BIN_DIR).map_or_else(build, PathBuf::from));
    let path = dir.join(name);
    assert!(path.is_file(), "{} is missing: build it or unset {BIN_DIR}", path.display());
    path
}

/// The workspace's root.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

/// cargo's `target` directory.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--quiet", "--package", "onecli-daemon", "--package", "onecli-cli", "--bins"])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "onecli-daemon does not build");
    target().join("debug")
}
