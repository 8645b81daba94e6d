//! Users with homes, in the user database that a test's launcher sees. The host's database is not changed.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, chown};
use onecli_tests::bins;
use onecli_tests::client::Run;

use super::Stage;
use crate::scene::Scene;

/// The uid of `alice`, who may run the agent after [`Stage::allow_alice`], and of `carol`.
pub(super) const ALICE: u32 = 4242;
pub(super) const CAROL: u32 = 4243;
/// The group of both: `man`.
pub(super) const GROUP: u32 = 12;

/// Creates their homes, and a user database that lists them.
pub(super) fn make(scene: &Scene) {
    let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
    let people = scene.daemon.home().dir().join("people");
    fs::create_dir(&people).unwrap();
    fs::set_permissions(&people, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, uid) in [("alice", ALICE), ("carol", CAROL)] {
        let home = people.join(name);
        dir(&home, uid);
        file(&home.join("file"), &format!("of {name}\n"), uid);
        writeln!(passwd, "onecli-test-{name}:x:{uid}:{GROUP}::{}:/bin/sh", home.display()).unwrap();
    }
    fs::write(self::passwd(scene), passwd).unwrap();
    fs::set_permissions(self::passwd(scene), fs::Permissions::from_mode(0o644)).unwrap();
}

pub(super) fn passwd(scene: &Scene) -> PathBuf {
    scene.daemon.home().dir().join("passwd")
}

pub(super) fn dir(path: &Path, uid: u32) {
    fs::create_dir_all(path).unwrap();
    give(path, uid, 0o755);
}

pub(super) fn file(path: &Path, content: &str, uid: u32) {
    fs::write(path, content).unwrap();
    give(path, uid, 0o644);
}

fn give(path: &Path, uid: u32, mode: u32) {
    chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(GROUP))).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Stage {
    pub(super) fn home_of(&self, name: &str) -> PathBuf {
        self.scene.daemon.home().dir().join("people").join(name)
    }

    pub(super) fn allow_alice(&self) {
        self.scene.daemon.onecli(&["agent", "allow-run", &self.robot.name, "@man"]).ok("allow-run");
    }

    /// `onecli run` as a user with a home.
    pub(super) fn run_with_home(&self, uid: u32, options: &[&str], command: &[&str]) -> Run {
        const INSIDE: &str = r#"mount --bind "$1" /etc/passwd || exit 120; shift; exec "$@""#;
        Run::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"])
            .arg(passwd(&self.scene))
            .args(["setpriv", "--reuid", &uid.to_string(), "--regid", &GROUP.to_string(), "--clear-groups"])
            .arg(bins::path("onecli"))
            .arg("--socket")
            .arg(self.scene.daemon.home().socket())
            .args(["run", "--agent", &self.robot.name])
            .args(options)
            .arg("--")
            .args(command)
    }

    pub(super) fn alice(&self, options: &[&str], script: &str) -> Run {
        self.run_with_home(ALICE, options, &["sh", "-c", script])
    }
}
