//! The commands for keys and backups name the keys that are needed later.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use onecli_tests::daemon::Daemon;

#[test]
fn key_rotate_warns_that_older_backups_need_the_old_key() {
    let daemon = Daemon::builder().no_ebpf().start();
    let help = daemon.onecli(&["key", "rotate", "--help"]).ok("help");
    assert!(help.contains("copy of the old root.key") && help.contains("copy it first"), "{help}");
    let rotated = daemon.onecli(&["key", "rotate"]);
    assert!(rotated.err().contains("open only with a copy of the old root.key"), "{rotated:?}");
    assert!(rotated.ok("rotate").contains("takes over"));
}

#[test]
fn restore_with_a_passphrase_warns_that_the_daemon_needs_it() {
    let mut daemon = Daemon::builder().no_ebpf().start();
    let slot = daemon.onecli_json(&["key", "add-recovery"]);
    let (backup, key) = (daemon.home().dir().join("backup.db"), daemon.home().dir().join("recovery"));
    fs::write(&key, slot["recovery_key"].as_str().unwrap()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    daemon.onecli(&["backup", backup.to_str().unwrap()]).ok("backup");
    daemon.terminate();
    let config = daemon.home().config_file();
    let restore = ["restore", backup.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let plain = daemon.onecli(&restore).ok("restore");
    assert!(plain.contains("start the daemon") && !plain.contains("--passphrase-file"), "{plain}");
    let key = key.to_str().unwrap();
    let advice = daemon.onecli(&[&restore[..], &["--passphrase-file", key]].concat()).ok("restore");
    assert!(advice.contains(&format!("start it with --passphrase-file {key}")), "{advice}");
    daemon.restart();
}
