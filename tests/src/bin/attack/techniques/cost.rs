//! CPU time: one request of an agent must not occupy the threads that serve all agents.
//!
//! A long request is compared with a short one of the same kind, in CPU time of the daemon. Control: the short request
//! is served as expected, and the meter shows that a large response costs more than a small one.

use std::io;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, Conn, Seen, World, reply};

/// The allowed ratio between the cost of a long and a short request.
const RATIO: u64 = 25;
/// The number of requests in one measurement, and of measurements. The cheapest measurement counts.
const REQUESTS: u64 = 5;
const ROUNDS: usize = 3;
/// Above this many nanoseconds one measurement suffices.
const CLEAR: u64 = 200_000_000;

const GETS: &str = "CPU time of the daemon, which other agents then lack";
const CONTROL: &str = "the short request gets its response, and the meter works";

pub(crate) const ROWS: &[Row] = &[
    Row::new("cost/template-denials", GETS, CONTROL, template_denials),
    Row::new("cost/two-wildcards", GETS, CONTROL, two_wildcards).quick(),
    Row::new("cost/deny-rules", GETS, CONTROL, deny_rules),
    Row::new("cost/long-query", GETS, CONTROL, long_query),
    Row::new("cost/host-names", GETS, CONTROL, host_names),
];

/// The CPU time of all threads of a process, in nanoseconds (`/proc/PID/task/TID/schedstat`).
fn cpu(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
    let of = |task: io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.filter_map(of).sum()
}

/// The cost of one request, in nanoseconds.
fn cost(world: &World, mut ask: impl FnMut()) -> u64 {
    let mut round = |requests: u64| {
        let before = cpu(world.daemon.pid());
        (0..requests).for_each(|_| ask());
        cpu(world.daemon.pid()).saturating_sub(before) / requests
    };
    let first = round(1);
    if first > CLEAR {
        return first;
    }
    (0..ROUNDS).map(|_| round(REQUESTS)).min().unwrap_or_default().max(1)
}

fn answer(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    let size = if seen.target() == "/large" { 4 << 20 } else { 64 };
    reply(conn, vec![b' '; size])
}

/// Paths of 16 KiB and of 60 KiB, with the maximum number of segments and with 512.
fn long_paths(begin: &str, end: &str) -> Vec<(&'static str, String)> {
    let filled = |size: usize, segments: usize| {
        let each = (size - begin.len() - end.len()) / segments - 1;
        format!("{begin}{}{end}", format!("/{}", "a".repeat(each)).repeat(segments))
    };
    vec![
        ("16 KiB, 500 segments", filled(16_000, 500)),
        ("16 KiB, 8,000 segments", filled(16_000, 8_000 - begin.len())),
        ("60 KB, 30,000 segments", format!("{begin}{}{end}", "/a".repeat(30_000))),
    ]
}

/// Compares long paths with a short one.
fn compare(trial: &mut Trial, world: &World, method: &str, begin: &str, end: &str) {
    let fields = "Content-Length: 0\r\nConnection: close\r\n";
    let ask = |path: &str| world.send(A, &world.request(method, A, path, fields));
    let short = format!("{begin}/a/a{end}");
    let served = ask(&short);
    trial.control(format!("the short path gets a response: {}", served.status), served.status != 0);
    let short = cost(world, || drop(ask(&short)));
    for (what, path) in long_paths(begin, end) {
        let long = cost(world, || drop(ask(&path)));
        let figures = format!("{what}: {} us, {} times a short path", long / 1000, long / short);
        trial.note(figures.clone());
        trial.attempt(figures, long / short > RATIO);
        if long > CLEAR {
            // Longer paths would take minutes.
            break;
        }
    }
}

/// Checks that the meter distinguishes a large response from a small one.
fn meter(trial: &mut Trial, world: &World) {
    world.allow(A, "/*");
    let ask = |path: &str| drop(world.get(A, path, "Connection: close\r\n"));
    let (small, large) = (cost(world, || ask("/small")), cost(world, || ask("/large")));
    trial.control(format!("4 MiB cost {large} ns, 64 B cost {small} ns"), large > 2 * small);
}

fn template_denials(trial: &mut Trial) {
    let (world, _) = World::with_key(&["--template", "gitlab"], answer);
    compare(trial, &world, "POST", "", "");
    meter(trial, &world);
}

fn two_wildcards(trial: &mut Trial) {
    let (world, _) = World::with_key(&["--bearer", "--path", "/api/**/read/**"], answer);
    compare(trial, &world, "POST", "/api", "");
    compare(trial, &world, "POST", "/api", "/read/x");
    meter(trial, &world);
}

fn deny_rules(trial: &mut Trial) {
    let (world, _) = World::with_key(&["--bearer"], answer);
    let port = world.at(A).split(':').nth(1).unwrap_or_default().to_owned();
    for number in 0..20 {
        let path =
            if number < 15 { format!("/repos/*/*/x{number}/**") } else { format!("/**/admin{number}/**") };
        let rule = ["rule", "add", "deny", "--host", A, "--port", &port, "--path", &path];
        world.daemon.onecli(&rule).ok("rule add deny");
    }
    compare(trial, &world, "GET", "", "");
    compare(trial, &world, "DELETE", "", "");
    meter(trial, &world);
}

fn long_query(trial: &mut Trial) {
    let (world, _) = World::with_key(&["--query", "key", "--path", "/q"], answer);
    let ask = |query: &str| world.get(A, &format!("/q?{query}"), "Connection: close\r\n");
    let served = ask("a=1");
    trial.control(format!("the short query gets a response: {}", served.status), served.status == 200);
    let short = cost(&world, || drop(ask("a=1")));
    for (what, query) in [
        ("15,000 pairs", "a=1&".repeat(15_000)),
        ("one long value", "a".repeat(60_000)),
        ("escapes", "%25".repeat(20_000)),
    ] {
        let long = cost(&world, || drop(ask(&query)));
        let figures = format!("{what}: {} us, {} times a short query", long / 1000, long / short);
        trial.note(figures.clone());
        trial.attempt(figures, long / short > RATIO);
    }
    meter(trial, &world);
}

/// Names that are expensive to normalise, from a client without a token.
fn host_names(trial: &mut Trial) {
    let (world, _) = World::with_key(&["--bearer"], answer);
    let ask = |host: &str| {
        let request = format!("GET http://x.test/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        world.raw(request.as_bytes())
    };
    let refused = ask("x.test");
    trial.control("a short name gets a response", refused.starts_with(b"HTTP/1.1 407"));
    let short = cost(&world, || drop(ask("x.test")));
    let unified: String = (0..20_000).filter_map(|n| char::from_u32(0x4e00 + n)).collect();
    for (what, host) in [
        ("20,000 ideographs", unified),
        ("punycode of 60 KB", format!("xn--{}", "a".repeat(60_000))),
        ("30,000 labels", "a.".repeat(30_000)),
        ("combining marks", "a\u{301}\u{323}".repeat(10_000)),
        ("joiners", "\u{627}\u{200d}".repeat(12_000)),
    ] {
        let long = cost(&world, || drop(ask(&host)));
        let figures = format!("{what}: {} us, {} times a short name", long / 1000, long / short);
        trial.note(figures.clone());
        trial.attempt(figures, long / short > RATIO);
    }
    meter(trial, &world);
}
