//! Attacks on the credential of another agent.

use std::io;

use onecli_tests::daemon::Agent;
use parking_lot::Mutex;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, Conn, Seen, VALUE, World, reply};

const GETS: &str = "the credential that another agent stored at the service";
const CONTROL: &str = "without OneCLI the stored text contains the value";

pub(crate) const ROWS: &[Row] = &[
    Row::new("agents/stored-inspected", GETS, CONTROL, stored_inspected).quick(),
    Row::new("agents/stored-tunnel", GETS, CONTROL, stored_tunnel).quick(),
    Row::new(
        "agents/placeholder",
        "use of another agent's credential, through its placeholder",
        "the owner of the placeholder is served",
        placeholder,
    ),
];

/// Stores the head of a request to `/store/...`, and returns it for other paths.
fn storing() -> impl Fn(&Seen, &mut Conn) -> io::Result<()> + Send + Sync + 'static {
    let stored = Mutex::new("nothing yet".to_owned());
    move |seen, conn| {
        let mut stored = stored.lock();
        if seen.target().starts_with("/store/") {
            stored.clone_from(&seen.head);
        }
        reply(conn, if seen.target().starts_with("/store/") { "done" } else { &stored })
    }
}

/// An agent that stored its credential at the service, and another agent.
fn stored(trial: &mut Trial) -> (World, Agent) {
    let (world, granted) = World::with_key(&["--bearer", "--path", "/store/**"], storing());
    let fields = format!("Authorization: Bearer {}\r\n", granted.placeholder);
    let answer = world.get(A, "/store/1", &fields);
    trial.control("the first agent is served", answer.status == 200);
    let direct = world.direct(A, &world.request("GET", A, "/read", ""));
    trial.control(CONTROL, holds(&direct.everything()));
    let other = world.daemon.add_agent("other", &["--factors", "token"]);
    (world, other)
}

fn holds(answer: &[u8]) -> bool {
    memchr::memmem::find(answer, VALUE.as_bytes()).is_some()
}

fn stored_inspected(trial: &mut Trial) {
    let (world, other) = stored(trial);
    world.secret("other", A, "anotherValue0123456789", &["--header", "X-Key: {secret}"]);
    let _ = world.daemon.grant(&other, "other");
    let answer = world.send_as(&other, A, &world.request("GET", A, "/read", ""));
    trial.control("the other agent gets a response", answer.status == 200);
    trial.attempt("read through another secret for that host", holds(&answer.everything()));
}

fn stored_tunnel(trial: &mut Trial) {
    let (world, other) = stored(trial);
    world.allow_all(A);
    let answer = world.send_as(&other, A, &world.request("GET", A, "/read", ""));
    trial.control("the other agent gets a response", answer.status == 200);
    trial.attempt("read through a tunnel that a rule allows", holds(&answer.everything()));
}

fn placeholder(trial: &mut Trial) {
    let (world, granted) = World::with_key(&["--bearer"], |_, conn| reply(conn, "ok"));
    let fields = format!("Authorization: Bearer {}\r\n", granted.placeholder);
    world.get(A, "/", &fields);
    trial.control("the owner is served", world.script.saw(VALUE));
    world.script.clear();
    let other = world.daemon.add_agent("other", &["--factors", "token"]);
    world.secret("other", A, "anotherValue0123456789", &["--header", "X-Key: {secret}"]);
    let _ = world.daemon.grant(&other, "other");
    let answer = world.send_as(&other, A, &world.request("GET", A, "/", &fields));
    trial.attempt(format!("served: {}", answer.status), world.script.saw(VALUE));
}
