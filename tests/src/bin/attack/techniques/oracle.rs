//! Prefix oracles: an agent stores a guess as text at a host, and observes how the response arrives. If a right guess
//! is split into other pieces than a wrong one, the agent reads the value character by character.
//!
//! Control: the same observer distinguishes right from wrong if the upstream itself splits its response after a right
//! guess.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use async_compression::tokio::write::GzipEncoder;
use data_encoding::HEXLOWER;
use tokio::io::AsyncWriteExt as _;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, Conn, Seen, VALUE, World};
use crate::wire::Tunnel;
use crate::wire::websocket::{self, HANDSHAKE, switch};

/// The text before a guess. The empty line ends every match.
const BEFORE: &str = "a stored file!\n\n";
/// For the control: the upstream splits its response where a guess is a prefix of this text.
const PLANTED: &str = "pL4ntedRm8Xk2Wq7Zt9Yb3Nc6Vh1Js5D";
/// The number of first observations of each guess.
const LOOKS: usize = 5;
/// The number of additional observations if the first ones show a difference. TLS records vary by chance: the beginning
/// of a body is sometimes sent with the head.
const MORE_LOOKS: usize = 12;
/// Traces of two guesses differ if their common part is smaller than this.
const APART: f64 = 0.25;
/// The common part of the traces of two wrong guesses is at least this.
const ALIKE: f64 = 0.5;
/// The lengths of the guesses.
const LENGTHS: [usize; 4] = [3, 8, 16, 31];
/// The time between two parts of a response.
const PAUSE: Duration = Duration::from_millis(40);
const ENDED: &[u8] = b"the answer ends here";

const GETS: &str = "any value of that host, character by character";
const CONTROL: &str = "an upstream that splits its response is detected";

pub(crate) const ROWS: &[Row] = &[
    Row::new("oracle/http1-chunks", GETS, CONTROL, http1_chunks).quick(),
    Row::new("oracle/http1-length", GETS, CONTROL, http1_length),
    Row::new("oracle/http2-data", GETS, CONTROL, http2_data).quick(),
    Row::new("oracle/websocket", GETS, CONTROL, websocket).quick(),
    Row::new("oracle/compressed", GETS, CONTROL, compressed).quick(),
    Row::new("oracle/delay", GETS, CONTROL, delay),
    Row::new("oracle/events", GETS, CONTROL, events),
    Row::new("oracle/lines", GETS, CONTROL, lines),
    Row::new("oracle/never-granted", "the value of another agent's secret", CONTROL, never_granted),
    Row::new("oracle/ungranted", "the value of a secret after its grant is revoked", CONTROL, ungranted),
    Row::new("oracle/disabled", "the value of a disabled secret", CONTROL, disabled),
    Row::new(
        "oracle/refresh-token",
        "a refresh token, which is never sent to that host",
        CONTROL,
        refresh_token,
    ),
    Row::new("oracle/aws-secret-key", "an AWS secret key, which is never sent", CONTROL, aws_secret_key),
];

/// The arrival of a response: sizes of frames, then sizes of TLS records.
type Trace = (Vec<usize>, Vec<usize>);

/// The number of times each trace of a guess was seen.
#[derive(Default)]
struct Looks {
    traces: BTreeMap<Trace, u32>,
    count: u32,
}

impl Looks {
    fn add(&mut self, trace: Trace) {
        *self.traces.entry(trace).or_default() += 1;
        self.count += 1;
    }

    fn share(&self, trace: &Trace) -> f64 {
        f64::from(self.traces.get(trace).copied().unwrap_or_default()) / f64::from(self.count.max(1))
    }

    /// The share of the observations that both have in common, from 0 to 1.
    fn common(&self, other: &Looks) -> f64 {
        self.traces.keys().map(|trace| self.share(trace).min(other.share(trace))).sum()
    }
}

/// A right guess, and wrong guesses of the same length.
struct Guesses {
    texts: [String; 4],
    looks: [Looks; 4],
}

impl Guesses {
    fn new(right: &str) -> Guesses {
        let [first, middle, last] = wrong_guesses(right);
        Guesses { texts: [right.to_owned(), first, middle, last], looks: Default::default() }
    }

