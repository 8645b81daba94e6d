//! Problems are reported, each with a fix.
#![allow(unsafe_code, reason = "BPF_PROG_ATTACH, which no library offers on this kernel")]

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use onecli_model::Check;
use onecli_model::CheckStatus;

use super::{
    child::Client,
    fixture::{Fixture, listen, remove_tree},
    neighbour::Neighbour,
};
use crate::kernel::Redirect;
use crate::kernel::detach;
use crate::kernel::link;
use crate::kernel::ports;
use crate::kernel::report;
use crate::kernel::report::held;
use crate::kernel::report::judge;
use crate::kernel::report::leads_out;
use crate::kernel::report::listeners;
use crate::kernel::report::lists;
use crate::kernel::version::parse_version;

#[test]
fn kernel_releases_are_judged() {
    for (release, version, status) in [
        ("6.1.0-18-amd64", (6, 1), CheckStatus::Ok),
        ("6.18.44", (6, 18), CheckStatus::Ok),
        ("7.0-rc1", (7, 0), CheckStatus::Ok),
        ("5.15.153.1-wsl2", (5, 15), CheckStatus::Warn),
        ("5.10.0", (5, 10), CheckStatus::Fail),
    ] {
        assert_eq!(parse_version(release), Some(version));
        assert_eq!(judge(release).status, status, "{release}");
    }
    assert!(judge("5.10.0").detail.contains("identities of connections"), "the missing feature is named");
    assert!(!judge("5.15.1").detail.contains("identities of connections"));
    assert_eq!(judge("unknown").status, CheckStatus::Warn);
}

#[test]
fn lists_of_ports_and_listeners_are_read() {
    for (list, port, listed) in [
        ("10256\n", 10256, true),
        ("1,10250-10260", 10256, true),
        ("10250-10255,10257", 10256, false),
        ("\n", 0, false),
    ] {
        assert_eq!(lists(list, port), listed, "{list:?}");
    }
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
           0: 0100007F:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 21 1\n\
           1: 0100007F:2811 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 22 1\n";
    assert_eq!(listeners(table), [(10256, 1000)]);
}

/// Returns the failed checks. The BPF LSM is left out, because only some kernels have it.
fn problems(fixture: &Fixture) -> Vec<Check> {
    let wrong = |check: &Check| check.status != CheckStatus::Ok && check.name != "bpf lsm";
    report(&fixture.config).into_iter().filter(wrong).collect()
}

/// Returns the only check of this name.
fn named(fixture: &Fixture, name: &str) -> Check {
    let mut all = report(&fixture.config).into_iter().filter(|check| check.name == name);
    let check = all.next().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(all.next(), None);
    assert_eq!(check.fix.is_some(), check.status != CheckStatus::Ok, "{check:?}");
    check
}

/// Root in an agent's cgroup can send past every program. This is reported while it runs.
#[test]
fn processes_that_can_send_past_the_programs_are_reported() {
    let Some(fixture) = Fixture::new("kernel::processes_that_can_send_past_the_programs_are_reported") else {
        return;
    };
    // A device with a way out.
    let _neighbour = Neighbour::new();
    let check = || named(&fixture, "agents' capabilities");
    assert_eq!(check().status, CheckStatus::Ok);
    let agent = fixture.agent("a.slice");
    let root = Client::start_ready(&fixture, &agent, &["serve", "127.0.0.1:7100"]);
    assert_eq!(check().status, CheckStatus::Warn, "{:?}", check());
    root.finish();
    assert_eq!(check().status, CheckStatus::Ok);
    let status = |mask: &str| held(&format!("Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{mask}\n"));
    assert_eq!(status("0000000000002000").as_deref(), Some("CAP_NET_RAW"));
    assert_eq!(status("0000000000201000").as_deref(), Some("CAP_NET_ADMIN, CAP_SYS_ADMIN"));
    assert_eq!(status("0000000000000400"), None);
    let head = "Inter-|   Receive\n face |bytes\n";
    assert!(!leads_out(&format!("{head}    lo: 1 2\n")) && leads_out(&format!("{head}  lo: 1\n  eth0: 1\n")));
}

