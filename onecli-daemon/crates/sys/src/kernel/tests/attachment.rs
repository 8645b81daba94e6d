//! Programs and maps outlive the daemon, and a new daemon takes over without a gap.

use std::{io::ErrorKind, os::unix::fs::PermissionsExt as _};

use caps::CapSet;

use super::{
    child::Client,
    fixture::{Fixture, accept, listen, remove_tree},
};
use crate::kernel::{
    AgentEntry, Cgroup2, KernelError, LinkState, Redirect,
    attach::{OBJECT, attach_object},
    check, detach, link,
    retire::{RetireOutcome, StillAttached, retire},
};

#[test]
fn a_second_attach_keeps_maps_and_never_stops_enforcing() {
    let Some(mut fixture) = Fixture::new("kernel::a_second_attach_keeps_maps_and_never_stops_enforcing")
    else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let id = fixture.id_of(&agent);
    let entry = AgentEntry { index: 7, flags: 0, dns_addr: [127, 0, 0, 9] };
    fixture.redirect.set_agent(id, entry).unwrap();
    // Meanwhile the child connects to a listener that it must never reach.
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let client = Client::start(&fixture, &agent, &["repeat", "127.0.0.1:7777"]);
    let first = accept(fixture.listener4.as_ref().unwrap()).unwrap();
    let transparent = fixture.listener4.take().unwrap();
    let (mut accepted, mut missed) = (1_u32, 0_u32);
    for _ in 0..10 {
        fixture.redirect = Redirect::attach(&fixture.config).expect("attach again");
        transparent.set_nonblocking(true).unwrap();
        loop {
            match transparent.accept() {
                Ok((stream, _)) => {
                    accepted += 1;
                    missed += u32::from(fixture.redirect.flow(&stream).unwrap().is_none());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    // The new handles read records that the old programs wrote.
    assert!(fixture.redirect.flow(&first).unwrap().is_some());
    assert!(check(&fixture.config).unwrap().is_enforcing());
    fixture.listener4 = Some(transparent);
    let findings = client.finish();
    let connections: u32 = findings.get("connections").parse().unwrap();
    assert!(connections >= accepted && accepted > 10, "{accepted} of {connections}");
    assert_eq!(missed, 0, "of {accepted}");
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "a connection was not redirected");
}

/// An upgrade over an ABI version: new maps and new links, and the old ones go last. No connection passes unfiltered in
/// between.
#[test]
fn a_former_versions_pins_are_taken_over_without_a_gap() {
    let Some(mut fixture) = Fixture::new("kernel::a_former_versions_pins_are_taken_over_without_a_gap")
    else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let client = Client::start(&fixture, &agent, &["hammer", "127.0.0.1:7777"]);
    let transparent = fixture.listener4.take().unwrap();
    transparent.set_nonblocking(true).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _nobody = transparent.accept();
            }
        });
        for _ in 0..5 {
            // The same programs and maps, as a former version leaves them.
            let former = fixture.config.bpffs_dir.join("v1");
            std::fs::rename(fixture.pins(), &former).unwrap();
            fixture.redirect = Redirect::attach(&fixture.config).expect("attach over the former version");
            assert!(!former.exists());
            assert!(check(&fixture.config).unwrap().is_enforcing());
            fixture.redirect.stamp(&transparent).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let findings = client.finish();
    let connections: u32 = findings.get("connections").parse().unwrap();
    assert!(connections > 100, "{findings:?}");
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "a connection was not redirected");
    // One set of programs is left: the recorded destination is the requested one.
    fixture.listener4 = Some(transparent);
    while fixture.listener4.as_ref().is_some_and(|listener| listener.accept().is_ok()) {}
    let client = Client::start(&fixture, &agent, &["connect", "192.0.2.7:80"]);
    let (stream, flow) = fixture.accept4();
    drop((stream, client));
    assert_eq!(flow.unwrap().original_destination.to_string(), "192.0.2.7:80");
}

/// Returns another build of the programs, as an upgrade brings: a constant in the packet filter is one less.
fn another_build() -> Vec<u8> {
    let mut object = OBJECT.to_vec();
    // `MOMENT` of egress, or the number below it, as the immediate of a comparison or of a move to a register (RFC
    // 9669).
    for instruction in object.as_chunks_mut::<8>().0 {
        let [code, _, _, _, immediate @ ..] = *instruction;
        let value = u32::from_le_bytes(immediate);
        if matches!(code & 7, 5..=7) && matches!(value, 9_999 | 10_000) {
            instruction[4..].copy_from_slice(&(value - 1).to_le_bytes());
        }
    }
    assert!(object != OBJECT, "the constant was not found in the object");
    object
}

