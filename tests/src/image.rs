//! Images for the container engines of tests. There is no registry, so an image is built from files of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};

/// The programs in the image; their libraries are added.
const PROGRAMS: [&str; 4] = ["/usr/bin/curl", "/bin/sh", "/bin/sleep", "/bin/cat"];

/// Creates an archive of a root file system with the host's curl and shell, below `dir`.
pub(crate) fn archive(dir: &Path) -> Result<PathBuf, String> {
    const GATHER: &str = r#"
        set -e
        root=$1; shift
        mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc"
        for program in "$@"; do
            for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
                mkdir -p "$root${file%/*}"
                cp -L "$file" "$root$file"
            done
        done
        tar -C "$root" -cf "$root.tar" ."#;
    let root = dir.join("root");
    run("sh", &[&["-c", GATHER, "sh", &root.display().to_string()], &PROGRAMS[..]].concat())?;
    Ok(root.with_extension("tar"))
}

/// Unmounts all mounts that an engine left below its directory.
pub(crate) fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = dir.display().to_string();
    for mount in mounts.lines().rev().filter_map(|l| l.split(' ').nth(4)).filter(|m| m.starts_with(&ours)) {
        umount2(mount, MntFlags::MNT_DETACH).ok();
    }
}

/// Runs a program until it exits.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
