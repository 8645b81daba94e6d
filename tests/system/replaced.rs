//! Replaced values: they are stored for a while, masked, restored, and erased.

use std::fs;
use std::path::Path;
use std::time::Duration;

use onecli_tests::client::{Outcome, Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};
use serde_json::Value;

use crate::scene::{API, API_V6, Scene, VALUE, Way, curl_with_key};

const SECOND: &str = "sk-live/second+value=8871";
const THIRD: &str = "sk-live/third+value=0042";
/// The end of the wrap; the encrypted value follows.
const WRAP: usize = 121;

fn scene(keep: &str) -> Scene {
    let daemon = Daemon::builder().config(&format!("[vault]\nkeep_replaced = \"{keep}\"\n"));
    Scene::of(daemon, Upstream::start(&[API, API_V6]), &["--bearer"])
}

fn change(scene: &Scene, args: &[&str], value: &str) -> Outcome {
    scene.daemon.home().cli(&[&["secret"], args].concat()).stdin(value).outcome()
}

fn rotate(scene: &Scene, value: &str) {
    change(scene, &["rotate", "api", "--value-stdin"], value).ok("secret rotate");
}

/// Checks that a request is injected with this value.
fn serves(scene: &Scene, value: &str) {
    let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    scene.injected_once(&format!("Bearer {value}"));
}

fn shown(scene: &Scene) -> Value {
    scene.daemon.onecli_json(&["secret", "show", "api"])
}

fn refused(scene: &Scene, message: &str) {
    let outcome = change(scene, &["rollback", "api"], "");
    assert!(!outcome.status.success() && outcome.err().contains(message), "{message}: {outcome:?}");
}

/// All versions in the database: number and sealed value.
fn versions(database: &Path) -> Vec<(u64, Vec<u8>)> {
    const SCRIPT: &str = "import json, sqlite3, sys\n\
        db = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)\n\
        print(json.dumps([[v, s.hex()] for v, s in db.execute('SELECT version, sealed FROM secret_versions ORDER BY 1')]))\n";
    let found: Vec<(u64, String)> = serde_json::from_str(
        &Run::new("python3").args(["-c", SCRIPT]).arg(database).outcome().ok("versions"),
    )
    .unwrap();
    let decode = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
    found.iter().map(|(version, sealed)| (*version, decode(sealed))).collect()
}

/// Changes the database of a stopped daemon directly.
fn sql(scene: &mut Scene, statements: &[&str]) {
    const SCRIPT: &str = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        [db.execute(statement) for statement in sys.argv[2:]]\n\
        db.commit()\n";
    scene.daemon.terminate();
    let database = scene.daemon.home().data_dir().join("onecli.db");
    Run::new("python3").args(["-c", SCRIPT]).arg(database).args(statements).outcome().ok("edit");
    scene.daemon.restart();
}

/// Returns whether the database or its log contains this encrypted value.
fn is_on_disk(scene: &Scene, sealed: &[u8]) -> bool {
    let database = scene.daemon.home().data_dir().join("onecli.db");
    let body = &sealed[WRAP..];
    [database.clone(), database.with_extension("db-wal")]
        .iter()
        .any(|file| fs::read(file).unwrap_or_default().windows(body.len()).any(|window| window == body))
}

#[test]
fn replaced_value_is_scrubbed_while_stored_and_then_erased() {
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let scene = scene("20s");
    // The service stores the value, and returns it to every client.
    scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).ok("an injected request");
    let open = scene.daemon.add_agent("open", &["--factors", "token", "--egress", "allow"]);
    let read = |agent: &Agent| {
        let run = curl(&scene.url("/stored")).args(["--include"]);
        scene.daemon.explicit(&agent.token, run).outcome().ok("/stored")
    };
    let database = scene.daemon.home().data_dir().join("onecli.db");
    rotate(&scene, SECOND);
    let kept = versions(&database)[0].clone();
    assert_eq!(kept.0, 1);
    assert!(shown(&scene)["previous_until"].is_string(), "{}", shown(&scene));
    assert!(is_on_disk(&scene, &kept.1), "the test finds stored values");
    let text = read(&open);
    assert!(text.contains("Bearer ****") && !text.contains(VALUE), "{text}");

    let is_erased = || !is_on_disk(&scene, &kept.1);
    wait_for(Duration::from_mins(1), || is_erased().then_some(())).expect("the value was not erased");
    assert!(shown(&scene)["previous_until"].is_null(), "{}", shown(&scene));
    assert_eq!(versions(&database).len(), 1);
    refused(&scene, "no previous value of secret 'api' is retained");
    scene.upstream.clear();
    serves(&scene, SECOND);
}