    /// Takes turns, so that other load on the machine affects all guesses equally.
    fn watch(&mut self, times: usize, look: &mut impl FnMut(&str) -> Trace) {
        for _ in 0..times {
            for (text, looks) in self.texts.iter().zip(&mut self.looks) {
                looks.add(look(text));
            }
        }
    }

    /// The largest common part of the right guess and a wrong one, and the smallest of two wrong ones.
    fn distances(&self) -> (f64, f64) {
        let [right, wrong @ ..] = &self.looks;
        let nearest = wrong.iter().map(|wrong| right.common(wrong)).fold(0.0, f64::max);
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(one, other)| wrong[one].common(&wrong[other]));
        (nearest, pairs.into_iter().fold(1.0, f64::min))
    }
}

/// Returns whether an observer distinguishes a right guess from wrong ones of its length, for any length.
fn tells_apart(value: &str, mut look: impl FnMut(&str) -> Trace) -> Option<String> {
    LENGTHS.into_iter().filter(|length| *length < value.len()).find_map(|length| {
        let mut guesses = Guesses::new(&value[..length]);
        guesses.watch(LOOKS, &mut look);
        if guesses.distances().0 < ALIKE {
            guesses.watch(MORE_LOOKS, &mut look);
        }
        let (nearest, alike) = guesses.distances();
        let [right, wrong, ..] = &guesses.looks;
        let shown = || {
            format!(
                "{length} characters: {:?} for a right guess, {:?} for a wrong one",
                right.traces, wrong.traces
            )
        };
        (nearest < APART && alike >= ALIKE).then(shown)
    })
}

/// Guesses of the same length and alphabet that are wrong in their first, a middle, or their last character.
fn wrong_guesses(right: &str) -> [String; 3] {
    [0, right.len() / 2, right.len() - 1].map(|at| {
        let other = if right.as_bytes()[at] == b'q' { "w" } else { "q" };
        format!("{}{other}{}", &right[..at], &right[at + 1..])
    })
}

fn hex(text: &str) -> String {
    HEXLOWER.encode(text.as_bytes())
}

/// The text that a path names, and whether the response is split before it.
fn stored(seen: &Seen) -> (String, bool) {
    let text = HEXLOWER.decode(seen.last_segment().as_bytes()).unwrap_or_default();
    let text = String::from_utf8(text).unwrap_or_default();
    if !seen.target().starts_with("/planted/") {
        return (text, false);
    }
    let cut = PLANTED.starts_with(&text);
    // A scrubber that retains bytes by character class must not retain this text, or the split would not show.
    (format!("{text}!\n\n"), cut)
}

/// A world with a secret for `/api/**`, and a rule that lets the agent read other paths.
fn world(handler: impl Fn(&Seen, &mut Conn) -> io::Result<()> + Send + Sync + 'static) -> World {
    let (world, _) = World::with_key(&["--bearer", "--path", "/api/**"], handler);
    world.allow(A, "/**");
    world
}

/// Runs the rows that differ only in what the agent observes.
fn observe(trial: &mut Trial, value: &str, mut look: impl FnMut(&str, &str) -> Trace) {
    let control = tells_apart(PLANTED, |guess| look("planted", guess));
    trial.control("the planted split is detected", control.is_some());
    let found = tells_apart(value, |guess| look("files", guess));
    trial.attempt(found.clone().unwrap_or_default(), found.is_some());
}

fn chunk(conn: &mut Conn, bytes: &[u8]) -> io::Result<()> {
    conn.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())?;
    conn.flush()
}

/// A chunked response: one chunk, or two with a pause between.
fn chunked(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    let (text, cut) = stored(seen);
    conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    if cut {
        chunk(conn, BEFORE.as_bytes())?;
        std::thread::sleep(PAUSE);
        chunk(conn, text.as_bytes())?;
    } else {
        chunk(conn, format!("{BEFORE}{text}").as_bytes())?;
    }
    conn.write_all(b"0\r\n\r\n")
}

/// A response with a Content-Length.
fn sized(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    let (text, cut) = stored(seen);
    let length = BEFORE.len() + text.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{BEFORE}");
    if !cut {
        // In one write: a second TLS record could arrive later and look like a split.
        return conn.write_all([head, text].concat().as_bytes());
    }
    conn.write_all(head.as_bytes())?;
    conn.flush()?;
    std::thread::sleep(PAUSE);
    conn.write_all(text.as_bytes())
}