#[test]
fn every_part_is_reported() {
    let Some(mut fixture) = Fixture::new("kernel::every_part_is_reported") else {
        return;
    };
    let all = report(&fixture.config);
    for name in [
        "kernel",
        "btf",
        "capabilities",
        "cgroup2",
        "bpffs",
        "agents root",
        "pins",
        "bpf lsm",
        "agents' capabilities",
        "other programs",
    ] {
        assert!(all.iter().any(|check| check.name == name), "{name}: {all:?}");
    }
    let programs = all.iter().filter(|check| check.name.starts_with("program ")).count();
    // Before Linux 6.5 one more program of the BPF LSM is needed.
    let expected = if named(&fixture, "bpf lsm").status == CheckStatus::Ok { 20..=21 } else { 17..=17 };
    assert!(expected.contains(&programs), "{programs}");
    assert_eq!(problems(&fixture), [], "nothing is wrong");

    // Another process removes the agents root and makes it again.
    let root = fixture.tree().path(&fixture.config.agents_root).unwrap();
    remove_tree(&root).unwrap();
    assert_eq!(named(&fixture, "agents root").status, CheckStatus::Fail);
    std::fs::create_dir(&root).unwrap();
    let egress = named(&fixture, "program egress");
    assert_eq!(egress.status, CheckStatus::Fail);
    assert_eq!(named(&fixture, "program guard_connect4").status, CheckStatus::Ok);
    fixture.redirect = Redirect::attach(&fixture.config).unwrap();
    assert_eq!(problems(&fixture), []);

    // One program is detached through its link.
    link::detach(&link::open(&fixture.pins().join("links/connect6")).unwrap()).unwrap();
    let found = problems(&fixture);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].name.as_str(), found[0].status), ("program connect6", CheckStatus::Fail));
    fixture.redirect = Redirect::attach(&fixture.config).unwrap();

    // Another version left its pins.
    let former = fixture.config.bpffs_dir.join("v1");
    std::fs::create_dir(&former).unwrap();
    let pins = named(&fixture, "pins");
    assert_eq!(pins.status, CheckStatus::Warn);
    assert!(pins.detail.contains(former.to_str().unwrap()), "{pins:?}");
    std::fs::remove_dir(&former).unwrap();

    // A program of another build at one of OneCLI's links.
    let [from, to] =
        ["getpeername4", "connect4"].map(|name| link::open(&fixture.pins().join("links").join(name)));
    let id = link::info(&from.unwrap()).unwrap().program_id;
    let other =
        aya::programs::loaded_programs().map(Result::unwrap).find(|program| program.id() == id).unwrap();
    let fd = other.fd().unwrap();
    link::update(&to.unwrap(), &fd.as_fd()).unwrap_or_else(|error| panic!("{error}"));
    let connect = named(&fixture, "program connect4");
    assert_eq!(connect.status, CheckStatus::Warn);
    assert!(connect.detail.contains("another build"), "{connect:?}");
    fixture.redirect = Redirect::attach(&fixture.config).unwrap();
    assert_eq!(problems(&fixture), []);

    // A directory for pins on another file system.
    let bpffs =
        std::mem::replace(&mut fixture.config.bpffs_dir, std::env::temp_dir().join("onecli-no-bpffs"));
    assert_eq!(named(&fixture, "bpffs").status, CheckStatus::Fail);
    fixture.config.bpffs_dir = bpffs;
}

