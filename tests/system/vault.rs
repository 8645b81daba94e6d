//! The vault as operators and attackers use it: an edited database, changing keys, backups, memory.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use onecli_model::SecretValue;
use onecli_sys::{OsRandom, PrivateDir};
use onecli_tests::canary::Canary;
use onecli_tests::client::{Outcome, Run, curl};
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};
use onecli_vault::{KeySource, Vault};
use serde_json::{Value, json};

use crate::scene::{API, API_V6, KEY, Scene, VALUE, Way, curl_with_key};

/// Changes the database of a stopped daemon directly.
fn sql(daemon: &Daemon, statement: &str) {
    const SCRIPT: &str = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute(sys.argv[2])\n\
        db.commit()\n";
    let database = daemon.home().data_dir().join("onecli.db");
    Run::new("python3").args(["-c", SCRIPT]).arg(database).arg(statement).outcome().ok(statement);
}

/// Merges the database's log into the main file, and returns its content.
fn set_aside(database: &Path) -> Vec<u8> {
    const SCRIPT: &str = "import sqlite3, sys\n\
        sqlite3.connect(sys.argv[1]).execute('PRAGMA journal_mode=DELETE')\n";
    Run::new("python3").args(["-c", SCRIPT]).arg(database).outcome().ok("PRAGMA journal_mode");
    fs::read(database).unwrap()
}

/// Checks that a request is injected.
fn serves(scene: &Scene, value: &str) {
    let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    scene.injected_once(&format!("Bearer {value}"));
}

