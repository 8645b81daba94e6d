//! The escape suite: what an agent tries to get out of its cgroup, and what comes of it.
//!
//! The agents' host and the target are two network namespaces joined by a veth pair. Attempts are functions in
//! `py/*.py`; [`table`] says of each what has to come of it, for every way a process gets into an agent's cgroup
//! ([`Mode`]). The target counts the packets that reach it. Each attempt is also made outside the managed cgroups,
//! where it must reach the target or succeed ([`Control`](table::Control)), or its row would show nothing. What takes more than one actor stands in
//! [`scenarios`].

mod check;
mod scenarios;
mod stage;
mod table;
mod world;

use onecli_tests::need;

use check::Findings;
use stage::{Mode, Stage};

/// Whether this machine can run the suite.
fn able() -> bool {
    need::bpf("everything")
        && need::program("everything", "ip", "iproute2")
        && need::program("everything", "python3", "python3")
        && need::program("everything", "nsenter", "util-linux")
}

#[test]
fn slow_nothing_gets_out() {
    if !able() {
        return;
    }
    let stage = Stage::new();
    let mut findings = Findings::new(&stage);
    // The control is last: what it leaves on its way cannot be taken for an agent's.
    for mode in Mode::ALL {
        let before = stage.refusals();
        let reports = stage.run(mode, &table::of(mode));
        findings.add(mode, &reports, stage.refusals() - before);
    }
    let (table, wrong) = findings.judge();
    println!("{table}");
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}
