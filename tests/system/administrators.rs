//! Members of the group `onecli` administer the daemon, but no combination of their rights reveals a stored value.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use onecli_tests::bins;
use onecli_tests::client::{Outcome, Run};
use onecli_tests::daemon::Daemon;
use onecli_tests::group::AdminGroup;
use onecli_tests::need;
use onecli_tests::upstream::Upstream;
use serde_json::Value;

/// A uid without an account.
const UID: &str = "--reuid=4242";

/// A daemon with one secret, and a member of the group.
struct World {
    daemon: Daemon,
    group: AdminGroup,
    cli: PathBuf,
    host: String,
}

impl World {
    fn new() -> Option<World> {
        if !need::root("rights of administrators") {
            return None;
        }
        let group = AdminGroup::new();
        let upstream = Upstream::start(&["api.test"]);
        let daemon = Daemon::builder().no_ebpf().upstream(&upstream).start();
        let host = format!("api.test:{}", upstream.https_addr().port());
        daemon.add_secret("api", "sk-live-0123456789", &["--host", &host, "--bearer"]);
        // Other users may have no access to the build directory.
        let cli = daemon.home().dir().join("onecli");
        fs::copy(bins::path("onecli"), &cli).unwrap();
        Some(World { daemon, group, cli, host })
    }

    fn member(&self, args: &[&str]) -> Outcome {
        self.member_gives(args, "sk-live-9876543210")
    }

    fn member_gives(&self, args: &[&str], stdin: &str) -> Outcome {
        let gid = format!("--regid={}", self.group.gid());
        let run = Run::new("setpriv").args([UID, &gid, "--clear-groups"]).arg(&self.cli);
        run.arg("--socket").arg(self.daemon.home().socket()).args(args).stdin(stdin).outcome()
    }
}

/// One test, because the group exists once per machine.
#[test]
fn group_members_administer_but_cannot_reveal_a_value() {
    let Some(world) = World::new() else { return };
    they_administer(&world);
    they_cannot_compose_a_value(&world);
    they_cannot_try_guesses(&world);
    they_cannot_move_a_value(&world);
}

/// A stored value reaches no new destination unless the administrator enters the value again.
fn they_cannot_move_a_value(world: &World) {
    let add =
        ["secret", "add", "moved", "--bearer", "--host", &world.host, "--path", "/v1/**", "--method", "GET"];
    world
        .daemon
        .home()
        .cli(&[&add[..], &["--value-stdin"]].concat())
        .stdin("sk-live-0123456789")
        .outcome()
        .ok("add");
    let edit = |args: &[&str]| world.member_gives(&[&["secret", "edit", "moved"], args].concat(), "");
    let wider: &[&[&str]] = &[
        &["--path", "/v2/**"],
        &["--path", "/**"],
        &["--method", "GET", "--method", "POST"],
        &["--all-methods"],
        &["--host", "evil.test"],
        &["--host", "api.test:1"],
        &["--query", "q"],
        &["--allow-plaintext", "yes"],
    ];
    let shown = || world.daemon.onecli_json(&["secret", "show", "moved"]);
    for args in wider {
        let refused = edit(args);
        assert_eq!(refused.code(), Some(1), "{args:?}: {refused:?}");
        assert!(refused.err().contains("requires its value again"), "{args:?}: {refused:?}");
    }
    assert_eq!(shown()["version"], 1);
    edit(&["--path", "/v1/models/*", "--env", "MOVED_KEY"]).ok("a narrower path");
    let wider = ["secret", "edit", "moved", "--path", "/v2/**", "--all-methods"];
    let unread = world.member(&wider);
    assert_eq!(unread.code(), Some(1), "{unread:?}");
    assert!(
        unread.err().contains("--value-stdin"),
        "standard input is read only with the option: {unread:?}"
    );
    assert_eq!(shown()["version"], 2);
    world.member(&[&wider[..], &["--value-stdin"]].concat()).ok("with a value that is piped in");
    assert_eq!(shown()["version"], 3);
    // A value that the daemon reads from an external source cannot be entered again.
    let add = ["secret", "add", "read", "--bearer", "--host", &world.host, "--file", "/etc/hostname"];
    world.daemon.onecli(&add).ok("add");
    world.member(&["secret", "edit", "read", "--method", "GET"]).ok("a narrower one");
    let refused = world.member(&["secret", "edit", "read", "--host", "evil.test"]);
    assert!(refused.code() == Some(4) && refused.err().contains("only root"), "{refused:?}");
    // Control: root may do it.
    world.daemon.onecli(&["secret", "edit", "moved", "--host", "evil.test", "--force"]).ok("root");
}