#[test]
fn exclusive_attachments_are_reported() {
    let Some(fixture) = Fixture::new("kernel::exclusive_attachments_are_reported") else {
        return;
    };
    let root = fixture.tree().path(&fixture.config.agents_root).unwrap();
    let agent = fixture.tree().path(&fixture.agent("a.slice")).unwrap();
    // In an agent's cgroup it runs before OneCLI's programs, which still run.
    attach_exclusively(&fixture, &File::open(&agent).unwrap(), 0).unwrap();
    let found = named(&fixture, "other programs");
    assert_eq!(found.status, CheckStatus::Warn);
    assert!(found.detail.contains(agent.to_str().unwrap()), "{found:?}");
    remove_tree(&agent).unwrap();
    assert_eq!(problems(&fixture), []);

    // Another program is attached exclusively to the cgroup above.
    let above = root.parent().unwrap();
    attach_exclusively(&fixture, &File::open(above).unwrap(), 0).unwrap();
    let found = problems(&fixture);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].status, CheckStatus::Warn, "OneCLI's programs run until they are detached");
    assert_eq!(
        found[0].detail,
        format!("attached exclusively to {}, at attach types {{1}}", above.display())
    );
    detach(&fixture.config.bpffs_dir).unwrap();
    let refused = Redirect::attach(&fixture.config).map(drop);
    assert!(refused.is_err(), "the kernel does as the report says");
    let found = problems(&fixture);
    let is = |name: &str| found.iter().any(|check| check.name == name && check.status == CheckStatus::Fail);
    assert!(is("other programs") && is("program egress"), "{found:?}");
}

/// A program that descendants may override does not block OneCLI's.
#[test]
fn overridable_attachments_above_are_no_conflict() {
    const OVERRIDE: u32 = 1;
    let Some(mut fixture) = Fixture::new("kernel::overridable_attachments_above_are_no_conflict") else {
        return;
    };
    let root = fixture.tree().path(&fixture.config.agents_root).unwrap();
    attach_exclusively(&fixture, &File::open(root.parent().unwrap()).unwrap(), OVERRIDE).unwrap();
    assert_eq!(problems(&fixture), []);
    detach(&fixture.config.bpffs_dir).unwrap();
    fixture.redirect = Redirect::attach(&fixture.config).expect("the kernel does as the report says");
    assert_eq!(problems(&fixture), []);
}

/// Ports that other processes may get, and one that another process has.
#[test]
fn port_conflicts_are_reported() {
    let Some(mut fixture) = Fixture::new("kernel::port_conflicts_are_reported") else {
        return;
    };
    let port = fixture.config.transparent_port;
    let statuses = |serving| -> Vec<(String, CheckStatus)> {
        ports(&[port], serving).into_iter().map(|check| (check.name, check.status)).collect()
    };
    assert_eq!(statuses(true), [("ports".to_owned(), CheckStatus::Ok)]);
    drop((fixture.listener4.take(), fixture.listener6.take()));
    assert_eq!(statuses(false), [("ports".to_owned(), CheckStatus::Ok)]);
    let _squatter = listen(([127, 0, 0, 1], port).into());
    assert_eq!(statuses(false), [("port owner".to_owned(), CheckStatus::Fail)]);
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 11000").unwrap();
    assert_eq!(statuses(true), [("port range".to_owned(), CheckStatus::Warn)]);
    std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", port.to_string()).unwrap();
    assert_eq!(statuses(true), [("ports".to_owned(), CheckStatus::Ok)]);
}

/// Attaches OneCLI's egress program by `BPF_PROG_ATTACH` without `BPF_F_ALLOW_MULTI`.
fn attach_exclusively(fixture: &Fixture, cgroup: &File, flags: u32) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const EGRESS: u32 = 1;
    let pin = fixture.pins().join("links/egress");
    let id = link::info(&link::open(&pin)?)?.program_id;
    let mut programs = aya::programs::loaded_programs().map(Result::unwrap);
    let program = programs.find(|program| program.id() == id).expect("the attached program").fd().unwrap();
    let [cgroup, program] = [cgroup.as_raw_fd(), program.as_fd().as_raw_fd()].map(i32::cast_unsigned);
    let attr: [u32; 4] = [cgroup, program, EGRESS, flags];
    // SAFETY: target, program, attach type and flags, as the command reads them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attr.as_ptr(), size_of_val(&attr)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