/// Invariant 3: a value that was changed in the database does not open and is not sent, and the change is reported.
#[test]
fn row_changed_in_the_database_sends_nothing() {
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let mut scene = Scene::new();
    serves(&scene, VALUE);
    let host = format!("UPDATE secrets SET host = '{API_V6}'");
    let edits = [
        // A name that the agent may reach and that an attacker controls.
        (host.as_str(), crate::scene::API_V6, "edited in the database"),
        ("UPDATE secrets SET methods = '[\"GET\"]'", API, "edited in the database"),
        (r#"UPDATE secrets SET placement = '{"kind":"query","name":"q"}'"#, API, "edited in the database"),
        ("UPDATE secret_versions SET sealed = substr(sealed, 1, 100)", API, "cannot be decrypted"),
        ("UPDATE secret_versions SET sealed = CAST(x'01' || substr(sealed, 2) AS BLOB)", API, "format 1"),
    ];
    let database = scene.daemon.home().data_dir().join("onecli.db");
    scene.daemon.terminate();
    let good = set_aside(&database);
    for (edit, name, message) in edits {
        sql(&scene.daemon, edit);
        scene.daemon.restart();
        let before = scene.daemon.audit().len();
        let url = scene.upstream.https_url(name, "/echo");
        let reply = scene.run(Way::Explicit, curl_with_key(&url, &[])).reply();
        assert_eq!(reply.verdict(), 502, "{edit}: {reply:?}");
        assert_eq!(reply.header("x-onecli-error"), Some("secret_unavailable"), "{edit}");
        assert_eq!(scene.upstream.requests().len(), 0, "{edit}");
        let _ = scene.daemon.audit_until(edit, |record| {
            record["seq"].as_u64().is_some_and(|seq| seq > before as u64)
                && record["code"] == "secret_unavailable"
                && record["agent"] == "outside"
        });
        assert!(scene.daemon.home().log().contains(message), "{edit}: {}", scene.daemon.home().log());
        // A new value would go to a host that the attacker chose.
        let rotate =
            scene.daemon.home().cli(&["secret", "rotate", "api", "--value-stdin"]).stdin("sk-next-value");
        let refused = rotate.outcome();
        assert!(!refused.status.success() && refused.err().contains(message), "{edit}: {refused:?}");
        scene.daemon.terminate();
        set_aside(&database);
        fs::write(&database, &good).unwrap();
    }
    scene.daemon.restart();
    serves(&scene, VALUE);
}

#[test]
fn older_version_copied_back_into_the_database_sends_nothing() {
    const NEXT: &str = "sk-live/second+value=8871";
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let mut scene = Scene::new();
    let rotate = scene.daemon.home().cli(&["secret", "rotate", "api", "--value-stdin"]).stdin(NEXT);
    rotate.outcome().ok("secret rotate");
    serves(&scene, NEXT);
    scene.daemon.terminate();
    sql(&scene.daemon, "UPDATE secrets SET version = 1");
    scene.daemon.restart();
    let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
    assert_eq!(reply.verdict(), 502, "{reply:?}");
    assert_eq!(scene.upstream.requests().len(), 0);
    assert!(scene.daemon.home().log().contains("put the old one back"), "{}", scene.daemon.home().log());
    scene.daemon.terminate();
    sql(&scene.daemon, "UPDATE secrets SET version = 2");
    scene.daemon.restart();
    serves(&scene, NEXT);
}

/// The sealed value of a version in the files of a database that is in use: a copy of them is read.
fn sealed_version(database: &Path, version: u32) -> Vec<u8> {
    const SCRIPT: &str = "import os, shutil, sqlite3, sys, tempfile\n\
        aside = tempfile.mkdtemp()\n\
        for end in ('', '-wal'):\n\
        \x20   if os.path.exists(sys.argv[1] + end):\n\
        \x20       shutil.copy(sys.argv[1] + end, aside + '/copy.db' + end)\n\
        found = sqlite3.connect(aside + '/copy.db').execute('SELECT sealed FROM secret_versions WHERE version = ?', (sys.argv[2],))\n\
        print(found.fetchone()[0].hex())\n\
        shutil.rmtree(aside)\n";
    let run = Run::new("python3").args(["-c", SCRIPT]).arg(database).arg(version.to_string());
    data_encoding::HEXLOWER.decode(run.outcome().ok("the sealed value").trim().as_bytes()).unwrap()
}

/// A replaced version is in no file of a killed daemon either: it cannot be restored from the log.
#[test]
fn replaced_version_is_not_in_the_database_log_of_a_killed_daemon() {
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let mut scene = Scene::new();
    let database = scene.daemon.home().data_dir().join("onecli.db");
    let old = sealed_version(&database, 1);
    let rotate = scene.daemon.home().cli(&["secret", "rotate", "api", "--value-stdin"]).stdin("sk-second");
    rotate.outcome().ok("secret rotate");
    scene.daemon.kill();
    let kept = sealed_version(&database, 1);
    assert_ne!(old, kept);
    for file in [database.clone(), database.with_extension("db-wal")] {
        let bytes = fs::read(&file).unwrap_or_default();
        // Format and key id begin every wrap, and the retained version has the same body (from 121).
        let found = bytes.windows(112).any(|window| window == &old[9..121]);
        assert!(!found, "the replaced wrap is in {}", file.display());
    }
    let all = [fs::read(&database).unwrap(), fs::read(database.with_extension("db-wal")).unwrap_or_default()];
    assert!(all.concat().windows(112).any(|window| window == &kept[9..121]), "the stored wrap is found");
    sql(&scene.daemon, "UPDATE secrets SET version = 1");
    scene.daemon.restart();
    let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
    assert_eq!(reply.verdict(), 502, "{reply:?}");
    assert_eq!(scene.upstream.requests().len(), 0);
}

/// Reported before the daemon accepts connections, and a restart does not help: exit status 78.
#[test]
fn wrong_key_is_reported_with_both_ids() {
    let mut scene = Scene::new();
    let status = scene.daemon.onecli_json(&["key", "status"]);
    let wanted = status["slots"][0]["key_id"].as_str().unwrap().to_owned();
    scene.daemon.terminate();
    let file = scene.daemon.home().data_dir().join("root.key");
    let good = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let start = |hint: &str| {
        let outcome = scene.daemon.home().daemon(&[]).timeout(Duration::from_secs(30)).outcome();
        assert_eq!(outcome.code(), Some(78), "{outcome:?}");
        let printed = format!("{}{}", outcome.out(), outcome.err());
        assert!(printed.contains(hint) && printed.contains(&wanted), "{printed}");
        assert!(!printed.contains("serving"), "{printed}");
    };
    start("there is no key at");
    write_key(&file, &[7; 32]);
    start("has the id");
    fs::remove_file(&file).unwrap();
    write_key(&file, &good);
    scene.daemon.restart();
    serves(&scene, VALUE);
}

fn write_key(file: &Path, key: &[u8]) {
    fs::write(file, key).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o400)).unwrap();
}