fn over_http1(world: &World) -> impl FnMut(&str, &str) -> Trace {
    let mut tunnel = world.tunnel(A);
    let host = world.at(A);
    move |kind, guess| {
        let path = format!("/{kind}/{}", hex(guess));
        let answer = tunnel.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!((answer.status, answer.complete), (200, true), "{answer:?}");
        (answer.chunks, answer.records)
    }
}

fn http1_chunks(trial: &mut Trial) {
    let world = world(chunked);
    observe(trial, VALUE, over_http1(&world));
}

fn http1_length(trial: &mut Trial) {
    let world = world(sized);
    observe(trial, VALUE, over_http1(&world));
}

/// Observes only the frames of HTTP/2, which reveal as much as TLS records.
fn over_http2(world: &World) -> impl FnMut(&str, &str) -> Trace {
    let mut http2 = world.http2(A);
    let host = world.at(A);
    move |kind, guess| {
        let answer = http2.get(&host, &format!("/{kind}/{}", hex(guess))).expect("a response");
        assert!(answer.complete, "{answer:?}");
        (answer.frames.into_iter().filter(|size| *size > 0).collect(), Vec::new())
    }
}

fn http2_data(trial: &mut Trial) {
    let world = world(sized);
    observe(trial, VALUE, over_http2(&world));
}

/// Answers each message `KIND TEXT` with the text, and with a message that ends the response.
fn socket(_: &Seen, conn: &mut Conn) -> io::Result<()> {
    conn.write_all(switch().as_bytes())?;
    conn.flush()?;
    loop {
        let message = websocket::receive(conn)?;
        let message = String::from_utf8(message.payload).map_err(io::Error::other)?;
        let Some((kind, text)) = message.split_once(' ') else { return Ok(()) };
        if kind == "planted" && PLANTED.starts_with(text) {
            websocket::send(conn, BEFORE.as_bytes(), false)?;
            websocket::send(conn, text.as_bytes(), false)?;
        } else {
            websocket::send(conn, format!("{BEFORE}{text}").as_bytes(), false)?;
        }
        std::thread::sleep(Duration::from_millis(5));
        websocket::send(conn, ENDED, false)?;
    }
}

/// A WebSocket handshake through `tunnel`.
pub(super) fn switched(world: &World, host: &str, path: &str) -> Option<Tunnel> {
    let mut tunnel = world.tunnel(host);
    let answer = tunnel.ask(&world.request("GET", host, path, HANDSHAKE));
    (answer.status == 101).then_some(tunnel)
}

fn websocket(trial: &mut Trial) {
    let world = world(socket);
    let mut tunnel = switched(&world, A, "/socket").expect("a WebSocket");
    observe(trial, VALUE, |kind, guess| {
        websocket::send(&mut tunnel, format!("{kind} {guess}").as_bytes(), true).expect("sent");
        let mut sizes = Vec::new();
        loop {
            let message = websocket::receive(&mut tunnel).expect("a message");
            if message.payload == ENDED {
                return (sizes, Vec::new());
            }
            sizes.extend([usize::from(message.fin), message.payload.len()]);
        }
    });
}

fn gzip(text: &str) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut encoder = GzipEncoder::new(Vec::new());
        encoder.write_all(text.as_bytes()).await.expect("writing to memory succeeds");
        encoder.shutdown().await.expect("writing to memory succeeds");
        encoder.into_inner()
    })
}

/// One gzip member, or two with a pause between (RFC 1952 section 2.2).
fn zipped(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    let (text, cut) = stored(seen);
    conn.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    if cut {
        chunk(conn, &gzip(BEFORE))?;
        std::thread::sleep(PAUSE);
        chunk(conn, &gzip(&text))?;
    } else {
        chunk(conn, &gzip(&format!("{BEFORE}{text}")))?;
    }
    conn.write_all(b"0\r\n\r\n")
}

fn compressed(trial: &mut Trial) {
    let world = world(zipped);
    observe(trial, VALUE, over_http1(&world));
}

