//! No file that runs with its owner's rights reaches a project: every route, each with a control outside of an agent.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::chown;
use onecli_tests::client::Run;
use onecli_tests::wait_for;
use serde_json::{Value, json};

use super::people::ALICE;
use super::{PERSON, ROBOT, Stage, owner};

/// The uid of [`PERSON`], and its group.
const ID: u32 = 2;

/// The control's result for a file system as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// Its files reach the project with their set-id bits.
    Copied,
    /// It contains a file with the bit, but overlayfs cannot read its content.
    Marked,
    /// It cannot contain a file with the bit.
    Empty,
}

/// The file systems that a user namespace may mount.
const LAYERS: &[(&str, Layer)] = &[
    ("binfmt_misc", Layer::Empty),
    ("bpf", Layer::Empty),
    ("cgroup", Layer::Empty),
    ("cgroup2", Layer::Empty),
    ("cpuset", Layer::Empty),
    ("devpts", Layer::Empty),
    ("fuse", Layer::Copied),
    ("mqueue", Layer::Marked),
    ("overlay", Layer::Copied),
    ("proc", Layer::Empty),
    ("ramfs", Layer::Copied),
    ("sysfs", Layer::Empty),
    ("tmpfs", Layer::Copied),
];

impl Stage {
    /// A directory of `user` that agents can share.
    fn directory(&self, name: &str, user: u32) -> PathBuf {
        let path = self.scene.daemon.home().dir().join(name);
        fs::create_dir_all(&path).unwrap();
        give(&path, user, 0o755);
        path
    }

    /// A script, at its path inside an agent.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scene.daemon.home().dir().join(name);
        file(&path, text, 0);
        path
    }

    /// A Python script that the agent runs in `project`.
    fn python(&self, project: &Path, script: &Path, args: &[&str]) -> Run {
        let command = [&["python3", script.to_str().unwrap()], args].concat();
        self.run_as(PERSON, &["--dir", project.to_str().unwrap()], &command).timeout(Duration::from_mins(2))
    }

    /// The files below a directory that are privileged, or that belong to none of `owners`.
    fn special(&self, directory: &Path, owners: &[u32]) -> Vec<String> {
        let script = self.script("special.py", include_str!("py/special.py"));
        let owners = owners.iter().map(u32::to_string);
        let out = Run::new("python3").arg(script).arg(directory).args(owners).outcome().ok("special.py");
        out.lines().map(str::to_owned).collect()
    }
}

/// A file of `user` and of the group with the same number, the only group in a user namespace of that user.
fn file(path: &Path, content: &str, user: u32) {
    fs::write(path, content).unwrap();
    give(path, user, 0o644);
}