#[test]
fn authority_rotation_disrupts_no_agent() {
    let mut scene = Scene::new();
    let dir = scene.daemon.home().dir().to_owned();
    let certificates = |pem: &str| -> Vec<String> {
        pem.split_inclusive("-----END CERTIFICATE-----\n")
            .map(|pem| pem.trim_start().to_owned())
            .filter(|pem| !pem.is_empty())
            .collect()
    };
    let trusts = |scene: &Scene, name: &str, pem: &str, expected: bool| {
        let file = dir.join(name);
        fs::write(&file, pem).unwrap();
        let run = curl_with_key(&scene.url("/echo"), &[]).env(KEY, &scene.outside_grant.placeholder);
        let run = run.proxied(&scene.daemon.proxy_url(&scene.outside.token)).trusting(&file);
        let outcome = run.outcome();
        assert_eq!(outcome.code() == Some(0), expected, "{name}: {outcome:?}");
        scene.upstream.clear();
    };
    let old = scene.daemon.onecli(&["ca", "export"]).ok("ca export");
    assert_eq!(certificates(&old).len(), 1);
    assert_ne!(scene.daemon.onecli(&["ca", "rotate", "--finish"]).code(), Some(0), "nothing to finish");

    scene.daemon.onecli(&["ca", "rotate"]).ok("ca rotate");
    let both = scene.daemon.onecli(&["ca", "export"]).ok("ca export");
    let [first, next] = certificates(&both).try_into().unwrap();
    assert_eq!(first.trim(), old.trim());
    let bundle = fs::read_to_string(dir.join("ca-bundle.pem")).unwrap();
    assert!(bundle.contains(first.trim()) && bundle.contains(next.trim()), "the bundle has both");
    assert_ne!(scene.daemon.onecli(&["ca", "rotate"]).code(), Some(0), "one at a time");
    for restarted in [false, true] {
        if restarted {
            scene.daemon.restart();
        }
        trusts(&scene, "old.pem", &old, true);
        trusts(&scene, "both.pem", &both, true);
        trusts(&scene, "next.pem", &next, false);
    }

    scene.daemon.onecli(&["ca", "rotate", "--finish"]).ok("ca rotate --finish");
    for restarted in [false, true] {
        if restarted {
            scene.daemon.restart();
        }
        trusts(&scene, "old.pem", &old, false);
        trusts(&scene, "both.pem", &both, true);
        trusts(&scene, "next.pem", &next, true);
        assert_eq!(scene.daemon.onecli(&["ca", "export"]).ok("ca export").trim(), next.trim());
    }
    let show = scene.daemon.onecli_json(&["ca", "show"]);
    assert_eq!(show["certificates"].as_array().unwrap().len(), 1, "{show}");
    for code in ["ca_rotated", "ca_rotation_finished"] {
        let _ = scene.daemon.audit_until(code, |record| record["code"] == code);
    }
}