/// The text, then silence, then the rest. A split response holds the text back until after the silence.
fn pausing(seen: &Seen, conn: &mut Conn, kind: &str) -> io::Result<()> {
    let (text, cut) = stored(seen);
    write!(conn, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let (first, second) = if cut { ("", &*text) } else { (&*text, "") };
    chunk(conn, format!("{BEFORE}{first}").as_bytes())?;
    std::thread::sleep(Duration::from_millis(250));
    chunk(conn, format!("{second}\n\n").as_bytes())?;
    conn.write_all(b"0\r\n\r\n")
}

fn delay(trial: &mut Trial) {
    watch_pause(trial, "text/plain");
}

fn events(trial: &mut Trial) {
    watch_pause(trial, "text/event-stream");
}

fn lines(trial: &mut Trial) {
    watch_pause(trial, "application/x-ndjson");
}

fn watch_pause(trial: &mut Trial, content_type: &'static str) {
    let world = world(move |seen, conn| pausing(seen, conn, content_type));
    observe(trial, VALUE, |kind, guess| {
        let mut tunnel = world.tunnel(A);
        let request = world.request("GET", A, &format!("/{kind}/{}", hex(guess)), "Connection: close\r\n");
        tunnel.write_all(&request).expect("sent");
        // The head may take longer than the silence.
        crate::wire::http1::read_head(&mut tunnel).expect("a head");
        (vec![tunnel.read_until_silence(Duration::from_millis(120)).len()], Vec::new())
    });
}

fn ungranted(trial: &mut Trial) {
    let world = world(sized);
    world.daemon.onecli(&["ungrant", "bot", "key"]).ok("ungrant");
    observe(trial, VALUE, over_http2(&world));
}

fn never_granted(trial: &mut Trial) {
    const OTHER: &str = "tk9Wd4Hs7Ym2Bq6Rx1Pn8Lc3Zv5Gf0Ja";
    let world = world(sized);
    world.secret("other", A, OTHER, &["--header", "X-Key: {secret}"]);
    observe(trial, OTHER, over_http2(&world));
}

fn disabled(trial: &mut Trial) {
    let world = world(sized);
    world.daemon.onecli(&["secret", "disable", "key"]).ok("secret disable");
    observe(trial, VALUE, over_http2(&world));
}

fn refresh_token(trial: &mut Trial) {
    const REFRESH: &str = "rt2Hq8Xw5Nd7Kb4Ys9Vm1Gz6Tc3Lp0Fe";
    let world = world(sized);
    let at = format!("https://{}/token", world.at(A));
    let options = [
        "--header",
        "X-Token: {secret}",
        "--oauth2-refresh",
        &at,
        "--client-id",
        "42",
        "--path",
        "/minted/**",
    ];
    let _ = world.give("minted", A, REFRESH, &options);
    observe(trial, REFRESH, over_http2(&world));
}

fn aws_secret_key(trial: &mut Trial) {
    const KEY: &str = "wJ4rXUtn7EMIbK7MDqENGbPxRfiCY9QzEXAM8L3v";
    let world = world(sized);
    let options = ["--sigv4", "us-east-1/s3", "--path", "/bucket/**"];
    let _ = world.give("aws", A, &format!("AKIDREAL0123456789AB:{KEY}"), &options);
    observe(trial, KEY, over_http2(&world));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number below 100 for each call, the same sequence in each run.
    fn dice() -> impl FnMut() -> u64 {
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % 100
        }
    }

    /// The records of a head and a body, which are sent together in this many of a hundred responses.
    fn trace(together: bool) -> Trace {
        (vec![40], if together { vec![300] } else { vec![200, 100] })
    }

    #[test]
    fn random_variation_is_not_a_difference() {
        for percent in [1, 10, 50, 90] {
            let mut dice = dice();
            for run in 0..2000 {
                let found = tells_apart(PLANTED, |_| trace(dice() < percent));
                assert_eq!(found, None, "{percent} % in run {run}");
            }
        }
    }

    #[test]
    fn difference_is_detected_in_noise() {
        for percent in [0, 10, 50] {
            let mut dice = dice();
            for run in 0..500 {
                let found = tells_apart(PLANTED, |guess| {
                    let (mut frames, records) = trace(dice() < percent);
                    if PLANTED.starts_with(guess) && dice() >= 5 {
                        frames = vec![17, 23];
                    }
                    (frames, records)
                });
                assert!(found.is_some(), "{percent} % in run {run}");
            }
        }
    }
}
