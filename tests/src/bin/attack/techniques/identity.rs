//! Attacks on identity: tokens, placeholders, and revoked permissions.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use data_encoding::BASE64;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, VALUE, World, reply};

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "identity/no-token",
        "service without a proof of identity",
        "with the token the request is injected",
        no_token,
    ),
    Row::new(
        "identity/replayed-token",
        "service with a replaced token",
        "the new token is accepted",
        replayed_token,
    ),
    Row::new(
        "identity/after-ungrant",
        "the credential after the grant is revoked",
        "before, the request is injected",
        after_ungrant,
    ),
    Row::new(
        "identity/stream-after-ungrant",
        "a stream that outlives its grant by more than a second",
        "before, the stream runs",
        stream_after_ungrant,
    ),
    Row::new(
        "identity/transparent-port",
        "service at the transparent port, from outside",
        "with the token the request is injected",
        transparent_port,
    ),
];

fn world() -> World {
    World::with_key(&["--bearer"], |seen, conn| {
        if seen.target() != "/stream" {
            return reply(conn, "ok");
        }
        conn.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        for _ in 0..200 {
            conn.write_all(b"9\r\ndata: x\n\n\r\n")?;
            conn.flush()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        conn.write_all(b"0\r\n\r\n")
    })
    .0
}

fn injected(world: &World) -> bool {
    world.script.clear();
    world.get(A, "/x", "Connection: close\r\n");
    world.script.saw(VALUE)
}

fn no_token(trial: &mut Trial) {
    let world = world();
    trial.control("with the token", injected(&world));
    world.script.clear();
    let basic = |text: &str| format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(text.as_ref()));
    for (what, field) in [
        ("nothing", String::new()),
        ("an empty token", "Proxy-Authorization: Bearer \r\n".to_owned()),
        ("the agent's name", basic("bot:bot")),
        ("an invented token", "Proxy-Authorization: Bearer onecli_at_0123456789abcdef\r\n".to_owned()),
        ("a part of the token", format!("Proxy-Authorization: Bearer {}\r\n", &world.agent.token[..20])),
        ("an agent in a header", "X-OneCLI-Agent: bot\r\nX-Forwarded-User: bot\r\n".to_owned()),
    ] {
        let at = world.at(A);
        let answer = world.raw_head(format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n{field}\r\n").as_bytes());
        trial.attempt(what, answer.starts_with(b"HTTP/1.1 200"));
    }
}

fn replayed_token(trial: &mut Trial) {
    let mut world = world();
    trial.control("the old token before", injected(&world));
    let old = world.agent.token.clone();
    let answer = world.daemon.onecli_json(&["agent", "rotate", "bot"]);
    let new = answer["token"].as_str().expect("a token").to_owned();
    world.script.clear();
    let answer = world.send(A, &world.request("GET", A, "/x", "Connection: close\r\n"));
    trial.attempt(format!("the old token: {}", answer.status), world.script.saw(VALUE));
    world.agent.token = new;
    trial.control("the new token", injected(&world));
    drop(old);
}

fn after_ungrant(trial: &mut Trial) {
    let world = world();
    let mut open = world.tunnel(A);
    let request = world.request("GET", A, "/x", "");
    trial.control("on the open connection", open.ask(&request).status == 200 && world.script.saw(VALUE));
    world.daemon.onecli(&["ungrant", "bot", "key"]).ok("ungrant");
    world.script.clear();
    let again = open.ask(&request);
    trial.attempt(format!("the open connection: {}", again.status), world.script.saw(VALUE));
    trial.attempt("a new connection", injected(&world));
}

fn stream_after_ungrant(trial: &mut Trial) {
    let world = world();
    let mut tunnel = world.tunnel(A);
    tunnel.write_all(&world.request("GET", A, "/stream", "")).expect("sent");
    let mut buffer = [0; 1024];
    let began = (0..5).all(|_| tunnel.read(&mut buffer).is_ok_and(|read| read > 0));
    trial.control("the stream runs", began);
    world.daemon.onecli(&["ungrant", "bot", "key"]).ok("ungrant");
    let taken = Instant::now();
    while tunnel.read(&mut buffer).is_ok_and(|read| read > 0) && taken.elapsed() < Duration::from_secs(5) {}
    let took = taken.elapsed();
    trial.note(format!("the stream ended {} ms after the response to the command", took.as_millis()));
    trial.attempt(format!("it continued for {took:?}"), took > Duration::from_secs(1));
}

fn transparent_port(trial: &mut Trial) {
    let world = world();
    trial.control("with the token", injected(&world));
    world.script.clear();
    let request = world.request("GET", A, "/x", "Connection: close\r\n");
    if let Ok(mut stream) = crate::wire::tunnel::connect(world.daemon.transparent_addr()) {
        let _ = stream.write_all(&request);
        crate::wire::http1::read_rest(&mut stream);
    }
    trial.attempt("a plain HTTP request", !world.script.seen().is_empty());
}
