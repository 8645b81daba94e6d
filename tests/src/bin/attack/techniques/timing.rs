//! Timing: does a response take longer if its text resembles a value that does not occur in it?
//!
//! Two kinds of response alternate in random order, and the Mann-Whitney test compares their times. Control: the same
//! test detects a delay that the upstream adds to one kind.

use std::io;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;

use crate::stage::row::{Row, Trial};
use crate::stage::stats::{THRESHOLD, mann_whitney, median};
use crate::stage::world::{A, Conn, Seen, VALUE, World, reply};
use crate::wire::Tunnel;

const CONTROL: &str = "the same test detects a planted delay";

pub(crate) const ROWS: &[Row] = &[
    Row::new("timing/tail", "whether a guess is right, from the time of short responses", CONTROL, tail),
    Row::new("timing/dense", "whether a guess is right, from the time of long responses", CONTROL, dense),
    Row::new(
        "timing/end",
        "whether a guess of a value's end is right, from the time of long responses",
        CONTROL,
        end,
    ),
];

/// Pairs per batch. Batches are added until the control detects the planted delay.
const BATCH: usize = 150;
const BATCHES: usize = 6;
/// The delay that the control must detect.
const PLANTED: Duration = Duration::from_micros(500);
/// The number of unmeasured requests that warm up connections and caches.
const WARM_UP: usize = 20;
/// The number of characters that a text has in common with the value.
const AGREES: usize = 24;
/// The number of common characters at the end of the value, in hex.
const AGREES_AT_END: usize = 8;

/// The times of the four kinds, in microseconds.
#[derive(Default)]
struct Times {
    right: Vec<f64>,
    wrong: Vec<f64>,
    planted: Vec<f64>,
    plain: Vec<f64>,
}

/// Two texts of the same length, alphabet and composition. One resembles the value, the other does not.
type Guesses = fn() -> (String, String);

fn beginnings() -> (String, String) {
    let right = &VALUE[..AGREES];
    let wrong: String = right.chars().rev().collect();
    (right.to_owned(), wrong)
}

fn ends() -> (String, String) {
    let right = &VALUE[VALUE.len() - AGREES_AT_END..];
    let wrong: String = right.chars().rev().collect();
    (HEXLOWER.encode(right.as_bytes()), HEXLOWER.encode(wrong.as_bytes()))
}

/// Paths: `/right`, `/wrong`, `/planted`, `/plain`; the last two have the same text.
fn answers(
    guesses: Guesses,
    text: fn(&str) -> String,
) -> impl Fn(&Seen, &mut Conn) -> io::Result<()> + Send + Sync + 'static {
    let (right, wrong) = guesses();
    let (right, wrong) = (text(&right), text(&wrong));
    move |seen, conn| {
        if seen.target() == "/planted" {
            std::thread::sleep(PLANTED);
        }
        reply(conn, if seen.target() == "/right" { &right } else { &wrong })
    }
}

fn time(tunnel: &mut Tunnel, host: &str, path: &str) -> f64 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let started = Instant::now();
    let answer = tunnel.ask(request.as_bytes());
    let took = started.elapsed();
    assert_eq!((answer.status, answer.complete), (200, true), "{path}");
    took.as_secs_f64() * 1e6
}

/// A sequence that does not correlate with other load on the machine.
struct Order(u64);

impl Order {
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let other = usize::try_from(self.0 >> 33).expect("31 bits") % (at + 1);
            items.swap(at, other);
        }
    }
}

fn measure(world: &World, times: &mut Times, order: &mut Order) {
    let mut tunnel = world.tunnel(A);
    let host = world.at(A);
    for _ in 0..WARM_UP {
        time(&mut tunnel, &host, "/plain");
    }
    for _ in 0..BATCH {
        let mut kinds = ["/right", "/wrong", "/planted", "/plain"];
        order.shuffle(&mut kinds);
        for path in kinds {
            let took = time(&mut tunnel, &host, path);
            match path {
                "/right" => times.right.push(took),
                "/wrong" => times.wrong.push(took),
                "/planted" => times.planted.push(took),
                _ => times.plain.push(took),
            }
        }
    }
}

fn compare(trial: &mut Trial, world: &World) {
    let (mut times, mut order) = (Times::default(), Order(0x5eed));
    let mut control = 0.0;
    for _ in 0..BATCHES {
        measure(world, &mut times, &mut order);
        control = mann_whitney(&times.planted, &times.plain);
        if control > THRESHOLD {
            break;
        }
    }
    trial.control(format!("a delay of {PLANTED:?}: score {control:.1}"), control > THRESHOLD);
    let score = mann_whitney(&times.right, &times.wrong);
    let figures = format!(
        "{} responses each: median {:.0} us for a right guess, {:.0} us for a wrong one, score {score:.1}; a delay of \
         {PLANTED:?}: score {control:.1}; {THRESHOLD} counts",
        times.right.len(),
        median(&times.right),
        median(&times.wrong)
    );
    trial.attempt("the times differ", score.abs() > THRESHOLD);
    trial.note(figures);
}

fn world(guesses: Guesses, text: fn(&str) -> String) -> World {
    let (world, _) = World::with_key(&["--bearer", "--path", "/api/**"], answers(guesses, text));
    world.allow(A, "/**");
    world
}

fn tail(trial: &mut Trial) {
    compare(trial, &world(beginnings, |guess| format!("a stored file: {guess}")));
}

fn dense(trial: &mut Trial) {
    compare(trial, &world(beginnings, |guess| format!("{guess} ").repeat(2000)));
}

fn end(trial: &mut Trial) {
    compare(trial, &world(ends, |guess| format!("{guess} ").repeat(3000)));
}
