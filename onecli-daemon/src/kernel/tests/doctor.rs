//! What is wrong is told, with what to do about it.
#![allow(unsafe_code, reason = "attaching a program the old way, which no library offers on this kernel")]

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use super::fixture::{Fixture, remove_tree};
use crate::kernel::{Finding, Redirect, detach, link, report, report::parse_version};

#[test]
fn kernel_releases_are_read() {
    for (release, version) in
        [("6.1.0-18-amd64", (6, 1)), ("5.15.153.1-wsl2", (5, 15)), ("6.18.44", (6, 18)), ("7.0-rc1", (7, 0))]
    {
        assert_eq!(parse_version(release), Some(version));
    }
    assert_eq!(parse_version("unknown"), None);
}

/// Subjects with something to be done.
fn problems(fixture: &Fixture) -> Vec<Finding> {
    report(&fixture.config).into_iter().filter(|finding| finding.fix.is_some()).collect()
}

#[test]
fn every_part_is_reported() {
    let Some(mut fixture) = Fixture::new("kernel::every_part_is_reported") else {
        return;
    };
    let all = report(&fixture.config);
    for subject in ["kernel", "BTF", "CAP_BPF", "cgroup2", "program connect4", "program guard_sendmsg6"] {
        assert!(all.iter().any(|finding| finding.subject == subject), "{subject}: {all:?}");
    }
    assert_eq!(problems(&fixture), [], "nothing is wrong");

    let root = fixture.tree().path(&fixture.config.agents_root).unwrap();
    remove_tree(&root).unwrap();
    std::fs::create_dir(&root).unwrap();
    let found = problems(&fixture);
    assert!(found.iter().any(|finding| finding.subject == "program egress"), "{found:?}");
    assert!(!found.iter().any(|finding| finding.subject == "program tcp_server"), "{found:?}");
    fixture.redirect = Redirect::attach(&fixture.config).unwrap();
    assert_eq!(problems(&fixture), []);

    // Somebody takes the cgroup above for a program of theirs alone.
    let above = root.parent().unwrap();
    attach_exclusively(&fixture, &File::open(above).unwrap()).unwrap();
    let found = problems(&fixture);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].found, format!("attached exclusively to {}, at attach types [1]", above.display()));
    detach(&fixture.config.bpffs_dir).unwrap();
    let refused = Redirect::attach(&fixture.config).map(drop);
    assert!(refused.is_err(), "the kernel does as the report says");
    let found = problems(&fixture);
    assert!(found.iter().any(|finding| finding.found == "not attached"), "{found:?}");
}

/// Attaches our egress program with no flags, as `BPF_PROG_ATTACH` does without `BPF_F_ALLOW_MULTI`.
fn attach_exclusively(fixture: &Fixture, cgroup: &File) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const EGRESS: u32 = 1;
    let pin = fixture.pins().join("links/egress");
    let id = link::info(&link::open(&pin)?)?.program_id;
    let mut programs = aya::programs::loaded_programs().map(Result::unwrap);
    let program = programs.find(|program| program.id() == id).expect("the attached program").fd().unwrap();
    let [cgroup, program] = [cgroup.as_raw_fd(), program.as_fd().as_raw_fd()].map(i32::cast_unsigned);
    let attr: [u32; 4] = [cgroup, program, EGRESS, 0];
    // SAFETY: target, program, attach type and flags, as the command reads them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attr.as_ptr(), size_of_val(&attr)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