#[test]
fn rollback_restores_the_previous_value_as_the_next_version() {
    let scene = scene("1h");
    refused(&scene, "no previous value");
    let placeholder = scene.placeholder(Way::Explicit).to_owned();
    rotate(&scene, SECOND);
    serves(&scene, SECOND);
    let restored = change(&scene, &["rollback", "api"], "");
    assert!(restored.ok("rollback").contains("version 3"), "{restored:?}");
    serves(&scene, VALUE);
    assert_eq!((&shown(&scene)["version"], scene.placeholder(Way::Explicit)), (&3.into(), &*placeholder));
    // A second rollback undoes the first.
    change(&scene, &["rollback", "api"], "").ok("rollback");
    serves(&scene, SECOND);
    // The value before the previous one is deleted.
    rotate(&scene, THIRD);
    change(&scene, &["rollback", "api"], "").ok("rollback");
    serves(&scene, SECOND);
    scene.daemon.onecli(&["secret", "remove", "api"]).ok("remove");
    refused(&scene, "there is no secret 'api'");
}

/// A script that runs again must not lose the previous value.
#[test]
fn rotation_to_the_stored_value_by_root_changes_nothing() {
    let scene = scene("1h");
    rotate(&scene, SECOND);
    let again = change(&scene, &["rotate", "api", "--value-stdin"], SECOND).ok("again");
    assert!(again.contains("unchanged") && again.contains("version 2"), "{again}");
    let response = change(&scene, &["--json", "rotate", "api", "--value-stdin"], SECOND).json("again");
    assert_eq!((&response["unchanged"], &response["version"]), (&true.into(), &2.into()), "{response}");
    assert!(response["previous_until"].is_string(), "{response}");
    change(&scene, &["rollback", "api"], "").ok("rollback");
    serves(&scene, VALUE);
    // A value that may be compromised is not stored, even if the new value equals it.
    let erased =
        change(&scene, &["rotate", "api", "--compromised", "--value-stdin"], VALUE).ok("compromised");
    assert!(erased.contains("version 4") && erased.contains("is erased"), "{erased}");
    refused(&scene, "no previous value");
}

#[test]
fn compromised_value_is_not_stored() {
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let scene = scene("1h");
    let database = scene.daemon.home().data_dir().join("onecli.db");
    rotate(&scene, SECOND);
    let before = versions(&database);
    assert_eq!(before.len(), 2);
    let done = change(&scene, &["rotate", "api", "--compromised", "--value-stdin"], THIRD);
    assert!(done.ok("rotate").contains("is erased"), "{done:?}");
    assert_eq!(versions(&database).iter().map(|(version, _)| *version).collect::<Vec<_>>(), [3]);
    assert!(before.iter().all(|(_, sealed)| !is_on_disk(&scene, sealed)), "both are erased");
    refused(&scene, "no previous value");
    serves(&scene, THIRD);
}

#[test]
fn keep_replaced_0_stores_no_previous_value() {
    let scene = scene("0");
    rotate(&scene, SECOND);
    assert!(shown(&scene)["previous_until"].is_null());
    refused(&scene, "vault.keep_replaced is 0");
    serves(&scene, SECOND);
}

/// An attacker who can write to the database restores a copy of a row that was made earlier.
#[test]
fn previous_version_copied_back_into_the_database_is_not_restored() {
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let mut scene = scene("1h");
    rotate(&scene, SECOND);
    sql(&mut scene, &["CREATE TABLE aside AS SELECT * FROM secret_versions WHERE version = 1"]);
    let done = change(&scene, &["rotate", "api", "--compromised", "--value-stdin"], THIRD);
    done.ok("rotate");
    sql(
        &mut scene,
        &[
            "INSERT INTO secret_versions SELECT * FROM aside",
            "UPDATE secret_versions SET kept_until = 9e15 WHERE version = 1",
        ],
    );
    refused(&scene, "no previous value");
    // As the version before the current one.
    sql(&mut scene, &["UPDATE secret_versions SET version = 2 WHERE version = 1"]);
    refused(&scene, "does not open");
    // As the current one.
    sql(
        &mut scene,
        &[
            "DELETE FROM secret_versions WHERE version = 3",
            "UPDATE secret_versions SET version = 3, kept_until = NULL",
        ],
    );
    let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
    assert_eq!((reply.verdict(), scene.upstream.requests().len()), (502, 0), "{reply:?}");
}

/// An attacker who writes to the database cannot make the daemon restore a stored value for another host.
#[test]
fn previous_version_changed_in_the_database_is_not_restored() {
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let mut scene = scene("1h");
    rotate(&scene, SECOND);
    let widen = "UPDATE secret_versions SET definition = replace(definition, 'api.test', 'six.test') WHERE version = 1";
    sql(&mut scene, &[widen]);
    refused(&scene, "hosts changed");
    sql(
        &mut scene,
        &[
            "UPDATE secret_versions SET definition = replace(definition, 'six.test', 'api.test'), sealed = substr(sealed, 1, 130) WHERE version = 1",
        ],
    );
    refused(&scene, "does not open");
    serves(&scene, SECOND);
}