/// An attacker with write access to the database but without a key must not make agents trust another authority.
#[test]
fn authority_changed_in_the_database_is_not_trusted() {
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let mut scene = Scene::new();
    scene.daemon.onecli(&["ca", "rotate"]).ok("ca rotate");
    let bundle = scene.daemon.home().dir().join("ca-bundle.pem");
    let before = fs::read_to_string(&bundle).unwrap();
    let database = scene.daemon.home().data_dir().join("onecli.db");
    scene.daemon.terminate();
    let good = set_aside(&database);
    let foreign = rcgen::generate_simple_self_signed(vec!["evil.example".to_owned()]).unwrap().cert.pem();
    let meta = |name: &str, value: &str| format!("UPDATE meta SET value = {value} WHERE key = '{name}'");
    let edits = ["ca.certificate", "ca.next.certificate"].into_iter().flat_map(|name| {
        let key = name.replace("certificate", "key");
        [
            (meta(name, &format!("'{foreign}'")), "it was changed outside of OneCLI"),
            (meta(name, &format!("value || '{foreign}'")), "it was changed outside of OneCLI"),
            (meta(name, &format!("'{foreign}' || value")), "it was changed outside of OneCLI"),
            (format!("DELETE FROM sealed_blobs WHERE purpose = '{key}'"), "restore a backup"),
            (format!("DELETE FROM meta WHERE key = '{name}'"), "restore a backup"),
            (
                format!(
                    "UPDATE sealed_blobs SET sealed = (SELECT sealed FROM sealed_blobs WHERE purpose LIKE 'ca.%' \
                     AND purpose <> '{key}') WHERE purpose = '{key}'"
                ),
                "cannot open the stored CA key",
            ),
        ]
    });
    for (edit, message) in edits {
        sql(&scene.daemon, &edit);
        let outcome = scene.daemon.home().daemon(&[]).timeout(Duration::from_secs(30)).outcome();
        let said = format!("{}{}", outcome.out(), outcome.err());
        assert_eq!(outcome.code(), Some(78), "{edit}: {said}");
        assert!(said.contains(message), "{edit}: {said}");
        assert!(!said.contains("serving"), "{edit}: {said}");
        let now = fs::read_to_string(&bundle).unwrap_or_default();
        assert!(now.is_empty() || now == before, "{edit}: the bundle was changed");
        set_aside(&database);
        fs::write(&database, &good).unwrap();
    }
    scene.daemon.restart();
    assert_eq!(fs::read_to_string(&bundle).unwrap(), before);
    serves(&scene, VALUE);
}

/// A store from a version that sealed only the key: the certificate stays, and is sealed with the key from then on.
#[test]
fn authority_of_an_older_version_is_sealed_again() {
    const KEY_BLOB: &str = "ca.key";
    let mut scene = Scene::new();
    let before = scene.daemon.onecli(&["ca", "export"]).ok("ca export");
    scene.daemon.terminate();
    let home = scene.daemon.home();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("sqlite://{}", home.data_dir().join("onecli.db").display());
    let data_dir = PrivateDir::create(&home.data_dir()).unwrap();
    // The certificate's length follows the format's number, and the key follows the certificate.
    let replaced = |with_key_alone: bool| {
        runtime.block_on(async {
            let store = onecli_store::open(&url).await.unwrap();
            let keys = KeySource::file(&data_dir);
            let vault = Vault::unlock(store.as_ref(), &keys, Arc::new(OsRandom)).await.unwrap();
            let sealed = store.get_blob(KEY_BLOB).await.unwrap().unwrap();
            let opened = vault.open_blob(KEY_BLOB, &sealed).unwrap();
            assert_eq!(opened[0], 2, "format 2");
            let length = u32::from_be_bytes(opened[1..5].try_into().unwrap()) as usize;
            assert_eq!(std::str::from_utf8(&opened[5..5 + length]).unwrap().trim(), before.trim());
            if with_key_alone {
                let key = vault.seal_blob(KEY_BLOB, &opened[5 + length..]).unwrap();
                let put_blobs = vec![(KEY_BLOB.to_owned(), key)];
                let change = onecli_store::VaultChange { put_blobs, ..onecli_store::VaultChange::default() };
                store.change_vault(&change).await.unwrap();
            }
        });
    };
    replaced(true);
    scene.daemon.restart();
    assert_eq!(scene.daemon.onecli(&["ca", "export"]).ok("ca export"), before);
    serves(&scene, VALUE);
    scene.daemon.terminate();
    replaced(false);
    scene.daemon.restart();
}

