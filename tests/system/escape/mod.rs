//! The escape suite: attempts of an agent to leave its cgroup, and their results.
//!
//! The agents' host and the target are two network namespaces joined by a veth pair. Attempts are functions in
//! `py/*.py`. [`table`] lists the expected result of each, for every way in which a process enters an agent's cgroup
//! ([`Mode`]). The target counts the packets that reach it. Each attempt is also made outside the managed cgroups.
//! There it must reach the target or succeed ([`Control`](table::Control)), or its row would prove nothing. Attempts
//! with more than one actor are in [`scenarios`].

mod check;
mod scenarios;
mod stage;
mod table;
mod world;

use onecli_tests::need;

use check::Findings;
use stage::{Mode, Stage};

/// Returns whether this machine can run the suite.
fn able() -> bool {
    need::bpf("everything")
        && need::program("everything", "ip", "iproute2")
        && need::program("everything", "python3", "python3")
        && need::program("everything", "nsenter", "util-linux")
}

#[test]
fn slow_no_attempt_reaches_the_target() {
    if !able() {
        return;
    }
    let stage = Stage::new();
    let mut findings = Findings::new(&stage);
    // The control runs last, so its late packets cannot be mistaken for those of an agent.
    for mode in Mode::ALL {
        let before = stage.refusals();
        let reports = stage.run(mode, &table::of(mode));
        findings.add(mode, &reports, stage.refusals() - before);
    }
    let (table, wrong) = findings.judge();
    println!("{table}");
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}
