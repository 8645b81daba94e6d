//! The units as the package installs them: without a mistake, and hardened as far as is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onecli_tests::{bins, need};

/// Most that `systemd-analyze security` may find (0 is best, 10 worst).
const EXPOSURE: [(&str, f64); 3] =
    [("onecli-daemon.service", 1.5), ("onecli-helper.service", 3.0), ("onecli-executor.service", 1.6)];

fn units(with: impl Fn(&str) -> String) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in fs::read_dir(bins::workspace().join("systemd")).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        if !["service", "socket", "slice"].contains(&kind) {
            continue;
        }
        let copy = dir.path().join(path.file_name().unwrap());
        fs::write(&copy, with(&fs::read_to_string(&path).unwrap())).unwrap();
        units.push(copy);
    }
    assert!(units.len() >= 6, "{units:?}");
    (dir, units)
}

fn analyze(words: &[&str], units: &[&Path]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(words).args(units).output().unwrap();
    // It exits with 0 on values that it does not understand, and says so.
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), format!("{}{told}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn units_hold_no_mistake() {
    if !need::program("units", "systemd-analyze", "systemd") {
        return;
    }
    // Neither the programs nor their manual pages are installed here.
    let here = |text: &str| text.replace("/usr/bin/onecli", &bins::path("onecli").display().to_string());
    let (_dir, units) = units(here);
    let units: Vec<&Path> = units.iter().map(PathBuf::as_path).collect();
    assert_eq!(analyze(&["verify", "--man=no"], &units), (true, String::new()));
}

#[test]
fn services_are_hardened() {
    if !need::program("units", "systemd-analyze", "systemd") {
        return;
    }
    let (dir, _) = units(str::to_owned);
    for (unit, limit) in EXPOSURE {
        let (_, report) = analyze(&["security", "--offline=true", "--no-pager"], &[&dir.path().join(unit)]);
        let level = report
            .split("Overall exposure level for")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().find_map(|word| word.parse::<f64>().ok()));
        let level = level.unwrap_or_else(|| panic!("{unit}: {report}"));
        assert!(level <= limit, "{unit}: exposure {level}, at most {limit}: {report}");
    }
}