/// The database's log still contains a removed slot: the operator who removed it is warned until it is gone.
#[test]
fn removed_slot_that_cannot_be_erased_yet_is_reported() {
    const READER: &str = "import sqlite3, sys, time\n\
        db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        db.execute('BEGIN')\n\
        db.execute('SELECT count(*) FROM key_slots').fetchone()\n\
        open(sys.argv[2], 'w').close()\n\
        time.sleep(60)\n";
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let scene = Scene::new();
    let daemon = &scene.daemon;
    daemon.onecli(&["key", "add-recovery"]).ok("key add-recovery");
    let ready = daemon.home().dir().join("reads");
    let database = daemon.home().data_dir().join("onecli.db");
    let reader = Run::new("python3").args(["-c", READER]).arg(&database).arg(&ready).start();
    assert!(wait_for(Duration::from_secs(10), || ready.exists().then_some(())).is_some());

    let removed = daemon.onecli(&["key", "remove-slot", "2"]);
    assert!(removed.out().contains("removed key slot 2"), "{removed:?}");
    assert!(
        !removed.status.success() && removed.err().contains("a process reads the database"),
        "{removed:?}"
    );
    let status = daemon.onecli_json(&["key", "status"]);
    assert_eq!(status["slots"].as_array().unwrap().len(), 1, "{status}");
    assert!(status["unerased"].is_string(), "{status}");
    assert!(daemon.onecli(&["key", "status"]).ok("key status").contains("a process reads the database"));
    serves(&scene, VALUE);
    drop(reader);
    let erased = || daemon.onecli_json(&["key", "status"])["unerased"].is_null().then_some(());
    assert!(wait_for(Duration::from_secs(30), erased).is_some(), "{}", daemon.home().log());
}

#[test]
fn backup_is_restored_unchanged() {
    let mut scene = Scene::new();
    let dir = scene.daemon.home().dir().to_owned();
    let backup = dir.join("backup.db");
    let file = backup.to_str().unwrap().to_owned();
    // While requests are served.
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
                assert_eq!(reply.verdict(), 200, "{reply:?}");
            }
        });
        scene.daemon.onecli(&["backup", &file]).ok("backup");
        stop.store(true, Ordering::SeqCst);
    });
    scene.upstream.clear();
    let facts = fs::metadata(&backup).unwrap();
    assert_eq!(facts.mode() & 0o7777, 0o600);
    let again = scene.daemon.onecli(&["backup", &file]);
    assert!(!again.status.success(), "nothing is overwritten");
    let bytes = fs::read(&backup).unwrap();
    Canary::new(VALUE).assert_absent("the backup", &bytes);
    let key = fs::read(scene.daemon.home().data_dir().join("root.key")).unwrap();
    assert!(!bytes.windows(key.len()).any(|window| window == key), "the key is not in the backup");
    let left: Vec<PathBuf> = fs::read_dir(scene.daemon.home().data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("backup"))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());

    let config = scene.daemon.home().config_file();
    let restore = |scene: &Scene, file: &str, options: &[&str]| -> Outcome {
        let args = [&["restore", file, "--config", config.to_str().unwrap()], options].concat();
        scene.daemon.home().cli(&args).timeout(Duration::from_mins(1)).outcome()
    };
    let refused = restore(&scene, &file, &[]);
    assert!(!refused.status.success() && refused.err().contains("in use"), "{refused:?}");

    scene.daemon.onecli(&["secret", "remove", "api"]).ok("secret remove");
    scene.daemon.terminate();
    let database = scene.daemon.home().data_dir().join("onecli.db");
    let before = fs::read(&database).unwrap();
    let report = restore(&scene, &file, &["--dry-run"]).ok("restore --dry-run");
    assert!(report.contains("2 agents, 1 secrets") && report.contains("nothing was changed"), "{report}");
    assert!(fs::read(&database).unwrap() == before, "a dry run changes nothing");
    let report: Value =
        serde_json::from_str(&restore(&scene, &file, &["--dry-run", "--json"]).ok("restore")).unwrap();
    assert_eq!((&report["secrets"], &report["dry_run"]), (&json!(1), &json!(true)), "{report}");
    let absent = restore(&scene, "/absent/backup.db", &["--json"]);
    let error: Value = serde_json::from_str(&absent.err()).unwrap();
    assert_eq!(error["error"]["code"], "failed", "{absent:?}");

    // An invalid file is refused, and nothing is changed.
    let spoilt = dir.join("spoilt.db");
    for (spoil, hint) in [
        (&bytes[..bytes.len() / 2], ""),
        (&b"not a database at all, but a file with something in it"[..], ""),
        (&b""[..], "it is not a file, or it is empty"),
    ] {
        fs::write(&spoilt, spoil).unwrap();
        let refused = restore(&scene, spoilt.to_str().unwrap(), &[]);
        assert!(!refused.status.success() && refused.err().contains(hint), "{refused:?}");
    }
    let root_key = scene.daemon.home().data_dir().join("root.key");
    fs::remove_file(&root_key).unwrap();
    write_key(&root_key, &[7; 32]);
    let refused = restore(&scene, &file, &[]);
    assert!(refused.code() == Some(78) && refused.err().contains("has the id"), "{refused:?}");
    fs::remove_file(&root_key).unwrap();
    write_key(&root_key, &key);
    assert!(fs::read(&database).unwrap() == before, "the refused restore changed nothing");

    let report = restore(&scene, &file, &[]).ok("restore");
    assert!(report.contains("was renamed to"), "{report}");
    let aside = fs::read_dir(scene.daemon.home().data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("before-restore"))
        .expect("a copy of the old database");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let secrets = runtime.block_on(async {
        onecli_store::open(&format!("sqlite://{}", aside.display()))
            .await
            .unwrap()
            .load()
            .await
            .unwrap()
            .secrets
    });
    assert!(secrets.is_empty(), "the copy contains the last change before the restore");
    scene.daemon.restart();
    serves(&scene, VALUE);
    let _ = scene.daemon.audit_until("backup_taken", |record| record["code"] == "backup_taken");
}