fn give(path: &Path, user: u32, mode: u32) {
    chown(path, Some(user.into()), Some(user.into())).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The same script as the user, outside of an agent.
fn control(user: &str, script: &Path, args: &[&str]) -> Run {
    let python = Run::new("setpriv").args(["--reuid", user, "--regid", user, "--clear-groups", "python3"]);
    python.arg(script).args(args).timeout(Duration::from_mins(2))
}

/// Lines of JSON, indexed by the value of a field.
fn by_field(out: &str, field: &str) -> BTreeMap<String, Value> {
    let values = out.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    values.map(|value| (value[field].as_str().expect("the field").to_owned(), value)).collect()
}

#[test]
fn no_layer_below_a_project_adds_a_set_user_id_file() {
    let Some(stage) = Stage::new() else { return };
    let script = stage.script("layers.py", include_str!("py/layers.py"));
    // A device as udev creates it on most hosts, at a path that the agent sees.
    let device = stage.scene.daemon.home().dir().join("fuse");
    let everybody = Mode::from_bits_truncate(0o666);
    mknod(&device, SFlag::S_IFCHR, everybody, makedev(10, 229)).unwrap();
    fs::set_permissions(&device, fs::Permissions::from_mode(0o666)).unwrap();
    let scene = |project: &Path| json!({ "project": project, "fuse": device }).to_string();

    let outside = stage.directory("outside", ID);
    let out = control(PERSON, &script, &[&scene(&outside)]).outcome().ok("the control");
    let controls = by_field(&out, "kind");
    for (kind, control) in &controls {
        if control["mounted"] == "yes" {
            let known = LAYERS.iter().any(|(name, _)| name == kind);
            assert!(known, "{kind} may be mounted in a user namespace: add it to LAYERS");
        }
    }

    let project = stage.directory("project", ID);
    let outcome = stage.python(&project, &script, &[&scene(&project)]).outcome();
    let agents = by_field(&outcome.ok("the agent"), "kind");
    assert_eq!(stage.special(&project, &[ID]), [""; 0], "{agents:#?}");
    assert!(!outcome.err().contains("WARNING"), "{}", outcome.err());
    for (kind, layer) in LAYERS {
        let (Some(control), Some(agent)) = (controls.get(*kind), agents.get(*kind)) else { continue };
        println!("{kind}: {layer:?}; control {control}; agent {agent}");
        if control["mounted"] != "yes" {
            continue;
        }
        let copied = !stage.special(&outside.join(kind), &[ID]).is_empty();
        let marked = control["marked"].as_u64().is_some_and(|marked| marked > 0);
        assert_eq!(copied, *layer == Layer::Copied, "{kind}: {control}");
        assert!(marked || *layer != Layer::Marked, "{kind}: {control}");
        // The agent's user namespaces have the same abilities as those of others, except for FUSE.
        let expected = if *kind == "fuse" { json!("EACCES") } else { control["mounted"].clone() };
        assert_eq!(agent["mounted"], expected, "{kind}");
        let is_layer = *layer == Layer::Copied && *kind != "fuse";
        assert!(!is_layer || agent["overlay"] == "yes", "{kind}: {agent}");
        assert_eq!((&agent["marked"], &agent["seeds"]), (&json!(0), &json!([])), "{kind}");
    }
}

/// A directory with programs that already have the bits.
fn with_programs(stage: &Stage, name: &str) -> PathBuf {
    let directory = stage.directory(name, ID);
    let programs = stage.directory(&format!("{name}/bin"), ID);
    for (name, mode) in [("su", 0o4755), ("newgrp", 0o2755), ("ping", 0o755)] {
        file(&programs.join(name), &"original\n".repeat(16), ID);
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    Run::new("setcap").arg("cap_net_raw=ep").arg(programs.join("ping")).outcome().ok("setcap");
    directory
}

#[test]
fn privileged_programs_of_a_project_are_not_changed_or_copied() {
    let Some(stage) = Stage::new() else { return };
    if !onecli_tests::need::program("everything", "setcap", "libcap2-bin") {
        return;
    }
    let script = stage.script("existing.py", include_str!("py/existing.py"));
    let shared = |name: &str| {
        let shared = stage.directory(name, ID);
        file(&shared.join("su"), "original\n", ID);
        fs::set_permissions(shared.join("su"), fs::Permissions::from_mode(0o4755)).unwrap();
        shared
    };

    // Outside, every attempt works on a fresh copy of the directory, or the row would prove nothing.
    let outside = with_programs(&stage, "outside");
    let tools = shared("outside-shared");
    let args = [outside.to_str().unwrap(), tools.to_str().unwrap()];
    let out = control(PERSON, &script, &args).outcome().ok("the control");
    let controls = by_field(&out, "name");
    println!("{out}");
    for done in ["store", "store_set_group_id", "store_capability", "copy_shared"] {
        assert_eq!(controls[done]["result"], "done", "{out}");
    }
    assert!(fs::read_to_string(outside.join("bin/newgrp")).unwrap().contains("replaced"));
    assert!(stage.special(&outside.join("shared-upper"), &[ID])[0].contains("set-id"));

    let project = with_programs(&stage, "project");
    let tools = shared("shared");
    let before = stage.special(&project, &[ID]);
    let (project_path, tools_path) = (project.to_str().unwrap(), tools.to_str().unwrap());
    let command = ["python3", script.to_str().unwrap(), project_path, tools_path];
    let outcome = stage.run_as(PERSON, &["--dir", project_path, "--share", tools_path], &command).outcome();
    let out = outcome.ok("the agent");
    println!("{out}\n{}", outcome.err());
    for (name, agent) in by_field(&out, "name") {
        assert_ne!(agent["result"], "done", "{name}");
    }
    assert!(outcome.err().contains("/project/bin/"), "{}", outcome.err());
    assert!(outcome.err().contains("and 2 more files have a set-user-ID"), "{}", outcome.err());
    assert_eq!(stage.special(&project, &[ID]), before);
    for name in ["su", "newgrp", "ping"] {
        let content = fs::read_to_string(project.join("bin").join(name)).unwrap();
        assert!(content.starts_with("original"), "{name}: {content}");
    }
    // The agent can still change everything else in the project.
    let script = "mv bin elsewhere && echo x > elsewhere/new && ./elsewhere/su; cat elsewhere/su | head -1";
    let out = stage.run_as(PERSON, &["--dir", project_path], &["sh", "-c", script]).outcome().ok("its own");
    assert_eq!(out, "original\n");
}

/// An account and its files may be older than its agent.
#[test]
fn privileged_programs_in_the_agents_home_are_not_changed() {
    let Some(stage) = Stage::new() else { return };
    let user = nix::unistd::User::from_name(ROBOT).unwrap().unwrap();
    let homes = stage.scene.daemon.home().agents_dir().join(".state/homes");
    let home = homes.join(ROBOT);
    fs::create_dir_all(&home).unwrap();
    for closed in [homes.parent().unwrap(), &homes, &home] {
        fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    }
    for (name, mode) in [("", 0o700), ("plain", 0o755), ("su", 0o4755)] {
        let path = home.join(name);
        if !name.is_empty() {
            fs::write(&path, "original\n").unwrap();
        }
        chown(&path, Some(user.uid), Some(user.gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let script = "cd && echo new > plain && cat plain && ! echo new > su && ! mv su su2 && cat su";
    let outcome = stage.shell(script).outcome();
    assert_eq!(outcome.ok("the agent"), "new\noriginal\n");
    assert!(outcome.err().contains("Read-only file system"), "{outcome:?}");
}

#[test]
fn project_with_too_many_privileged_files_is_refused() {
    let Some(stage) = Stage::new() else { return };
    let project = stage.directory("project", ID);
    for number in 0..1025 {
        let path = project.join(number.to_string());
        file(&path, "", ID);
        fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).unwrap();
    }
    let run = || stage.run_as(PERSON, &["--dir", project.to_str().unwrap()], &["true"]).outcome();
    let refused = run();
    assert_eq!(refused.code(), Some(125), "{refused:?}");
    assert!(refused.err().contains("find ") && refused.err().contains("more than 1024"), "{refused:?}");
    fs::remove_file(project.join("7")).unwrap();
    run().ok("with 1024");
}

/// A file system in a file, mounted in this process's mount namespace.
struct Btrfs(PathBuf);

impl Btrfs {
    fn new(stage: &Stage) -> Option<Self> {
        let here = onecli_tests::need::program("Btrfs", "mkfs.btrfs", "btrfs-progs");
        let (image, place) = (stage.scene.daemon.home().dir().join("image"), stage.directory("btrfs", ID));
        fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let make = || Run::new("mkfs.btrfs").arg("--quiet").arg(&image).outcome().ok("mkfs.btrfs");
        let mount = || Run::new("mount").args(["-o", "loop"]).args([&image, &place]).outcome();
        let mounted = here.then(make).map(|_| mount())?;
        let why = || Err(format!("cannot mount Btrfs: {}", mounted.err()));
        onecli_tests::need::fixture("Btrfs", if mounted.status.success() { Ok(()) } else { why() })?;
        give(&place, ID, 0o755);
        Some(Self(place))
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let ended = Run::new("umount").arg(&self.0).outcome();
        if !ended.status.success() {
            println!("{}: {}", self.0.display(), ended.err());
        }
    }
}

#[test]
fn snapshot_of_btrfs_copies_no_set_user_id_file() {
    let Some(stage) = Stage::new() else { return };
    let Some(btrfs) = Btrfs::new(&stage) else { return };
    let own = btrfs.0.join("own");
    Run::new("btrfs").args(["subvolume", "create"]).arg(&own).outcome().ok("btrfs");
    give(&own, ID, 0o755);
    file(&own.join("su"), "original\n", ID);
    fs::set_permissions(own.join("su"), fs::Permissions::from_mode(0o4755)).unwrap();
    let script = stage.script("snapshot.py", include_str!("py/snapshot.py"));
    let directory = btrfs.0.to_str().unwrap();
    let out = control(PERSON, &script, &[directory, "outside"]).outcome().ok("the control");
    assert_eq!(out, "BTRFS_IOC_SNAP_CREATE done\nBTRFS_IOC_SNAP_CREATE_V2 done\n");
    let before = stage.special(&btrfs.0, &[ID]);
    assert_eq!(before.len(), 3, "{before:?}");
    // Root's own run: the launcher's view was created before this mount.
    let command = ["run", "--agent", "robot", "--dir", directory, "--", "python3"];
    let run = stage.scene.daemon.home().cli(&command).arg(&script).args([directory, "inside"]);
    let out = run.outcome().ok("the agent");
    assert_eq!(out, "BTRFS_IOC_SNAP_CREATE ENOTTY\nBTRFS_IOC_SNAP_CREATE_V2 ENOTTY\n");
    assert_eq!(stage.special(&btrfs.0, &[ID]), before);
}

/// Above all in root's project, where such files would belong to the host's root.
#[test]
fn file_capabilities_are_not_set() {
    let Some(stage) = Stage::new() else { return };
    let script = stage.script("capability.py", include_str!("py/capability.py"));
    let outside = stage.directory("outside", ID);
    let path = outside.join("file");
    file(&path, "x", ID);
    let out = control(PERSON, &script, &[path.to_str().unwrap()]).outcome().ok("the control");
    assert!(out.starts_with("setxattr done\nlsetxattr done\nfsetxattr done\n"), "{out}");
    assert!(stage.special(&outside, &[ID])[0].contains("capability"));

    for (name, user) in [("of-a-person", ID), ("of-root", 0)] {
        let project = stage.directory(name, user);
        let path = project.join("file");
        file(&path, "x", user);
        let command = ["run", "--agent", "robot", "--dir", project.to_str().unwrap(), "--", "python3"];
        let run = stage.scene.daemon.home().cli(&command).arg(&script).arg(&path);
        let out = run.outcome().ok(name);
        let refused = ["setxattr", "lsetxattr", "fsetxattr", "setxattrat"].map(|c| format!("{c} ENOTSUP\n"));
        assert_eq!(out, refused.concat(), "{name}");
        assert_eq!(stage.special(&project, &[user]), [""; 0], "{name}");
    }
}

#[test]
fn programs_that_copy_attributes_work_without_them() {
    let Some(stage) = Stage::new() else { return };
    let project = stage.directory("project", ID);
    file(&project.join("file"), "text\n", ID);
    let script = r#"
        set -e
        cp -a file copy; cp -p file kept; install -m 755 file installed; mv copy "$XDG_RUNTIME_DIR/moved"
        export HOME="$XDG_RUNTIME_DIR/home"; mkdir "$HOME" tree; cp file tree/; tar -cf tree.tar tree; rm -r tree; tar -xf tree.tar; cp -a tree "$HOME/"
        cat "$XDG_RUNTIME_DIR/moved" kept installed tree/file "$HOME/tree/file""#;
    let command = ["sh", "-c", script];
    let outcome = stage.run_as(PERSON, &["--dir", project.to_str().unwrap()], &command).outcome();
    assert_eq!(outcome.ok("copies"), "text\n".repeat(5));
    assert!(!outcome.err().contains("Operation not supported"), "{}", outcome.err());
}

/// The second layer: the test represents an unknown route.
#[test]
fn launcher_reports_privileged_files_that_appear_during_a_run() {
    let Some(stage) = Stage::new() else { return };
    stage.allow_alice();
    let project = stage.directory("project", ALICE);
    file(&project.join("old"), "x", ALICE);
    fs::set_permissions(project.join("old"), fs::Permissions::from_mode(0o4755)).unwrap();
    // Times are compared by the second.
    std::thread::sleep(Duration::from_millis(2100));
    let options = ["--dir", project.to_str().unwrap()];
    let script = "touch started; while [ ! -e go ]; do sleep 0.1; done; exit 3";
    let running = stage.alice(&options, script).start();
    assert!(wait_for(Duration::from_secs(20), || project.join("started").exists().then_some(())).is_some());
    fs::create_dir(project.join("a")).unwrap();
    give(&project.join("a"), ALICE, 0o755);
    for (name, user, mode) in
        [("a/new\u{1b}[2J", ALICE, 0o4755), ("group", ALICE, 0o2755), ("root", 0, 0o644)]
    {
        file(&project.join(name), "x", user);
        fs::set_permissions(project.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(project.join("go"), "").unwrap();
    give(&project.join("go"), ALICE, 0o644);
    let outcome = running.finish();
    assert_eq!(outcome.code(), Some(3), "{outcome:?}");
    let err = outcome.err();
    for expected in [
        r#"/a/new\u{1b}[2J" was made or changed during this run, and it runs with its owner's rights"#,
        r#"/group" was made or changed during this run, and it runs with its owner's rights"#,
        r#"/root" was made or changed during this run, and it belongs to another user"#,
    ] {
        assert!(err.contains(expected), "{expected}: {err}");
    }
    assert_eq!(err.matches("WARNING").count(), 3, "{err}");
    std::thread::sleep(Duration::from_millis(2100));
    let quiet = stage.alice(&options, "echo x > plain").outcome();
    quiet.ok("the next run");
    assert!(!quiet.err().contains("WARNING"), "{quiet:?}");
    assert_eq!(owner(&project.join("plain")).0, ALICE);
}

#[test]
fn view_has_the_devices_that_programs_need_and_no_other() {
    let Some(stage) = Stage::new() else { return };
    let out = stage.shell("ls /dev").outcome().ok("ls");
    let names: Vec<&str> = out.lines().collect();
    let expected = [
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    ];
    assert_eq!(names, expected);
    let script = r#"
        set -e
        echo x > /dev/null; head -c 3 /dev/zero | tr '\0' 0; head -c 4 /dev/urandom | wc -c; head -c 4 /dev/random | wc -c
        ! echo x > /dev/full
        echo in | cat /dev/stdin; (echo out > /dev/stdout) | cat; echo y > /dev/shm/x; cat /dev/shm/x; stat -c %a /dev/shm
        ! touch /dev/new; ! mknod "$XDG_RUNTIME_DIR/n" c 1 3
        python3 -c 'import os, pty; a, b = pty.openpty(); print(os.ttyname(b)[:9], os.path.samefile(os.ttyname(b), b))'"#;
    let out = stage.shell(script).outcome().ok("devices");
    assert_eq!(out, "0004\n4\nin\nout\ny\n1777\n/dev/pts/ True\n");
    // A device of the host at another path is unusable in the view.
    let device = stage.scene.daemon.home().dir().join("null");
    let everybody = Mode::from_bits_truncate(0o666);
    mknod(&device, SFlag::S_IFCHR, everybody, makedev(1, 3)).unwrap();
    fs::set_permissions(&device, fs::Permissions::from_mode(0o666)).unwrap();
    let cat = format!("cat {}", device.display());
    let outside = Run::new("setpriv").args(["--reuid", ROBOT, "--clear-groups", "sh", "-c", &cat]);
    outside.outcome().ok("the control");
    let inside = stage.shell(&cat).outcome();
    assert!(inside.err().contains("Permission denied"), "{inside:?}");
}
