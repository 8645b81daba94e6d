//! The cost of the programs, as medians of `connect()`. Printed, and checked only against generous bounds.

use std::{
    env, fs, io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{
    child::{Client, report},
    fixture::{Fixture, TRANSPARENT_PORT, listen},
};
use crate::kernel::{AgentEntry, Redirect, detach};

const CONNECTIONS: &str = "5000";
/// Rounds; `ONECLI_BENCH_ROUNDS` sets another number, as `cargo xtask bench` does.
const ROUNDS: usize = 7;

#[test]
fn connect_costs_little_more_with_all_programs() {
    let Some(mut fixture) = Fixture::new("kernel::connect_costs_little_more_with_all_programs") else {
        return;
    };
    let (agent, outside) = (fixture.agent("a.slice"), fixture.unmanaged());
    let other = listen("127.0.0.1:7777".parse().unwrap());
    let entry = AgentEntry { index: 1, flags: 0, dns_addr: [0; 4] };
    let id = fixture.id_of(&agent);
    fixture.redirect.set_agent(id, entry).unwrap();
    let listener = fixture.listener4.take().unwrap();
    let rounds = env::var("ONECLI_BENCH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let direct = format!("127.0.0.1:{TRANSPARENT_PORT}");
    let (mut bare, mut redirected) = (vec![], vec![]);
    let (mut free, mut hooked, mut guarded) = (vec![], vec![], vec![]);
    // In turns, so that other load of this machine affects all alike.
    for _ in 0..rounds {
        redirected.push(median(&fixture, &listener, &agent, "192.0.2.7:443"));
        guarded.push(median(&fixture, &other, &outside, "127.0.0.1:7777"));
        for guard in ["guard_connect4", "guard_connect6", "guard_sendmsg4", "guard_sendmsg6"] {
            fs::remove_file(fixture.pins().join("links").join(guard)).unwrap();
        }
        hooked.push(median(&fixture, &other, &outside, "127.0.0.1:7777"));
        detach(&fixture.config.bpffs_dir).unwrap();
        bare.push(median(&fixture, &listener, &agent, &direct));
        free.push(median(&fixture, &other, &outside, "127.0.0.1:7777"));
        fixture.redirect = Redirect::attach(&fixture.config).unwrap();
        fixture.redirect.stamp(&listener).unwrap();
        fixture.redirect.set_agent(id, entry).unwrap();
    }
    let [bare, redirected, free, hooked, guarded] = [bare, redirected, free, hooked, guarded].map(middle);
    eprintln!(
        "connect(), medians: managed {bare:.0} ns without programs, {redirected:.0} ns with all ({:.2}); unmanaged \
         {free:.0} ns without, {hooked:.0} ns with the agents' hooks ({:.2}), {guarded:.0} ns with the guard ({:.2})",
        redirected / bare,
        hooked / free,
        guarded / free
    );
    assert!(redirected / bare < 3.0 && guarded / free < 2.0, "the programs cost too much");
}

/// Reports that the work is done when it is dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn median(fixture: &Fixture, listener: &TcpListener, cgroup: &Path, address: &str) -> f64 {
    let done = AtomicBool::new(false);
    let findings = thread::scope(|scope| {
        // However this ends: the scope waits for its threads.
        let _done = Done(&done);
        scope.spawn(|| sink(listener, &fixture.redirect, &done));
        Client::run(fixture, cgroup, &["time_connects", address, CONNECTIONS])
    });
    assert_eq!(findings.errno(), 0, "{address}");
    findings.get("median").parse().unwrap()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Accepts connections and looks up their flows, as the daemon does, and drops them.
fn sink(listener: &TcpListener, redirect: &Redirect, done: &AtomicBool) {
    listener.set_nonblocking(true).expect("O_NONBLOCK");
    while !done.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(redirect.flow(&stream).expect("look the flow up")),
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// The child: connects repeatedly; reports the median duration of the call, nanoseconds.
pub(super) fn time(address: &str, connections: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().expect("an address");
    let target = address.into();
    let connections: usize = connections.parse().expect("a number");
    let mut times = Vec::with_capacity(connections);
    for _ in 0..connections {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_linger(Some(Duration::ZERO))?;
        let started = Instant::now();
        socket.connect(&target).inspect_err(|error| eprintln!("connection {}: {error}", times.len()))?;
        times.push(started.elapsed().as_secs_f64() * 1e9);
    }
    report("median", middle(times));
    Ok(())
}
