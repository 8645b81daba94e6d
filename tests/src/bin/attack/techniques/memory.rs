//! Attacks that make the daemon's memory grow.

use std::io::{self, Read as _, Write};
use std::time::Duration;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, Conn, Seen, World, reply};

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "memory/unread-http1",
        "1 MiB of the daemon's memory per unread response",
        "a reader gets the whole response",
        unread_http1,
    ),
    Row::new(
        "memory/unread-http2",
        "1 MiB of the daemon's memory per unread stream",
        "a reader gets the whole response",
        unread_http2,
    ),
    Row::new("memory/names", "memory for each invented host name", "an existing name is served", names),
];

/// The number of responses that the agent does not read.
const UNREAD: usize = 60;
/// The allowed cost of each: buffers of two TLS connections and 64 KiB of body.
const EACH: usize = 300 * 1024;
const LARGE: usize = 64 << 20;
/// The size of a response that is read.
const READ: usize = 4 << 20;
/// The number of invented names, and the allowed cost of all of them.
const NAMES: usize = 3000;
const ALL_NAMES: usize = 16 << 20;

/// The resident memory of a process, in bytes.
fn resident(pid: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("the daemon runs");
    let pages: usize =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn flood(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    if seen.target() == "/small" {
        return reply(conn, "ok");
    }
    let size = if seen.target() == "/read" { READ } else { LARGE };
    write!(conn, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
    let block = vec![b' '; 64 * 1024];
    for _ in 0..size / block.len() {
        conn.write_all(&block)?;
    }
    Ok(())
}

fn world() -> World {
    World::with_key(&["--bearer"], flood).0
}

/// Waits until the daemon's memory stops growing.
fn settled(world: &World) -> usize {
    let mut last = resident(world.daemon.pid());
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(500));
        let now = resident(world.daemon.pid());
        if now.abs_diff(last) < 256 * 1024 {
            return now;
        }
        last = now;
    }
    last
}

fn judge(trial: &mut Trial, world: &World, before: usize) {
    let each = settled(world).saturating_sub(before) / UNREAD;
    trial.note(format!("{} KiB for each of {UNREAD} unread responses", each / 1024));
    trial.attempt(format!("{} KiB each", each / 1024), each > EACH);
}

fn reader(trial: &mut Trial, world: &World) {
    let answer = world.get(A, "/read", "Connection: close\r\n");
    trial.control(format!("a reader got {} bytes", answer.body.len()), answer.body.len() == READ);
}

fn unread_http1(trial: &mut Trial) {
    let world = world();
    reader(trial, &world);
    let before = settled(&world);
    let held: Vec<_> = (0..UNREAD)
        .map(|_| {
            let mut tunnel = world.tunnel(A);
            tunnel.write_all(&world.request("GET", A, "/flood", "")).expect("sent");
            tunnel
        })
        .collect();
    judge(trial, &world, before);
    drop(held);
}

fn unread_http2(trial: &mut Trial) {
    let world = world();
    reader(trial, &world);
    let before = settled(&world);
    let mut http2 = world.http2(A);
    for _ in 0..UNREAD {
        http2.begin(&world.at(A), "/flood").expect("sent");
    }
    judge(trial, &world, before);
    drop(http2);
}

fn names(trial: &mut Trial) {
    let world = world();
    let answer = world.get(A, "/small", "Connection: close\r\n");
    trial.control("an existing name is served", answer.status == 200);
    let before = settled(&world);
    for number in 0..NAMES {
        let request = format!(
            "CONNECT n{number}.test:443 HTTP/1.1\r\nHost: n{number}.test:443\r\nProxy-Authorization: Bearer {}\r\n\r\n",
            world.agent.token
        );
        if let Ok(mut stream) = crate::wire::tunnel::connect(world.daemon.explicit_addr()) {
            stream.write_all(request.as_bytes()).expect("sent");
            let _ = stream.read(&mut [0; 64]);
        }
    }
    let grown = settled(&world).saturating_sub(before);
    trial.note(format!("{} KiB for {NAMES} names", grown / 1024));
    trial.attempt(format!("{} KiB", grown / 1024), grown > ALL_NAMES);
}