/// Repeated upgrades by link update, while clients in several processes connect all the time.
#[test]
fn another_build_takes_over_without_a_gap() {
    let Some(mut fixture) = Fixture::new("kernel::another_build_takes_over_without_a_gap") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let tag = |fixture: &Fixture| {
        let id = link::info(&link::open(&fixture.pins().join("links/egress")).unwrap()).unwrap().program_id;
        link::program_tags().into_iter().find(|(program, _)| *program == id).expect("its tag").1
    };
    let (ours, other) = (tag(&fixture), another_build());
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let clients: Vec<Client> =
        (0..3).map(|_| Client::start(&fixture, &agent, &["hammer", "127.0.0.1:7777"])).collect();
    let transparent = fixture.listener4.take().unwrap();
    transparent.set_nonblocking(true).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let lost = std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let mut lost = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok((stream, _)) = transparent.accept() {
                    lost += u32::from(fixture.redirect.flow(&stream).unwrap().is_none());
                }
            }
            lost
        });
        for round in 0..20 {
            let object = if round % 2 == 0 { &other } else { OBJECT };
            attach_object(object, &fixture.config).expect("take over");
            assert_eq!(tag(&fixture) != ours, round % 2 == 0, "round {round}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        serving.join().unwrap()
    });
    for client in clients {
        let findings = client.finish();
        let connections: u32 = findings.get("connections").parse().unwrap();
        assert!(connections > 100, "{findings:?}");
    }
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "a connection was not redirected");
    assert_eq!(lost, 0, "connections without an identity");
}

/// The guard of one daemon does not affect another's agents, and is removed with its daemon.
#[test]
fn two_daemons_guard_their_own_agents() {
    let Some(mut fixture) = Fixture::new("kernel::two_daemons_guard_their_own_agents") else {
        return;
    };
    let mut second = fixture.config.clone();
    second.agents_root = fixture.unmanaged().join("agents.slice");
    second.daemon_cgroup = fixture.unmanaged().join("daemon.slice");
    second.bpffs_dir = fixture.config.bpffs_dir.with_extension("").with_file_name(format!(
        "{}-second",
        fixture.config.bpffs_dir.file_name().unwrap().to_str().unwrap()
    ));
    let theirs = second.agents_root.join("a.slice");
    fixture.tree().ensure(&theirs).unwrap();
    let ours = fixture.agent("a.slice");
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let other = Redirect::attach(&second).unwrap();
    // The second daemon would open listeners in its own cgroup. The port is the same, so only one of the two has a
    // listener here.
    fixture.redirect = Redirect::attach(&fixture.config).unwrap();
    let client = Client::start(&fixture, &ours, &["connect", "192.0.2.7:80"]);
    assert!(fixture.accept4().1.is_some());
    drop(client);
    let findings = Client::run(&fixture, &theirs, &["connect", "127.0.0.1:7777"]);
    assert_eq!(findings.errno(), libc::EPERM, "the listener is not stamped by this daemon");
    let path = fixture.tree().path(&theirs).unwrap();
    let moved = ["connect_from", "127.0.0.1:7777", path.to_str().unwrap()];
    let home = fixture.unmanaged();
    assert_eq!(Client::run(&fixture, &home, &moved).errno(), libc::EPERM);
    detach(&second.bpffs_dir).unwrap();
    drop(other);
    // The kernel detaches a link a moment after its last reference is closed.
    let gone = (0..50).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        Client::run(&fixture, &home, &moved).errno() == 0
    });
    assert!(gone, "the second daemon's guard is removed");
    let path = fixture.tree().path(&ours).unwrap();
    let moved = ["connect_from", "127.0.0.1:7777", path.to_str().unwrap()];
    assert_eq!(Client::run(&fixture, &home, &moved).errno(), libc::EPERM, "the first daemon's guard is not");
    drop(elsewhere);
}

