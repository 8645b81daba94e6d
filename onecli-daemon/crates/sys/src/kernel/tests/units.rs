//! Tests that need no kernel programs.

use std::path::{Path, PathBuf};

use crate::kernel::{
    KernelError, agent_directory,
    cgroup::{level, mount_point},
    decode::{address, comm},
};

#[test]
fn agent_directories_nest_as_systemd_nests_slices() {
    let root = Path::new("onecli.slice/onecli-agents.slice");
    for (agent, directory) in [
        ("build", "onecli-agents-build.slice"),
        ("build-bot", r"onecli-agents-build\x2dbot.slice"),
        ("a.b_c:d", "onecli-agents-a.b_c:d.slice"),
        (".hidden", r"onecli-agents-\x2ehidden.slice"),
        ("../up", r"onecli-agents-\x2e.\x2fup.slice"),
        ("é", r"onecli-agents-\xc3\xa9.slice"),
    ] {
        assert_eq!(agent_directory(root, agent).unwrap(), directory);
    }
    assert_eq!(agent_directory(Path::new("agents"), "a-b").unwrap(), r"a\x2db.slice");
    for impossible in [String::new(), "x".repeat(250)] {
        let name = agent_directory(root, &impossible);
        assert!(matches!(name, Err(KernelError::AgentName { .. })), "{name:?}");
    }
}

#[test]
fn cgroup_paths_stay_in_the_hierarchy() {
    assert_eq!(level(Path::new("a")).unwrap(), 1);
    assert_eq!(level(Path::new("a/b/c")).unwrap(), 3);
    for outside in ["", "/", "/a", "../a", "a/../b", "."] {
        assert!(level(Path::new(outside)).is_err(), "{outside}");
    }
}

#[test]
fn cgroup2_is_found_in_mountinfo() {
    let v1 = "36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n";
    let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 master:1 - cgroup2 cgroup2 rw\n";
    let spaced = "41 31 0:38 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n";
    let found = |lines: &[&str]| mount_point(lines.concat().as_bytes());
    assert_eq!(found(&[v1, unified]), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    assert_eq!(found(&[spaced]), Some(PathBuf::from(r"/mnt/a b\c")));
    assert_eq!(found(&[v1]), None);
    assert_eq!(found(&["", "garbage\n", "1 2 3 4"]), None);
}

#[test]
fn task_names_are_not_escaped() {
    let raw = |name: &[u8]| {
        let mut raw = [0; 16];
        raw[..name.len()].copy_from_slice(name);
        comm(&raw)
    };
    assert_eq!(raw(b"curl"), "curl");
    assert_eq!(raw("größe".as_bytes()), "größe");
    // Escaped once, when it is stored: a backslash remains single here.
    assert_eq!(raw(b"a\x1b[2Jb\n"), "a\x1b[2Jb\n");
    assert_eq!(raw(b"a\\b"), r"a\b");
    assert_eq!(raw(b"\xff\xfe!"), "\u{fffd}\u{fffd}!");
    assert_eq!(raw(b"sixteen-bytes-x!"), "sixteen-bytes-x!");
}

#[test]
fn mapped_addresses_are_ipv4() {
    let v4 = address(onecli_common::mapped([192, 0, 2, 7]), 443_u16.to_be());
    assert_eq!(v4.to_string(), "192.0.2.7:443");
    let v6 = address(std::net::Ipv6Addr::LOCALHOST.octets(), 80_u16.to_be());
    assert_eq!(v6.to_string(), "[::1]:80");
}