/// The complete memory of a process, as in a core dump.
fn memory(pid: u32) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut file = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(mode)) = (words.next(), words.next()) else { continue };
        let Some((from, to)) = range.split_once('-') else { continue };
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        // Data that was read into memory is in writable mappings.
        if !mode.starts_with("rw") {
            continue;
        }
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        if file.seek(SeekFrom::Start(from)).is_ok() && file.read_exact(&mut part).is_ok() {
            all.append(&mut part);
        }
    }
    all
}

/// Invariant 1: no value is in the memory of these processes: an agent that received a response with the echoed value,
/// the daemon's helper, and the executor, which ran a command that printed a value.
#[test]
fn no_value_is_in_the_memory_of_agents_or_of_the_daemons_children() {
    const PRINTED: &str = "sk-exec/canary+91d7C~=3%Kv";
    const CLIENT: &str = "import os, sys, time, urllib.request\n\
        request = urllib.request.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + os.environ['API_KEY']})\n\
        answer = urllib.request.urlopen(request, timeout=20).read()\n\
        open(sys.argv[2], 'w').write(str(len(answer)))\n\
        time.sleep(60)\n";
    if !need::bpf("everything") || !need::program("everything", "python3", "python3") {
        return;
    }
    let exec = Daemon::builder().config("[backend.exec]\nuser = \"backup\"");
    let scene = Scene::of(exec, Upstream::start(&[API, API_V6]), &["--bearer"]);
    let ready = scene.daemon.agent_dir(&scene.inside).join("ready");
    let run = Run::new("python3").args(["-c", CLIENT, &scene.url("/echo")]).arg(&ready);
    let running = scene.daemon.managed(&scene.inside, &run).start();
    let done = wait_for(Duration::from_secs(30), || ready.exists().then_some(()));
    assert!(done.is_some(), "{}", scene.daemon.home().log());
    scene.injected_once(&format!("Bearer {VALUE}"));
    let agents = onecli_tests::cgroup::processes(&scene.daemon.agent_cgroup(&scene.inside));
    assert!(!agents.is_empty());
    let canary = Canary::new(VALUE);
    let mut has_placeholder = false;
    for pid in agents {
        let memory = memory(pid);
        canary.assert_absent(&format!("the memory of the agent's process {pid}"), &memory);
        let placeholder = scene.inside_grant.placeholder.as_bytes();
        has_placeholder |= memory.windows(placeholder.len()).any(|window| window == placeholder);
    }
    assert!(has_placeholder, "the inspected memory is the agent's");
    // The executor has processed a value as well.
    let dir = tempfile::Builder::new().prefix("onecli-test-").tempdir_in("/run").unwrap();
    for (name, mode, text) in
        [("print", 0o755, "#!/bin/sh\nexec cat ${0%/*}/value\n"), ("value", 0o644, PRINTED)]
    {
        fs::write(dir.path().join(name), text).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let host = format!("{API_V6}:{}", scene.upstream.https_addr().port());
    let command = dir.path().join("print");
    let add = ["secret", "add", "printed", "--host", &host, "--bearer", "--exec", command.to_str().unwrap()];
    scene.daemon.onecli(&add).ok("secret add --exec");
    let _ = scene.daemon.grant(&scene.outside, "printed");
    scene.upstream.clear();
    let url = scene.upstream.https_url(API_V6, "/echo");
    assert_eq!(scene.run(Way::Explicit, curl(&url)).reply().verdict(), 200, "{}", scene.daemon.home().log());
    scene.injected_once(&format!("Bearer {PRINTED}"));
    let printed = Canary::new(PRINTED);
    let daemon = scene.daemon.pid();
    let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap();
    let names: Vec<String> = children
        .split_whitespace()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned())
        .collect();
    assert!(
        ["onecli-helper", "onecli-executor"].iter().all(|name| names.iter().any(|n| n == name)),
        "{names:?}"
    );
    for pid in children.split_whitespace() {
        let memory = memory(pid.parse().unwrap());
        assert!(memory.len() > 100_000, "{} bytes", memory.len());
        canary.assert_absent(&format!("the memory of the daemon's child {pid}"), &memory);
        printed.assert_absent(&format!("the memory of the daemon's child {pid}"), &memory);
    }
    drop(running);
}

