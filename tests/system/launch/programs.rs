//! Programs that create user namespaces work in an agent.

use std::time::Duration;

use onecli_tests::client::{Outcome, Run};
use onecli_tests::need;

use super::{PERSON, Stage, people};

impl Stage {
    /// A script that the agent runs, with a writable home.
    fn program(&self, script: &str, args: &[&str]) -> Outcome {
        let script = format!("cd $XDG_RUNTIME_DIR && export HOME=$PWD && {script}");
        let command = [&["sh", "-c", &script, "sh"], args].concat();
        self.run(&command).timeout(Duration::from_mins(2)).outcome()
    }
}

#[test]
fn unshare_maps_the_agent_to_root() {
    let Some(stage) = Stage::new() else { return };
    let script = "unshare -Ur sh -c 'id -u; mount -t tmpfs x /mnt && touch /mnt/file && ls /mnt'";
    let script = script.replace("-Ur", "-Urm");
    assert_eq!(stage.program("unshare -Ur id -u", &[]).ok("unshare -Ur"), "0\n");
    assert_eq!(stage.program(&script, &[]).ok("unshare -Urm"), "0\nfile\n");
}

#[test]
fn bwrap_creates_a_sandbox() {
    let Some(stage) = Stage::new() else { return };
    if !need::program("bwrap", "bwrap", "bubblewrap") {
        return;
    }
    let bwrap = "bwrap --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --unshare-pid --die-with-parent \
                 sh -c 'echo x > /dev/null; ls /dev/pts/ptmx; touch /tmp/x; ls /tmp; echo $$'";
    let out = stage.program(bwrap, &[]).ok("bwrap");
    assert!(out.starts_with("/dev/pts/ptmx\nx\n"), "{out}");
    let shared = "bwrap --dev-bind / / sh -c 'head -c 2 /dev/zero | wc -c; echo x > /dev/shm/bwrap; cat /dev/shm/bwrap'";
    assert_eq!(stage.program(shared, &[]).ok("bwrap --dev-bind"), "2\nx\n");
}

#[test]
fn chromium_renders_a_page_in_its_sandbox() {
    let Some(stage) = Stage::new() else { return };
    if !need::program("Chromium", "chromium", "chromium") {
        return;
    }
    let page = stage.scene.daemon.home().dir().join("page.html");
    people::file(&page, "<p id=a>before</p><script>a.textContent = 6 * 7 + ' ok'</script>", 0);
    // The renderer's sandbox is a user namespace: `--no-sandbox` is not among the options.
    let chromium = "chromium --headless=new --disable-gpu --no-first-run --user-data-dir=$HOME/profile --dump-dom \"$1\"";
    let outcome = stage.program(chromium, &[&format!("file://{}", page.display())]);
    let out = outcome.ok("chromium");
    assert!(out.contains(">42 ok</p>"), "{outcome:?}");
    assert!(!outcome.err().contains("No usable sandbox"), "{}", outcome.err());
}

/// Without a registry: the image is Debian's static busybox.
#[test]
fn podman_runs_a_container_with_the_hosts_network() {
    let Some(stage) = Stage::new() else { return };
    let here = need::program("Podman", "podman", "podman")
        && need::program("Podman", "runc", "runc")
        && need::program("Podman", "busybox", "busybox-static");
    if !here {
        return;
    }
    // Without subordinate ids: newuidmap(1) gains nothing in an agent, so one user owns all files of the image.
    let script = r#"
        set -e
        export CONTAINERS_CONF=$HOME/containers.conf CONTAINERS_STORAGE_CONF=$HOME/storage.conf
        mkdir -p "$HOME/.config/containers" store image/bin
        printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n' > "$CONTAINERS_CONF"
        printf '[storage]\ndriver = "%s"\nrunroot = "%s"\ngraphroot = "%s"\n' "$1" "$HOME/run" "$HOME/store" > "$CONTAINERS_STORAGE_CONF"
        echo '{"default":[{"type":"insecureAcceptAnything"}]}' > "$HOME/.config/containers/policy.json"
        cp "$(command -v busybox)" image/bin/busybox; ln -s busybox image/bin/sh
        tar -C image --owner=0 --group=0 --numeric-owner -cf image.tar .
        podman import image.tar box > import.log 2>&1 || { cat import.log; exit 9; }
        podman run --rm --network=host --runtime=runc box /bin/busybox sh -c 'busybox id -u; busybox echo in a container; busybox ls /dev/null'"#;
    let project = stage.scene.daemon.home().dir().join("podman");
    people::dir(&project, 2);
    for driver in ["overlay", "vfs"] {
        let script = format!("mkdir {driver}; cd {driver}; export HOME=$PWD; {script}");
        let command = ["sh", "-c", &script, "sh", driver];
        let run: Run = stage.run_as(PERSON, &["--dir", project.to_str().unwrap()], &command);
        let out = run.timeout(Duration::from_mins(2)).outcome().ok(driver);
        assert!(out.ends_with("0\nin a container\n/dev/null\n"), "{driver}: {out}");
    }
}
