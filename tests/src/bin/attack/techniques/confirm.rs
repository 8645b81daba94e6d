//! Confirmation: an agent stores guesses at the service, reads them, and sees which of them is masked.
//!
//! One right guess cannot be hidden, because the mask must stay. The defence is that an agent cannot try many.

use std::io;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, Conn, Seen, VALUE, World, reply};
use crate::wire::Answer;
use crate::wire::websocket;

use super::oracle::switched;

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "confirm/mask",
        "confirmation of any number of guesses",
        "the same number of responses without a match arrive",
        mask,
    )
    .quick(),
    Row::new(
        "confirm/websocket",
        "confirmation of any number of guesses over one WebSocket",
        "the same number of messages without a match arrive",
        over_websocket,
    ),
];

/// The number of guesses in one row. Twenty may be confirmed.
const GUESSES: usize = 40;
const ALLOWED: usize = 21;
const MISS: &str = "sk7Qx2mZt9Lr4WbN8cYp3VdK6hJf1Gsx";

/// The guess that a path or a message selects: `hit` or `miss`.
fn guess(name: &str) -> String {
    let value = if name.starts_with("hit") { VALUE } else { MISS };
    format!("a stored guess: {value}!\n\n")
}

fn guesses(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    reply(conn, guess(seen.last_segment()))
}

fn is_masked(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"****").is_some()
}

fn world(handler: impl Fn(&Seen, &mut Conn) -> io::Result<()> + Send + Sync + 'static) -> World {
    let (world, _) = World::with_key(&["--bearer", "--path", "/api/**"], handler);
    world.allow(A, "/**");
    world
}

fn mask(trial: &mut Trial) {
    let world = world(guesses);
    let ask =
        |path: &str| (0..GUESSES).map(|_| world.get(A, path, "Connection: close\r\n")).collect::<Vec<_>>();
    let missed = ask("/files/miss");
    let arrived = |a: &&Answer| a.complete && memchr::memmem::find(&a.body, MISS.as_bytes()).is_some();
    trial.control("responses without a match arrive", missed.iter().filter(arrived).count() == GUESSES);
    let hits = ask("/files/hit").iter().filter(|a| a.complete && is_masked(&a.body)).count();
    trial.attempt(format!("{hits} of {GUESSES} guesses confirmed"), hits > ALLOWED);
    trial.attempt("no alert", alerts(&world) == 0);
}

/// The number of alerts, except those about the start.
fn alerts(world: &World) -> usize {
    world.daemon.audit().iter().filter(|record| record["event"] == "alert").count()
}

fn socket(_: &Seen, conn: &mut Conn) -> io::Result<()> {
    use std::io::Write as _;
    conn.write_all(websocket::switch().as_bytes())?;
    conn.flush()?;
    loop {
        let message = websocket::receive(conn)?;
        websocket::send(conn, guess(&String::from_utf8_lossy(&message.payload)).as_bytes(), false)?;
    }
}

/// The response bodies that arrive for a series of messages.
fn messages(world: &World, text: &str) -> Vec<Vec<u8>> {
    let Some(mut tunnel) = switched(world, A, "/socket") else { return Vec::new() };
    let mut all = Vec::new();
    for _ in 0..GUESSES {
        if websocket::send(&mut tunnel, text.as_bytes(), true).is_err() {
            break;
        }
        match websocket::receive(&mut tunnel) {
            Ok(message) if message.opcode == websocket::TEXT => all.push(message.payload),
            _ => break,
        }
    }
    all
}

fn over_websocket(trial: &mut Trial) {
    let world = world(socket);
    trial.control("messages without a match arrive", messages(&world, "miss").len() == GUESSES);
    let hits = messages(&world, "hit").iter().filter(|body| is_masked(body)).count();
    trial.attempt(format!("{hits} of {GUESSES} guesses confirmed"), hits > ALLOWED);
    trial.attempt("no alert", alerts(&world) == 0);
}
