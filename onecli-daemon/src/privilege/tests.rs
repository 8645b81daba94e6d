use std::os::unix::fs::PermissionsExt;

use super::*;

fn set_mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_new_data_dir_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    prepare_data_dir(&data).unwrap();
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    prepare_data_dir(&data).unwrap();
}

#[test]
fn a_data_dir_that_is_open_or_foreign_is_refused_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    prepare_data_dir(&data).unwrap();
    for mode in [0o750, 0o701, 0o777] {
        set_mode(&data, mode);
        let error = prepare_data_dir(&data).unwrap_err().to_string();
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.contains(&format!("chmod 0700 {}", data.display())), "{error}");
    }
    set_mode(&data, 0o700);

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(prepare_data_dir(&file), Err(PrivilegeError::NotADirectory(_))));

    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&data, Some(65534), None).unwrap();
        let error = prepare_data_dir(&data).unwrap_err().to_string();
        assert!(error.contains("belongs to uid 65534") && error.contains("chown -R 0 "), "{error}");
    } else {
        println!("not run: a data directory of another user (needs root)");
    }
}

#[test]
fn capabilities_are_refused_to_a_process_with_threads() {
    // The test harness runs each test in a thread beside its main one.
    assert!(matches!(keep_capabilities(&[]), Err(PrivilegeError::Threads(2..))));
}
