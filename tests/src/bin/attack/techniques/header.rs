//! Header fields that name another resource, or that servers interpret as other fields.

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, VALUE, World, reply};

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "header/copy-source",
        "a resource outside the secret's paths, named in a header",
        "without that header the request is injected",
        copy_source,
    )
    .quick(),
    Row::new(
        "header/destination",
        "a write outside the secret's paths",
        "without that header the request is injected",
        destination,
    ),
    Row::new(
        "header/underscore",
        "a smuggled request, at servers that read `_` as `-`",
        "another name with `_` is served",
        underscore,
    )
    .quick(),
    Row::new(
        "header/override",
        "a method or path that policy did not judge",
        "the request without the header is injected",
        overrides,
    ),
    Row::new(
        "header/own-credential",
        "its own credential beside or instead of the injected one",
        "the injected credential arrives once",
        own_credential,
    ),
];

fn world() -> (World, String) {
    let (world, granted) =
        World::with_key(&["--bearer", "--path", "/public/**"], |_, conn| reply(conn, "ok"));
    (world, format!("Authorization: Bearer {}\r\nConnection: close\r\n", granted.placeholder))
}

/// Returns whether a request with the injected credential contains `text`.
fn injected_with(world: &World, text: &str) -> bool {
    world.script.seen().iter().any(|seen| seen.has(VALUE) && seen.head.to_lowercase().contains(text))
}

fn without(trial: &mut Trial, world: &World, method: &str, fields: &str) {
    world.send(A, &world.request(method, A, "/public/x", fields));
    trial.control(format!("{method} is injected"), world.script.saw(VALUE));
    world.script.clear();
}

fn copy_source(trial: &mut Trial) {
    let (world, fields) = world();
    without(trial, &world, "PUT", &fields);
    for name in [
        "x-amz-copy-source",
        "x-amz-rename-source",
        "x-goog-copy-source",
        "x-ms-copy-source",
        "x-ms-rename-source",
        "x-oss-copy-source",
        "x-cos-copy-source",
        "x-obs-copy-source",
        "x-bce-copy-source",
        "x-copy-from",
    ] {
        for value in
            ["/bucket/private/payroll.csv", "/public/../private/payroll.csv", "%2Fbucket%2Fprivate%2Fx"]
        {
            world.script.clear();
            let fields = format!("{fields}{name}: {value}\r\n");
            world.send(A, &world.request("PUT", A, "/public/copy", &fields));
            trial.attempt(format!("{name}: {value}"), injected_with(&world, "private"));
        }
    }
}

fn destination(trial: &mut Trial) {
    let (world, fields) = world();
    for method in ["COPY", "MOVE"] {
        without(trial, &world, method, &fields);
        for value in [format!("https://{}/private/y", world.at(A)), "/private/y".to_owned()] {
            world.script.clear();
            let fields = format!("{fields}Destination: {value}\r\n");
            world.send(A, &world.request(method, A, "/public/x", &fields));
            trial.attempt(format!("{method} to {value}"), injected_with(&world, "private"));
        }
    }
}

fn underscore(trial: &mut Trial) {
    let (world, fields) = world();
    let ask = |line: &str| {
        world.script.clear();
        world.send(
            A,
            &world.request("POST", A, "/public/x", &format!("{fields}Content-Length: 0\r\n{line}\r\n")),
        );
    };
    ask("X_Note: 1");
    trial.control("a name with `_` is served", world.script.saw(VALUE));
    for line in ["Transfer_Encoding: chunked", "Content_Length: 40", "transfer_encoding: identity"] {
        ask(line);
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        trial.attempt(line, injected_with(&world, &name));
    }
}

fn overrides(trial: &mut Trial) {
    let (world, fields) = world();
    without(trial, &world, "GET", &fields);
    for line in [
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: DELETE",
        "X_HTTP_Method_Override: DELETE",
        "X-Original-URL: /private",
        "X-Rewrite-URL: /private",
        "X-Original-Host: b.test",
        "X-Forwarded-Host: b.test",
        "Forwarded: host=b.test",
    ] {
        world.script.clear();
        world.send(A, &world.request("GET", A, "/public/x", &format!("{fields}{line}\r\n")));
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        trial.attempt(line, injected_with(&world, &format!("\n{name}:")));
    }
}

fn own_credential(trial: &mut Trial) {
    let (world, fields) = world();
    without(trial, &world, "GET", &fields);
    for line in [
        "AUTHORIZATION: Bearer x-own",
        "authorization: Basic eDp5",
        "Connection: authorization",
        "Connection: close, Authorization",
    ] {
        world.script.clear();
        world.send(A, &world.request("GET", A, "/public/x", &format!("{line}\r\n{fields}")));
        let clean = world.script.seen().iter().all(|seen| {
            let head = seen.head.to_lowercase();
            head.matches("\nauthorization:").count() == 1 && seen.has(VALUE) && !head.contains("x-own")
        });
        trial.attempt(line, !clean);
    }
}