/// Removing a cgroup makes its links defunct. A re-created one is enforced only after the next attach.
#[test]
fn a_recreated_cgroup_is_noticed_and_attached_again() {
    let Some(mut fixture) = Fixture::new("kernel::a_recreated_cgroup_is_noticed_and_attached_again") else {
        return;
    };
    assert!(check(&fixture.config).unwrap().is_enforcing());
    let root = fixture.tree().path(&fixture.config.agents_root).unwrap();
    remove_tree(&root).unwrap();
    std::fs::create_dir(&root).unwrap();
    let health = check(&fixture.config).unwrap();
    assert!(!health.is_enforcing());
    let broken = health.links.iter().filter(|link| link.state != LinkState::Attached).count();
    assert_eq!(broken, 13, "all programs of the agents root, none of the machine's: {health:?}");
    fixture.redirect = Redirect::attach(&fixture.config).unwrap();
    assert!(check(&fixture.config).unwrap().is_enforcing());
    let agent = fixture.agent("a.slice");
    let client = Client::start(&fixture, &agent, &["connect", "192.0.2.7:80"]);
    let (stream, flow) = fixture.accept4();
    drop(stream);
    drop(client);
    assert_eq!(flow.unwrap().agent_cgroup_id, fixture.id_of(&agent));
}

#[test]
fn detach_ends_enforcement_and_leaves_nothing() {
    let Some(fixture) = Fixture::new("kernel::detach_ends_enforcement_and_leaves_nothing") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    detach(&fixture.config.bpffs_dir).unwrap();
    detach(&fixture.config.bpffs_dir).unwrap();
    assert!(!fixture.config.bpffs_dir.exists());
    let health = check(&fixture.config).unwrap();
    assert!(health.links.iter().all(|link| link.state == LinkState::NotPinned));
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let client = Client::start(&fixture, &agent, &["connect", "127.0.0.1:7777"]);
    drop(accept(&elsewhere).expect("not redirected any more"));
    client.finish();
}

/// Removal of the package: a running agent stays under enforcement, whatever the configuration is by then.
#[test]
fn retiring_leaves_the_programs_attached_while_an_agent_runs() {
    let Some(fixture) = Fixture::new("kernel::retiring_leaves_the_programs_attached_while_an_agent_runs")
    else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let running = Client::start(&fixture, &agent, &["repeat", "127.0.0.1:7777"]);
    while !fixture.tree().is_populated(&agent).unwrap() {
        std::thread::yield_now();
    }
    let kept = retire(&fixture.config.bpffs_dir).unwrap();
    let held = Cgroup2::find().unwrap().path(&fixture.config.agents_root).unwrap();
    assert_eq!((kept.cgroups, kept.kept), (vec![held.clone()], Some(StillAttached::Populated(held.clone()))));
    assert!(check(&fixture.config).unwrap().is_enforcing());
    drop(running);
    while fixture.tree().is_populated(&agent).unwrap() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let retired = retire(&fixture.config.bpffs_dir).unwrap();
    assert_eq!(retired, RetireOutcome { cgroups: vec![held], kept: None });
    assert!(!fixture.config.bpffs_dir.exists());
    assert_eq!(retire(&fixture.config.bpffs_dir).unwrap(), RetireOutcome { cgroups: Vec::new(), kept: None });
}

/// Agents may run below a root that the configuration no longer names. They stay under enforcement.
#[test]
fn another_agents_root_is_refused_while_the_old_one_exists() {
    let Some(fixture) = Fixture::new("kernel::another_agents_root_is_refused_while_the_old_one_exists")
    else {
        return;
    };
    let mut config = fixture.config.clone();
    config.agents_root = fixture.unmanaged();
    let refused = Redirect::attach(&config).map(drop);
    assert!(matches!(refused, Err(KernelError::ForeignLink { .. })), "{refused:?}");
    assert!(check(&fixture.config).unwrap().is_enforcing());
}