/// Copies the secret of a stopped daemon, under each of these ids and names, with the value that was sealed for it.
const COPY: &str = "import sqlite3, sys\n\
    db = sqlite3.connect(sys.argv[1])\n\
    found = db.execute('SELECT * FROM secrets')\n\
    names = [column[0] for column in found.description]\n\
    model = dict(zip(names, found.fetchone()))\n\
    insert = 'INSERT INTO secrets (%s) VALUES (%s)' % (','.join(names), ','.join(':' + n for n in names))\n\
    for line in sys.stdin:\n\
    \x20   id, name, sealed = line.split()\n\
    \x20   db.execute(insert, dict(model, id=id, name=name))\n\
    \x20   db.execute('INSERT INTO secret_versions (secret, version, sealed) VALUES (?, 1, ?)', (id, bytes.fromhex(sealed)))\n\
    db.commit()\n";

/// Stores this many secrets besides the one that the CLI stored, each with its own value. They are stored in one
/// transaction: one for each would take longer than the rest of the test.
fn multiply(daemon: &Daemon, secrets: u32) {
    let database = daemon.home().data_dir().join("onecli.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows = runtime.block_on(async {
        let data_dir = PrivateDir::create(&daemon.home().data_dir()).unwrap();
        let store = onecli_store::open(&format!("sqlite://{}", database.display())).await.unwrap();
        let vault =
            Vault::unlock(store.as_ref(), &KeySource::file(&data_dir), Arc::new(OsRandom)).await.unwrap();
        let mut secret = store.load().await.unwrap().secrets.remove(0);
        let mut rows = String::new();
        for number in 0..secrets {
            secret.id = format!("00000000-0000-4000-8000-{number:012x}").parse().unwrap();
            secret.name = format!("many-{number}").parse().unwrap();
            // The copied rows have none.
            secret.class = None;
            let value = SecretValue::new(format!("value-number-{number}").into_bytes()).unwrap();
            let sealed = data_encoding::HEXLOWER.encode(&vault.seal(&secret, &value).unwrap().0);
            writeln!(rows, "{} {} {sealed}", secret.id, secret.name).unwrap();
        }
        rows
    });
    let copy = Run::new("python3").args(["-c", COPY]).arg(&database).stdin(rows);
    copy.timeout(Duration::from_mins(5)).outcome().ok("copy");
}

