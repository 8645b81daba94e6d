//! Files in the project that give more rights to the user who runs them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::daemon::Daemon;
use onecli_tests::need;
use serde_json::json;

use crate::stage::row::{Row, Trial};

const GETS: &str = "a program that every user of the host can run as the owner of the project";
const CONTROL: &str = "outside of an agent the same program creates such a file";

pub(crate) const ROWS: &[Row] = &[
    Row::new("file/layers", GETS, CONTROL, layers).quick(),
    Row::new("file/existing", GETS, CONTROL, existing).quick(),
    Row::new(
        "file/capability",
        "a program in root's project that gives every user capabilities",
        CONTROL,
        capability,
    )
    .quick(),
];

const LAYERS: &str = include_str!("../../../../system/launch/py/layers.py");
const EXISTING: &str = include_str!("../../../../system/launch/py/existing.py");
const CAPABILITY: &str = include_str!("../../../../system/launch/py/capability.py");
const SPECIAL: &str = include_str!("../../../../system/launch/py/special.py");

/// The agent's user, and the owner of projects, by name and uid. The group of each has the same number.
const ROBOT: &str = "games";
const PERSON: (&str, u32) = ("bin", 2);

struct Host {
    daemon: Daemon,
}

impl Host {
    /// A daemon with an agent that has a user. Returns `None` and records it if the machine cannot provide one.
    fn new(trial: &mut Trial) -> Option<Self> {
        if let Some(why) = need::bpf_missing() {
            trial.not_run(why);
            return None;
        }
        let daemon = Daemon::builder().start();
        let _ = daemon.add_agent("robot", &["--user", ROBOT]);
        Some(Self { daemon })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemon.home().dir().join(name)
    }

    /// A directory that `owner` owns.
    fn directory(&self, name: &str, owner: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory");
        give(&path, owner, 0o755);
        path
    }

    /// A program that `owner` owns, in a directory.
    fn program(directory: &Path, name: &str, owner: u32, mode: u32) {
        let path = directory.join(name);
        fs::write(&path, "original\n".repeat(16)).expect("a file");
        give(&path, owner, mode);
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a script");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its mode");
        path
    }

    /// Runs a script as the owner of a directory, and returns its output.
    fn outside(script: &Path, args: &[&str]) -> String {
        let user = PERSON.0;
        let run = Run::new("setpriv").args(["--reuid", user, "--regid", user, "--clear-groups", "python3"]);
        run.arg(script).args(args).timeout(Duration::from_mins(1)).outcome().ok("the control")
    }

    /// Runs a script as the agent, in `project`, and returns its output.
    fn inside(&self, project: &Path, script: &Path, args: &[&str]) -> String {
        let project = project.to_str().expect("a UTF-8 path");
        let run = ["run", "--agent", "robot", "--dir", project, "--", "python3"];
        let run = self.daemon.home().cli(&run).arg(script).args(args).timeout(Duration::from_mins(1));
        run.outcome().ok("the agent")
    }

    /// The privileged files below a directory in which `owner` owns every file, one per line.
    fn special(&self, directory: &Path, owner: u32) -> String {
        let script = self.script("special.py", SPECIAL);
        let run = Run::new("python3").arg(script).arg(directory).arg(owner.to_string());
        run.outcome().ok("special.py")
    }
}

fn give(path: &Path, owner: u32, mode: u32) {
    chown(path, Some(owner), Some(owner)).expect("its owner");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

/// Each file system that a user namespace may mount, as a layer below the project.
fn layers(trial: &mut Trial) {
    let Some(host) = Host::new(trial) else { return };
    let script = host.script("layers.py", LAYERS);
    let scene = |project: &Path| json!({ "project": project, "fuse": "/dev/fuse" }).to_string();
    let (outside, project) = (host.directory("outside", PERSON.1), host.directory("project", PERSON.1));
    Host::outside(&script, &[&scene(&outside)]);
    trial.control(CONTROL, host.special(&outside, PERSON.1).contains("set-id"));
    let out = host.inside(&project, &script, &[&scene(&project)]);
    let mounted = |kind: &str| out.contains(&format!(r#""kind": "{kind}", "mounted": "yes""#));
    trial.control("the agent mounts overlay and tmpfs", mounted("overlay") && mounted("tmpfs"));
    let left = host.special(&project, PERSON.1);
    trial.attempt(format!("left in the project: {left}"), !left.is_empty());
}

/// A program that has the set-id bit before the agent starts.
fn existing(trial: &mut Trial) {
    let Some(host) = Host::new(trial) else { return };
    let script = host.script("existing.py", EXISTING);
    let project = |name: &str| {
        let directory = host.directory(name, PERSON.1);
        let programs = host.directory(&format!("{name}/bin"), PERSON.1);
        for (name, mode) in [("su", 0o4755), ("newgrp", 0o2755), ("ping", 0o755)] {
            Host::program(&programs, name, PERSON.1, mode);
        }
        directory
    };
    let shared = host.directory("shared", PERSON.1);
    let replaced = |project: &Path| {
        let content = fs::read_to_string(project.join("bin/su")).expect("the program");
        content.contains("replaced")
    };
    let text = |path: &Path| path.to_str().expect("a UTF-8 path").to_owned();

    let outside = project("outside");
    Host::outside(&script, &[&text(&outside), &text(&shared)]);
    let left = host.special(&outside, PERSON.1).contains("upper/su");
    trial.control("outside of an agent the program is replaced and copied", replaced(&outside) && left);
    let project = project("project");
    let before = host.special(&project, PERSON.1);
    host.inside(&project, &script, &[&text(&project), &text(&shared)]);
    trial.attempt("replaced through a mapping", replaced(&project));
    trial.attempt("copied with its bit", host.special(&project, PERSON.1) != before);
}

/// A file capability of a user namespace becomes one of the host in a project that root owns.
fn capability(trial: &mut Trial) {
    let Some(host) = Host::new(trial) else { return };
    let script = host.script("capability.py", CAPABILITY);
    let (outside, project) = (host.directory("outside", PERSON.1), host.directory("project", 0));
    Host::program(&outside, "file", PERSON.1, 0o755);
    Host::program(&project, "file", 0, 0o755);
    let path = |directory: &Path| directory.join("file").to_str().expect("a UTF-8 path").to_owned();
    Host::outside(&script, &[&path(&outside)]);
    trial.control(CONTROL, host.special(&outside, PERSON.1).contains("capability"));
    host.inside(&project, &script, &[&path(&project)]);
    let left = host.special(&project, 0);
    trial.attempt(format!("left in the project: {left}"), !left.is_empty());
}