/// The kernel would run a connect4 program at connect6 without an error.
#[test]
fn a_link_of_another_attach_type_is_refused() {
    let Some(fixture) = Fixture::new("kernel::a_link_of_another_attach_type_is_refused") else {
        return;
    };
    let links = fixture.pins().join("links");
    std::fs::rename(links.join("connect4"), links.join("aside")).unwrap();
    std::fs::rename(links.join("connect6"), links.join("connect4")).unwrap();
    let refused = Redirect::attach(&fixture.config).map(drop);
    let Err(KernelError::ForeignLink { found, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(found, "attach type 11 and not 10");
}

/// The serving process has no capability. Looking up flows, agents' entries and counters needs none (Linux 5.19).
#[test]
fn an_open_redirect_needs_no_capability() {
    let Some(fixture) = Fixture::new("kernel::an_open_redirect_needs_no_capability") else { return };
    let agent = fixture.agent("a.slice");
    let id = fixture.id_of(&agent);
    let client = Client::start(&fixture, &agent, &["connect", "192.0.2.7:80"]);
    // Capabilities belong to a thread; this one restores them below, for the cleanup.
    let all = caps::read(None, CapSet::Effective).unwrap();
    caps::clear(None, CapSet::Effective).unwrap();
    let (_stream, flow) = fixture.accept4();
    let set = fixture.redirect.set_agent(id, AgentEntry::default());
    let removed = fixture.redirect.remove_agent(id);
    let stats = fixture.redirect.stats();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let denials = {
        let _context = runtime.enter();
        fixture.redirect.take_denials().map(|denials| denials.is_some())
    };
    let reopened = Redirect::open(&fixture.config.bpffs_dir).map(drop);
    caps::set(None, CapSet::Effective, &all).unwrap();
    drop(client);
    assert_eq!(flow.unwrap().agent_cgroup_id, id);
    set.unwrap();
    removed.unwrap();
    assert!(stats.unwrap().contains(&("connections_identified", 1)));
    assert!(denials.unwrap());
    // bpf(2) would otherwise open the pins for uid 0: they are below a directory with an unused owner.
    assert!(matches!(reopened, Err(KernelError::Map { .. })), "{reopened:?}");
}

/// The log costs 1 µs and more. If it is off, the kernel must not contain its code.
#[test]
fn the_verifier_drops_the_log_unless_it_is_on() {
    let Some(mut fixture) = Fixture::new("kernel::the_verifier_drops_the_log_unless_it_is_on") else {
        return;
    };
    let instructions = |fixture: &Fixture| {
        let pin = fixture.pins().join("links/connect4");
        let id = link::info(&link::open(&pin).unwrap()).unwrap().program_id;
        let mut programs = aya::programs::loaded_programs().map(Result::unwrap);
        let program = programs.find(|program| program.id() == id).expect("the attached program");
        program.size_translated().unwrap() / 8
    };
    let quiet = instructions(&fixture);
    assert!(fixture.redirect.take_log().is_none());
    fixture.config.log = true;
    fixture.redirect = Redirect::attach(&fixture.config).unwrap();
    let loud = instructions(&fixture);
    eprintln!("connect4: {quiet} instructions, {loud} with the log");
    assert!(quiet < 600 && loud > quiet + 200, "{quiet} and {loud}");
    let agent = fixture.agent("a.slice");
    let findings = Client::run(&fixture, &agent, &["udp_send", "127.0.0.1:443"]);
    assert_eq!(findings.errno(), libc::EPERM);
    let mut log = fixture.redirect.take_log().expect("it is on");
    log.flush();
    assert!(fixture.redirect.take_log().is_none(), "the log has one reader");
}

#[test]
fn pins_are_accessible_to_root_only() {
    let Some(fixture) = Fixture::new("kernel::pins_are_accessible_to_root_only") else { return };
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let base = &fixture.config.bpffs_dir;
    std::fs::set_permissions(base, std::fs::Permissions::from_mode(0o755)).unwrap();
    fixture.redirect.stats().unwrap();
    Redirect::attach(&fixture.config).unwrap();
    for directory in [base.clone(), fixture.pins(), fixture.pins().join("maps"), fixture.pins().join("links")]
    {
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
    }
}

/// Pins of another ABI version are removed when this one enforces. A map with another layout is refused.
#[test]
fn other_versions_pins_are_removed_and_foreign_maps_refused() {
    let Some(fixture) = Fixture::new("kernel::other_versions_pins_are_removed_and_foreign_maps_refused")
    else {
        return;
    };
    let base = &fixture.config.bpffs_dir;
    std::fs::create_dir(base.join("v0")).unwrap();
    Redirect::attach(&fixture.config).unwrap();
    assert!(!base.join("v0").exists());
    let maps = fixture.pins().join("maps");
    std::fs::rename(maps.join("TUP"), maps.join("aside")).unwrap();
    std::fs::rename(maps.join("AGENTS"), maps.join("TUP")).unwrap();
    let refused = Redirect::attach(&fixture.config).map(drop);
    assert!(matches!(refused, Err(KernelError::ForeignMap { found: 12, wanted: 104, .. })), "{refused:?}");
}
