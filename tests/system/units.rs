//! The units as the package installs them: valid, and hardened to the documented level.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use onecli_tests::client::Run;
use onecli_tests::{bins, need};

use crate::scene::Scene;

/// The highest allowed scores of `systemd-analyze security` (0 is best, 10 worst).
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
    // It exits with 0 on unknown values, and only prints a warning.
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), format!("{}{errors}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn units_are_valid() {
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

/// A package script with every path in a private root, and with system programs that only record their calls.
struct Package(tempfile::TempDir);

impl Package {
    const PATHS: [&str; 7] = [
        "/etc/onecli",
        "/var/lib/onecli",
        "/run/onecli",
        "/run/systemd/system",
        "/sys/fs/bpf",
        "/sys/fs/cgroup",
        "/usr/lib/systemd/system",
    ];
    const STUBS: [&str; 10] = [
        "systemd-sysusers",
        "systemd-tmpfiles",
        "systemctl",
        "deb-systemd-helper",
        "deb-systemd-invoke",
        "onecli-daemon",
        "getent",
        "userdel",
        "groupdel",
        "stat",
    ];

    fn new() -> Package {
        let root = tempfile::tempdir().unwrap();
        let package = Package(root);
        for dir in ["run/systemd/system", "usr/lib/systemd/system", "etc/onecli", "var/lib/onecli", "bin"] {
            fs::create_dir_all(package.at(dir)).unwrap();
        }
        for stub in Package::STUBS {
            let text = format!(
                "#!/bin/sh\necho {stub} \"$@\" >> {}\n[ {stub} != stat ] || echo bpf_fs\n",
                package.at("log").display()
            );
            let path = package.at("bin").join(stub);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        package
    }

    /// Replaces a program of the system by `script`.
    fn stub(&self, name: &str, script: &str) {
        fs::write(self.at("bin").join(name), format!("#!/bin/sh\n{script}")).unwrap();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Runs a script, and returns its calls of other programs.
    fn run(&self, script: &str, args: &[&str]) -> String {
        let text = fs::read_to_string(bins::workspace().join("systemd/debian").join(script)).unwrap();
        let inside = Package::PATHS
            .iter()
            .fold(text, |text, path| text.replace(path, &format!("{}{path}", self.0.path().display())));
        for line in inside.lines().filter(|line| line.contains("rm -rf") || line.contains("find ")) {
            let outside = line
                .split([' ', '='])
                .any(|word| word.starts_with('/') && !word.starts_with(self.0.path().to_str().unwrap()));
            assert!(!outside || line.contains("2>/dev/null"), "{script} would leave its root: {line}");
        }
        let copy = self.at(script);
        fs::write(&copy, inside).unwrap();
        fs::write(self.at("log"), "").unwrap();
        let path = format!("{}:/usr/bin:/bin", self.at("bin").display());
        let output = Command::new("sh").arg(copy).args(args).env_clear().env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{script} {args:?}: {output:?}");
        fs::read_to_string(self.at("log")).unwrap()
    }
}

/// The launcher runs as root for a long time: an upgrade must stop the old one.
#[test]
fn upgrade_stops_the_old_launcher() {
    let package = Package::new();
    let units = package.at("usr/lib/systemd/system");
    for unit in ["onecli-launcher.socket", "onecli-launcher.service"] {
        fs::copy(bins::workspace().join("systemd").join(unit), units.join(unit)).unwrap();
    }
    let first = package.run("postinst", &["configure"]);
    assert!(first.contains("start onecli-launcher.socket") && !first.contains("stop"), "{first}");
    let upgrade = package.run("postinst", &["configure", "0.1.0-1"]);
    let at = |what: &str| upgrade.find(what).unwrap_or_else(|| panic!("{what}: {upgrade}"));
    assert!(at("stop onecli-launcher.service") < at("start onecli-launcher.socket"), "{upgrade}");
    assert!(!upgrade.contains("stop onecli-launcher.socket"), "clients wait there: {upgrade}");
    let service = fs::read_to_string(units.join("onecli-launcher.service")).unwrap();
    assert!(service.contains("\nKillMode=process\n"), "running agents continue");
}

/// As the README says: credentials in the configuration's directory are removed too, and so are programs pinned
/// elsewhere.
#[test]
fn purge_removes_credentials_and_pins_and_ends_agents() {
    let package = Package::new();
    let (etc, data) = (package.at("etc/onecli"), package.at("var/lib/onecli"));
    let pins = package.at("elsewhere/pins");
    for dir in [&pins.join("maps"), &package.at("sys/fs/bpf/onecli"), &data.join("audit")] {
        fs::create_dir_all(dir).unwrap();
    }
    // Both the pin directory and the agents root are at paths that a script could not guess.
    let cgroup = package.at("elsewhere/cgroup/mine.slice");
    fs::create_dir_all(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    fs::write(cgroup.join("cgroup.kill"), "").unwrap();
    fs::write(etc.join("secret-id"), "a credential").unwrap();
    fs::write(data.join("root.key"), "a key").unwrap();
    let note = format!("cgroup {}\npins {}\n", cgroup.display(), pins.display());
    package.stub("onecli-daemon", &format!("printf '{}'\nexit 3\n", note.replace('\n', "\\n")));

    package.run("prerm", &["remove"]);
    assert_eq!(fs::read_to_string(etc.join("left-behind")).unwrap(), note);
    assert!(etc.join("secret-id").exists() && pins.exists(), "remove does not delete them");
    package.run("postrm", &["purge"]);
    assert_eq!(fs::read_to_string(cgroup.join("cgroup.kill")).unwrap(), "1\n");
    for gone in [etc, data, pins, package.at("sys/fs/bpf/onecli")] {
        assert!(!gone.exists(), "{}", gone.display());
    }
}

/// The programs contain agents that run below a root which the configuration no longer names.
#[test]
fn removal_leaves_no_agent_unconfined() {
    if !need::bpf("removal of the package while agents run") {
        return;
    }
    let scene = Scene::new();
    let home = scene.daemon.home();
    let sleeper = scene.daemon.managed(&scene.inside, &Run::new("sleep").arg("60")).start();
    let events = home.agents_root().unwrap().join("cgroup.events");
    while !fs::read_to_string(&events).unwrap().contains("populated 1") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let other = home.dir().join("other.toml");
    let config = fs::read_to_string(home.config_file()).unwrap();
    let root = home.agents_root().unwrap();
    let renamed = config.replace(".slice/agents.slice", ".slice/renamed.slice");
    assert_ne!(config, renamed);
    fs::write(&other, renamed).unwrap();
    let daemon = bins::path("onecli-daemon");
    let retire = |config: &Path| {
        let outcome = Run::new(&daemon).arg("--config").arg(config).arg("--retire").outcome();
        (outcome.code(), outcome.out())
    };
    let (code, note) = retire(&other);
    assert_eq!(code, Some(3), "{note}");
    assert!(note.contains(&format!("cgroup {}", root.display())) && note.contains("pins "), "{note}");
    assert!(home.pins().exists());
    drop(sleeper);
}
