//! Text of an agent in the output of commands that operators run. The escape suite covers its process names.

use serde_json::Value;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, World, reply};

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "output/path",
        "control of the terminal of the operator who reads the audit log",
        "an ordinary path of the same agent is printed",
        path,
    )
    .quick(),
    Row::new(
        "output/spreadsheet",
        "a formula in the spreadsheet of the operator who opens an export",
        "the formula is recorded",
        spreadsheet,
    )
    .quick(),
];

/// An escape sequence, a CSI of C1, an override of the reading direction, and an isolate.
const ASTRAY: [&str; 4] = ["\u{1b}[2J", "\u{9b}2J", "\u{202e}", "\u{2066}"];

fn world() -> (World, String) {
    let (world, granted) = World::with_key(&["--bearer"], |_, conn| reply(conn, "ok"));
    (world, format!("Authorization: Bearer {}\r\nConnection: close\r\n", granted.placeholder))
}

fn path(trial: &mut Trial) {
    let (world, fields) = world();
    for text in ASTRAY {
        for path in [format!("/pay{text}01"), format!("/pay?{text}01")] {
            world.get(A, &path, &fields);
            world.send(A, &world.request(&format!("G{text}"), A, &path, &fields));
        }
    }
    world.get(A, "/ordinary", &fields);
    for command in [&["audit", "list"][..], &["audit", "tail"], &["audit", "export"], &["status"]] {
        let outcome = world.daemon.onecli(command);
        let printed = outcome.out() + &outcome.err();
        if command[0] == "audit" {
            trial.control(format!("{command:?} prints the path"), printed.contains("/ordinary"));
        }
        let first = |text: &&str| text.chars().next().is_some_and(|c| printed.contains(c));
        trial.attempt(format!("{command:?}"), ASTRAY.iter().any(first));
    }
}

fn spreadsheet(trial: &mut Trial) {
    let (world, fields) = world();
    // A program whose cells end at `;` reads the formula as the second cell of the path.
    for (method, path) in [("+1", "/a"), ("-1", "/a"), ("GET", "/a;=1+1"), ("GET", "/a;+1")] {
        world.send(A, &world.request(method, A, path, &fields));
    }
    let records = world.daemon.audit();
    let on_record = |name: &str, text: &str| records.iter().any(|r: &Value| r[name] == text);
    for (name, text) in [("method", "+1"), ("method", "-1"), ("path", "/a;=1+1"), ("path", "/a;+1")] {
        trial.control(format!("{text} is recorded"), on_record(name, text));
    }
    let csv = world.daemon.onecli(&["audit", "export", "--format", "csv"]).ok("audit export");
    for line in csv.lines() {
        let formula = |cell: &str| cell.trim_start_matches(['"', ' ']).starts_with(['=', '+', '-', '@']);
        trial.attempt(format!("a cell of {line}"), line.split([',', ';']).any(formula));
    }
}
