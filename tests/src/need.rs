//! Checks what a test needs of the machine, and reports what is missing.
//!
//! A test asks first, and skips the part for which the answer is `false`:
//!
//! ```ignore
//! if !need::bpf("the transparent half") { return; }
//! ```
//!
//! A skipped part is printed at once, and appended to the file that `cargo xtask test` names in `ONECLI_TEST_NOT_RUN`.
//! The command prints that list at its end. If root and BPF are present the answer is `true`, so a test that then finds
//! BPF broken fails.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use crate::cgroup;

/// The variable that names the file to which skipped parts are appended.
pub const NOT_RUN_FILE: &str = "ONECLI_TEST_NOT_RUN";
/// Set to `1` to run the suite as on a machine without BPF.
pub const WITHOUT_BPF: &str = "ONECLI_TEST_WITHOUT_BPF";

/// Returns whether this process is root. `part` names the part of the running test that is otherwise skipped.
#[must_use]
pub fn root(part: &str) -> bool {
    has(part, root_missing())
}

/// Returns whether this process is root and BPF for cgroups works.
#[must_use]
pub fn bpf(part: &str) -> bool {
    has(part, bpf_missing())
}

/// Returns whether `program`, from Debian's `package`, is installed.
#[must_use]
pub fn program(part: &str, program: &str, package: &str) -> bool {
    let missing = find_program(program).is_none();
    has(part, missing.then(|| format!("{program} is not installed (Debian's package {package})")))
}

/// The fixture, if it could be created; otherwise notes the skipped part.
#[must_use]
pub fn fixture<T>(part: &str, what: Result<T, String>) -> Option<T> {
    match what {
        Ok(fixture) => Some(fixture),
        Err(why) => {
            has(part, Some(why));
            None
        }
    }
}

/// Returns whether the Python environment that `cargo xtask test` creates exists.
#[must_use]
pub fn python(part: &str) -> bool {
    let missing = crate::client::python().is_none();
    has(part, missing.then(|| "no Python environment: `cargo xtask test` creates it".to_owned()))
}

/// The reason why this process cannot have managed cgroups; `None` if it can.
#[must_use]
pub fn bpf_missing() -> Option<String> {
    if std::env::var_os(WITHOUT_BPF).is_some_and(|v| v == "1") {
        return Some(format!("{WITHOUT_BPF}=1"));
    }
    if let Some(why) = root_missing() {
        return Some(why);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(why) = capabilities_missing(&status) {
        return Some(why);
    }
    if cgroup::mount().is_none() {
        return Some("cgroup2 is not mounted".to_owned());
    }
    (!Path::new("/sys/fs/bpf").exists()).then(|| "the kernel has no BPF file system".to_owned())
}

fn root_missing() -> Option<String> {
    (!nix::unistd::geteuid().is_root()).then(|| "needs root".to_owned())
}

/// capabilities(7), by number: `CAP_NET_ADMIN` 12, `CAP_SYS_ADMIN` 21, `CAP_PERFMON` 38, `CAP_BPF` 39.
fn capabilities_missing(status: &str) -> Option<String> {
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()) else {
        return Some("cannot read the capabilities in /proc/self/status".to_owned());
    };
    let wanted = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
    let missing: Vec<_> =
        wanted.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect();
    (!missing.is_empty()).then(|| format!("lacks {}", missing.join(", ")))
}

/// Searches `PATH` for `program`.
pub(crate) fn find_program(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

fn has(part: &str, missing: Option<String>) -> bool {
    let Some(why) = missing else { return true };
    note(part, &why);
    false
}

/// Notes that a part of the running test is skipped, and why.
///
/// # Panics
/// The note cannot be written.
pub fn note(part: &str, why: &str) {
    let line = format!("{}, {part}: {why}", running());
    println!("NOT RUN {line}");
    if let Some(file) = std::env::var_os(NOT_RUN_FILE) {
        let file = OpenOptions::new().append(true).create(true).open(file);
        // One write, so that lines of parallel tests do not mix.
        file.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes())).expect("note the skipped part");
    }
}

/// The name of the running test: libtest names the thread after it, nextest passes it as the argument.
fn running() -> String {
    let thread = std::thread::current();
    let named = thread.name().filter(|n| *n != "main").map(str::to_owned);
    named.or_else(|| std::env::args().skip(1).find(|a| !a.starts_with('-'))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_by_number() {
        let cases = [
            ("CapEff:\t000001ffffffffff\n", None),
            ("CapEff:\t0000000000000000\n", Some("lacks CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF")),
            // The default capabilities of Docker.
            ("CapEff:\t00000000a80425fb\n", Some("lacks CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF")),
            ("CapEff:\t0000017fffffffff\n", Some("lacks CAP_BPF")),
            ("", Some("cannot read the capabilities in /proc/self/status")),
        ];
        for (status, expected) in cases {
            assert_eq!(capabilities_missing(status).as_deref(), expected, "{status:?}");
        }
    }
}
