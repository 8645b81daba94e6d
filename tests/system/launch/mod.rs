//! Agents started for users other than root: by the launcher, as the agent's user, with a private view of the files.

mod claude;
mod clients;
mod confirmed;
mod git;
mod git_remote;
mod git_state;
mod homes;
mod ordinary;
mod overlap;
mod own_runs;
mod packages;
mod people;
mod programs;
mod project;
mod recipes;
mod refused;
mod reset;
mod set_id;
mod signals;
mod site;
mod sshd;
mod terminal;
mod tmp;
mod view;

use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::{Run, Running};
use onecli_tests::daemon::{AGENTS_DIR, Agent};
use onecli_tests::{bins, need, wait_for};

use crate::scene::Scene;

/// The user who runs the agent, which exists on every Debian: uid 2.
const PERSON: &str = "bin";
/// The agent's user, which exists on every Debian: uid 5, gid 60.
const ROBOT: &str = "games";

/// A scene with a launcher, and an agent that [`PERSON`] may run.
struct Stage {
    // Dropped first, because it holds the daemon's directory.
    launcher: Running,
    scene: Scene,
    robot: Agent,
}

impl Stage {
    fn new() -> Option<Self> {
        Self::is_possible().then(|| Self::of(Scene::new()))
    }

    fn is_possible() -> bool {
        need::bpf("everything") && need::program("everything", "setpriv", "util-linux")
    }

    /// A stage in a scene of the test.
    fn of(scene: Scene) -> Self {
        let robot = scene.daemon.add_agent("robot", &["--user", ROBOT, "--runner", PERSON]);
        let _ = scene.daemon.grant(&robot, "api");
        people::make(&scene);
        let launcher = launcher(&scene);
        Self { launcher, scene, robot }
    }

    /// `onecli run` with `options` as `user`.
    fn run_as(&self, user: &str, options: &[&str], command: &[&str]) -> Run {
        let group = nix::unistd::User::from_name(user).unwrap().expect("it exists").gid.to_string();
        Run::new("setpriv")
            .args(["--reuid", user, "--regid", &group, "--clear-groups"])
            .arg(bins::path("onecli"))
            .arg("--socket")
            .arg(self.scene.daemon.home().socket())
            .args(["run", "--agent", &self.robot.name])
            .args(options)
            .arg("--")
            .args(command)
    }

    /// `onecli run` as the permitted user.
    fn run(&self, command: &[&str]) -> Run {
        self.run_as(PERSON, &[], command)
    }

    fn shell(&self, script: &str) -> Run {
        self.run(&["sh", "-c", script])
    }
}

/// The capabilities that the launcher's unit leaves it, in the syntax of setpriv(1).
fn bounding_set() -> String {
    let unit = bins::workspace().join("systemd/onecli-launcher.service");
    let text = std::fs::read_to_string(&unit).unwrap_or_else(|e| panic!("{}: {e}", unit.display()));
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.expect("the unit bounds the launcher's capabilities").split_whitespace();
    let names = names.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    format!("-all{}", names.collect::<String>())
}

/// The launcher, confined as by its unit, in a view where agents find the upstream's names. The group of the robot's
/// user replaces the group of agents' users.
fn launcher(scene: &Scene) -> Running {
    const INSIDE: &str = r#"
        mount --bind "$1" /etc/hosts || exit 120
        if [ -d "$2" ]; then mount --bind "$2" "$3" || exit 120; fi
        if [ -d "$4" ]; then mount --bind "$4" "$5" || exit 120; fi
        mount --bind "$6" /etc/passwd || exit 120
        bounding=$7
        shift 7
        exec setpriv --no-new-privs --bounding-set "$bounding" -- "$@""#;
    let home = scene.daemon.home();
    let socket = home.socket().with_file_name("launch.sock");
    std::fs::create_dir(packages::toolchain_inside(scene)).unwrap();
    let run = Run::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"])
        .arg(home.dir().join("hosts"))
        .arg(onecli_tests::client::tools())
        .arg(home.dir().join("tools"))
        .arg(packages::toolchain().unwrap_or_default())
        .arg(packages::toolchain_inside(scene))
        .arg(people::passwd(scene))
        .arg(bounding_set())
        .arg(bins::path("onecli"))
        .arg("--socket")
        .arg(home.socket())
        .args(["launcher", "--users", ROBOT])
        .env(AGENTS_DIR, home.agents_dir())
        .timeout(Duration::from_mins(5));
    let running = run.start();
    assert!(
        wait_for(Duration::from_secs(10), || socket.exists().then_some(())).is_some(),
        "the launcher does not start: {:?}",
        running.finish()
    );
    running
}

/// The Python of the test tools, at its path inside an agent.
fn python(scene: &Scene) -> Option<PathBuf> {
    Some(tool(scene, &onecli_tests::client::python()?))
}

/// A program of the test tools, at its path inside an agent.
fn tool(scene: &Scene, program: &Path) -> PathBuf {
    let inside = program.strip_prefix(onecli_tests::client::tools()).expect("a file of the test tools");
    scene.daemon.home().dir().join("tools").join(inside)
}

fn owner(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (found.uid(), found.gid())
}