/// Checks that everything opens with the current key, and returns the number.
fn all_open(daemon: &Daemon) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let data_dir = PrivateDir::create(&daemon.home().data_dir()).unwrap();
        let store =
            onecli_store::open(&format!("sqlite://{}", data_dir.join("onecli.db").display())).await.unwrap();
        let vault =
            Vault::unlock(store.as_ref(), &KeySource::file(&data_dir), Arc::new(OsRandom)).await.unwrap();
        let (opened, failures) = vault.verify(store.as_ref()).await.unwrap();
        assert_eq!(failures, Vec::<String>::new());
        opened
    })
}

/// Sets the flag when dropped.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Re-keys `secrets` secrets while requests run, and kills the daemon `kills` times during that.
fn rekey_under_fire(secrets: u32, kills: u32) {
    if !need::program("everything", "python3", "python3") {
        return;
    }
    let mut scene = Scene::new();
    let first = scene.daemon.onecli_json(&["key", "status"])["key_id"].clone();
    scene.daemon.terminate();
    multiply(&scene.daemon, secrets);
    scene.daemon.restart();

    let (stop, injected) = (AtomicBool::new(false), AtomicU64::new(0));
    let url = scene.url("/echo");
    let token = scene.outside.token.clone();
    let proxy = scene.daemon.proxy_url(&token);
    let ca = scene.daemon.ca_file();
    let placeholder = scene.outside_grant.placeholder.clone();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let run = curl(&url).args(["-H", &format!("Authorization: Bearer {placeholder}")]);
                let outcome = run.proxied(&proxy).trusting(&ca).outcome();
                // A dead daemon refuses connections. An accepted request must not fail because a key is missing.
                if outcome.code() == Some(0) {
                    let reply = outcome.reply();
                    assert_ne!(reply.header("x-onecli-error"), Some("secret_unavailable"), "{reply:?}");
                    injected.fetch_add(u64::from(reply.status == 200), Ordering::SeqCst);
                }
            }
        });
        // A failed test must not leave the requests running.
        let _stopped = OnDrop(&stop);
        let (mut killed, mut rounds) = (0, 0);
        while killed < kills || rounds == 0 {
            scene.daemon.onecli(&["key", "rotate", "--no-wait"]).ok("key rotate");
            rounds += 1;
            loop {
                let status = scene.daemon.onecli_json(&["key", "status"]);
                let rekey = &status["rekey"];
                if rekey.is_null() {
                    break;
                }
                assert!(rekey["fault"].is_null(), "{status}");
                if killed < kills {
                    // At varying moments.
                    std::thread::sleep(Duration::from_millis(u64::from(killed * 37 % 150)));
                    scene.daemon.restart();
                    killed += 1;
                    println!("round {rounds}, kill {killed}: {} of {}", rekey["done"], rekey["total"]);
                }
            }
        }
        println!(
            "{secrets} secrets re-keyed {rounds} times, {killed} kills, {} requests injected during the run",
            injected.load(Ordering::SeqCst)
        );
    });
    assert!(injected.load(Ordering::SeqCst) > 0);
    assert_ne!(scene.daemon.onecli_json(&["key", "status"])["key_id"], first);
    scene.upstream.clear();
    serves(&scene, VALUE);
    scene.daemon.terminate();
    // The secrets, the one of the scene, the keys of CA and audit log, and the derivation key.
    assert_eq!(all_open(&scene.daemon), u64::from(secrets) + 4);
}

#[test]
fn slow_root_key_is_rotated_while_requests_run() {
    rekey_under_fire(10_000, 8);
}

/// `cargo xtask rekey` runs it with a release build.
#[test]
#[ignore = "takes some minutes: cargo xtask rekey"]
fn hundred_thousand_secrets_are_rekeyed_through_fifty_kills() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    rekey_under_fire(number("ONECLI_REKEY_SECRETS", 100_000), number("ONECLI_REKEY_KILLS", 50));
}
