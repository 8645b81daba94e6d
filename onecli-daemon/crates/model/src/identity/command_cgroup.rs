//! Names of the cgroups of single commands. Only root creates cgroups below an agent's, so the name proves which user
//! launched the command.

use super::agent::CgroupName;

/// The prefix of the name.
pub const PREFIX: &str = "run-";
/// The suffix of the name if systemd creates the cgroup.
const SCOPE: &str = ".scope";

/// Returns the directory for a command that user `uid` launches and whose first process is `pid`.
pub fn directory(uid: u32, pid: u32) -> String {
    format!("{PREFIX}{uid}-{pid}")
}

/// Returns the unit for such a command in a slice. systemd.unit(5) permits any name for a scope; this one begins with
/// the slice's name.
pub fn scope(slice: &str, uid: u32, pid: u32) -> String {
    format!("{}-{}{SCOPE}", without_suffix(slice), directory(uid, pid))
}

/// Returns the uid that launched the command of the cgroup `name`, a direct child of the agent's. `None` for cgroups
/// with other names.
pub fn launched_by(agent: &CgroupName, name: &str) -> Option<u32> {
    let directory = match name.strip_suffix(SCOPE) {
        Some(unit) => unit.strip_prefix(without_suffix(agent.as_str()))?.strip_prefix('-')?,
        None => name,
    };
    let (uid, pid) = directory.strip_prefix(PREFIX)?.split_once('-')?;
    number(pid)?;
    number(uid)
}

fn without_suffix(slice: &str) -> &str {
    slice.strip_suffix(".slice").unwrap_or(slice)
}

/// Parses a number in the format of [`directory`]: no sign, no leading zero.
fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launcher_uid_is_parsed_from_the_name() {
        let agent: CgroupName = "onecli-agents-a.slice".parse().unwrap();
        let check = |name: &str, uid| assert_eq!(launched_by(&agent, name), uid, "{name}");
        check(&directory(1000, 42), Some(1000));
        check(&scope("onecli-agents-a.slice", 1000, 42), Some(1000));
        check(&directory(0, 1), Some(0));
        check("onecli-agents-a-run-1000-42.scope", Some(1000));
        for other in [
            "run-42",
            "run-1000-42-7",
            "run-+1000-42",
            "run-01000-42",
            "run-1000-",
            "run--42",
            "run-4294967296-42",
            "run-1000-42.service",
            "xrun-1000-42",
            "onecli-agents-ab-run-1000-42.scope",
            "run-1000-42.scope",
            "docker-0123.scope",
            "",
        ] {
            check(other, None);
        }
    }
}