/// An import that reports "unchanged" would confirm a guess at a stored value without changing anything.
fn they_cannot_try_guesses(world: &World) {
    let value = "sk-live-guessed-0123456789";
    let add = ["secret", "add", "openai", "--template", "openai", "--value-stdin"];
    world.daemon.home().cli(&add).stdin(value).outcome().ok("secret add");
    let file = world.daemon.home().dir().join("guesses");
    let path = file.display().to_string();
    let answer = |guess: &str, options: &[&str]| {
        fs::write(&file, format!("OPENAI_API_KEY={guess}\n")).unwrap();
        let args = [&["--json", "secret", "import", &path], options].concat();
        world.member(&args).ok(&args.join(" "))
    };
    for options in [&[][..], &["--dry-run"], &["--replace", "--dry-run"]] {
        assert_eq!(answer(value, options), answer("sk-live-guessed-wrong", options), "{options:?}");
    }
    let rotated = |guess: &str| {
        let args = ["--json", "secret", "rotate", "openai", "--value-stdin"];
        let response = world.member_gives(&args, guess).json("secret rotate");
        (response["unchanged"].clone(), response["version"].clone())
    };
    assert_eq!(
        rotated(value),
        (Value::Null, 2.into()),
        "a rotation to the stored value also creates a version"
    );
    assert_eq!(rotated(value), (Value::Null, 3.into()));
    // Control: root sees the difference.
    fs::write(&file, format!("OPENAI_API_KEY={value}\n")).unwrap();
    let response = world.daemon.onecli_json(&["secret", "import", &path]);
    assert_eq!(response[0]["end"], "unchanged", "{response}");
}

fn they_cannot_compose_a_value(world: &World) {
    // A directory that the member may write.
    let own = world.daemon.home().dir().join("member");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(4242), Some(world.group.gid())).unwrap();
    let copy = own.join("copy.db");
    let copy = copy.to_str().unwrap();
    let add = ["secret", "add", "mine", "--bearer", "--host", &world.host];
    let refused: &[&[&str]] = &[
        &["key", "add-recovery"],
        &["key", "add-key-file"],
        &["key", "remove-slot", "1"],
        &["key", "rotate"],
        &["backup", copy],
        &["secret", "test", "api", "--path", "/"],
        &["vault", "import", "secret/team"],
        &[&add[..], &["--vault", "secret/team#key"]].concat(),
        &[&add[..], &["--file", "/etc/hostname"]].concat(),
        &[&add[..], &["--exec", "/bin/true"]].concat(),
    ];
    for args in refused {
        let outcome = world.member(args);
        assert_eq!(outcome.code(), Some(4), "{args:?}: {outcome:?}");
        assert!(outcome.err().contains("only root"), "{args:?}: {outcome:?}");
    }
    assert!(!std::path::Path::new(copy).exists());
    // Control: only members are refused these commands.
    world.daemon.onecli(&["key", "add-recovery"]).ok("root adds a recovery key");
    world.daemon.onecli(&["backup", copy]).ok("root takes a backup");
}

fn they_administer(world: &World) {
    let host = world.host.as_str();
    for args in [
        &["status"][..],
        &["key", "status"],
        &["agent", "add", "bot", "--factors", "token"],
        &["grant", "bot", "api"],
        &["secret", "add", "mine", "--bearer", "--host", host, "--value-stdin"],
        &["rule", "add", "deny", "--host", "other.test"],
        &["agent", "disable", "bot"],
        &["secret", "rotate", "api", "--value-stdin"],
        &["secret", "rollback", "api"],
    ] {
        world.member(args).ok(&args.join(" "));
    }
}
