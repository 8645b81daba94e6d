//! Identity rules that the tables in [`crate::identity`] do not cover, one test for each.

use std::time::Duration;

use onecli_tests::client::{Reply, Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};

use crate::scene::{API, KEY, Scene, VALUE, in_shell};

/// curl in an agent's cgroup, with the placeholder as the shell expands `header`, if any.
fn inside(scene: &Scene, agent: &Agent, run: &Run, header: &str) -> Reply {
    let run = in_shell(run, &format!(r#"exec "$@" {header}"#));
    scene.daemon.managed(agent, &run).outcome().reply()
}

/// `token+cgroup`, transparent, no placeholder in the request: never injected. With a grant alone it is refused with
/// 401; it is forwarded only if a rule allows it.
#[test]
fn request_without_a_placeholder_needs_a_rule() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let ask = || inside(&scene, &scene.inside, &curl(&scene.url("/echo")), "");
    let refused = ask();
    assert_eq!(
        (refused.verdict(), refused.header("www-authenticate")),
        (401, Some("Bearer realm=\"OneCLI\""))
    );
    assert_eq!(scene.upstream.request_count(), 0);

    let port = scene.upstream.https_addr().port().to_string();
    let rule = ["rule", "add", "allow", "--agent", "inside", "--host", API, "--port", &port];
    scene.daemon.onecli(&rule).ok("rule add");
    assert_eq!(ask().verdict(), 200);
    let seen = scene.upstream.only_request();
    assert_eq!((seen.header("authorization"), seen.count(VALUE)), (None, 0), "{seen:#?}");
    let record = scene.daemon.audit_until("the request", |r| r["verdict"] == "forward");
    assert!(record["rule"].as_str().is_some_and(|rule| rule.starts_with("allow ")), "{record}");
    // With it, the credential is injected anyway.
    scene.upstream.clear();
    let reply = inside(
        &scene,
        &scene.inside,
        &curl(&scene.url("/echo")),
        &format!(r#"-H "Authorization: Bearer ${KEY}""#),
    );
    assert_eq!(reply.verdict(), 200);
    scene.injected_once(&format!("Bearer {VALUE}"));
}

/// git sends a password only after the server requested one.
#[test]
fn basic_secret_is_requested_with_a_basic_challenge() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::with(
        onecli_tests::upstream::Upstream::start(&[API, crate::scene::API_V6]),
        &["--basic", "git"],
    );
    let refused = inside(&scene, &scene.inside, &curl(&scene.url("/echo")), "");
    assert_eq!(
        (refused.verdict(), refused.header("www-authenticate")),
        (401, Some("Basic realm=\"OneCLI\""))
    );
}

/// Tunnels and DNS of managed agents: the cgroup suffices, whatever factors the agent requires. A secret is stored for
/// the host, so its TLS is passed unread only with `--tunnel`.
#[test]
fn tunnel_needs_no_placeholder() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let bare = scene.daemon.add_agent("bare", &["--factors", "token,cgroup", "--user", "games"]);
    let url = scene.url("/echo");
    // A path that the agent sees: its /tmp is private.
    let trusted = scene.daemon.home().dir().join("upstream-ca.pem").display().to_string();
    std::fs::copy(scene.upstream.ca_file(), &trusted).unwrap();
    std::fs::set_permissions(&trusted, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let ask = || {
        // The upstream's own certificate: TLS is not intercepted.
        let run = curl(&url).args(["--cacert", &trusted]);
        scene.daemon.managed(&bare, &run).outcome().reply()
    };
    assert_ne!(ask().verdict(), 200);
    let port = scene.upstream.https_addr().port().to_string();
    scene
        .daemon
        .onecli(&["rule", "add", "allow", "--agent", "bare", "--host", API, "--port", &port])
        .ok("rule add");
    assert_ne!(ask().verdict(), 200, "requests are inspected");
    scene
        .daemon
        .onecli(&["rule", "add", "allow", "--agent", "bare", "--host", API, "--port", &port, "--tunnel"])
        .ok("rule add --tunnel");
    assert_eq!(ask().verdict(), 200);
    let record = scene.daemon.audit_until("the tunnel", |r| r["verdict"] == "tunnel");
    assert_eq!((&record["agent"], &record["factors"]), (&"bare".into(), &"cgroup".into()), "{record}");
}

/// A secret without a grant, egress allowed: forwarded without injection, and inspected, because another agent may have
/// stored the value there.
#[test]
fn secret_without_a_grant_is_not_injected() {
    let scene = Scene::new();
    let open = scene.daemon.add_agent("open", &["--factors", "token", "--egress", "allow"]);
    let reply = scene.daemon.explicit(&open.token, curl(&scene.url("/echo"))).outcome().reply();
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    assert_eq!(scene.upstream.only_request().count(VALUE), 0);
    let record =
        scene.daemon.audit_until("the request", |r| r["agent"] == "open" && r["verdict"] == "forward");
    assert_eq!(record["rule"], "egress allow", "{record}");
}

/// `agent add` without `--cgroup`: bound to its default cgroup, `token+cgroup`; `token` under `--no-ebpf`.
#[test]
fn agent_add_uses_the_documented_defaults() {
    let plain = Daemon::builder().no_ebpf().start();
    let _ = plain.add_agent("coder", &[]);
    assert_eq!(plain.onecli_json(&["agent", "show", "coder"])["factors"], "token");
    let stuck = plain.onecli(&["agent", "add", "both", "--factors", "token,cgroup", "--user", "nobody"]);
    if stuck.code() == Some(0) {
        // No eBPF on the host: `run` exits and names the fix.
        let run = plain.onecli(&["run", "--agent", "both", "--", "true"]);
        assert!(run.code() == Some(125) && run.err().contains("--factors token"), "{run:?}");
    }
    if !need::bpf("the agent's cgroup") {
        return;
    }
    let daemon = Daemon::builder().start();
    let _ = daemon.add_agent("coder", &["--user", "nobody"]);
    let shown = daemon.onecli_json(&["agent", "show", "coder"]);
    assert_eq!(shown["factors"], "token+cgroup", "{shown}");
    assert!(shown["cgroup"].as_str().is_some_and(|name| name.ends_with("-coder.slice")), "{shown}");
}

/// A host whose kernel cannot run the programs: the messages give the reason, the fix, and what still works.
#[test]
fn host_without_ebpf_reports_the_reason_and_what_works() {
    if !need::bpf("everything") {
        return;
    }
    let upstream = Upstream::start(&[API]);
    // The programs cannot be pinned at this path.
    let config = "[kernel]\nbpffs_dir = \"/proc/onecli\"\n";
    let daemon = Daemon::builder().upstream(&upstream).config(config).start();
    let names_the_cause = |what: &str, text: &str| {
        for part in ["/proc/onecli", "onecli doctor", "Linux 5.15", "explicit proxy"] {
            assert!(text.contains(part), "{what} does not name {part}: {text}");
        }
    };
    names_the_cause("status", &daemon.onecli(&["status"]).ok("status"));
    let status = daemon.onecli_json(&["status"]);
    assert!(status["transparent"].to_string().contains("/proc/onecli"), "{status}");
    daemon.onecli(&["agent", "add", "both", "--factors", "token,cgroup", "--user", "nobody"]).ok("agent add");
    let run = daemon.onecli(&["run", "--agent", "both", "--", "true"]);
    assert_eq!(run.code(), Some(125), "{run:?}");
    names_the_cause("run", &run.err());
    assert!(run.err().contains("--factors token"), "{run:?}");
    let doctor = daemon.onecli(&["doctor"]).out();
    assert!(doctor.contains("/proc/onecli"), "{doctor}");

    // The suggested alternative works.
    let outside = daemon.add_agent("outside", &[]);
    let host = format!("{API}:{}", upstream.https_addr().port());
    daemon.add_secret("api", VALUE, &["--host", &host, "--bearer"]);
    let _ = daemon.grant(&outside, "api");
    let reply = daemon.explicit(&outside.token, curl(&upstream.https_url(API, "/echo"))).outcome().reply();
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    assert_eq!(upstream.only_request().header("authorization"), Some(&*format!("Bearer {VALUE}")));
}

/// Two agents with one user, two agents with one cgroup, a cgroup below another agent's: refused.
#[test]
fn agents_share_neither_user_nor_cgroup() {
    let daemon = Daemon::builder().start();
    let _ = daemon.add_agent("one", &["--user", "nobody", "--cgroup", "one.slice", "--factors", "token"]);
    for (what, options) in [
        ("the user", &["--user", "nobody"][..]),
        ("the cgroup", &["--user", "games", "--cgroup", "one.slice"]),
        ("a nested cgroup", &["--user", "games", "--cgroup", "one.slice/two.slice"]),
        ("the user root", &["--user", "root"]),
    ] {
        let added = daemon.onecli(&[&["agent", "add", "two"], options].concat());
        assert!(matches!(added.code(), Some(1 | 2)), "{what}: {added:?}");
    }
    // A dash nests slices: the slices of two agents never nest.
    let _ = daemon.add_agent("a-b", &["--factors", "token"]);
    let _ = daemon.add_agent("a", &["--factors", "token"]);
    let cgroup = |name| daemon.onecli_json(&["agent", "show", name])["cgroup"].as_str().unwrap().to_owned();
    let (outer, inner) = (cgroup("a"), cgroup("a-b"));
    assert!(
        !inner.starts_with(outer.trim_end_matches(".slice").to_owned().as_str()) || inner.contains("\\x2d"),
        "{outer} {inner}"
    );
}

/// A cgroup that is removed and created again belongs to the agent by its path, not by its id.
#[test]
fn recreated_cgroup_belongs_to_the_agent() {
    if !need::bpf("everything") {
        return;
    }
    let scene = Scene::new();
    let ask = || {
        inside(
            &scene,
            &scene.inside,
            &curl(&scene.url("/echo")),
            &format!(r#"-H "Authorization: Bearer ${KEY}""#),
        )
    };
    assert_eq!(ask().verdict(), 200);
    let directory = scene.daemon.agent_cgroup(&scene.inside);
    // The last process may still be exiting.
    let removed = wait_for(Duration::from_secs(5), || std::fs::remove_dir(&directory).ok());
    assert!(removed.is_some(), "{} is empty", directory.display());
    std::fs::create_dir(&directory).unwrap();
    assert_eq!(ask().verdict(), 200);
}

/// A placeholder of the agent's own, in the head or URL of an inspected request to a host that its secret is not for:
/// 403 and an alert, in every spelling. A body passes: see `misplaced`.
#[test]
fn placeholder_sent_to_another_host_is_refused_with_an_alert() {
    let scene = Scene::new();
    let port = scene.upstream.https_addr().port();
    let six = format!("https://{}:{port}", crate::scene::API_V6);
    scene.daemon.add_secret(
        "other",
        "sk-another-value-0123",
        &["--host", &format!("{}:{port}", crate::scene::API_V6), "--header", "x-other: {secret}"],
    );
    let _ = scene.daemon.grant(&scene.outside, "other");
    let placeholder = scene.outside_grant.placeholder.clone();
    let hex = |digit: u8| char::from_digit(digit.into(), 16).unwrap();
    let escaped: String =
        placeholder.bytes().flat_map(|byte| ['%', hex(byte >> 4), hex(byte & 15)]).collect();
    let send = |url: &str, args: &[&str]| {
        let run = curl(url).args(args);
        scene.daemon.explicit(&scene.outside.token, run).outcome().reply()
    };
    let header = format!("X-Note: {placeholder}");
    let user = format!("git:{placeholder}");
    let cases: [(&str, String, Vec<&str>); 6] = [
        ("header", format!("{six}/echo"), vec!["--header", &header]),
        ("Basic", format!("{six}/echo"), vec!["--user", &user]),
        ("query", format!("{six}/echo?k={placeholder}"), vec![]),
        ("escaped query", format!("{six}/echo?k={escaped}"), vec![]),
        ("path", format!("{six}/echo/{placeholder}"), vec![]),
        ("escaped path", format!("{six}/echo/{escaped}"), vec!["--path-as-is"]),
    ];
    for (what, url, args) in cases {
        let seen = scene.daemon.audit().len() as u64;
        let reply = send(&url, &args);
        let got = (reply.verdict(), reply.header("x-onecli-error"));
        assert_eq!(got, (403, Some("placeholder_misplaced")), "{what}: {reply:?}");
        let _ = scene.daemon.audit_until(what, |r| {
            r["event"] == "alert" && r["code"] == "placeholder_misplaced" && r["seq"].as_u64() > Some(seen)
        });
    }
    assert_eq!(scene.upstream.request_count(), 0);
    let body = send(&format!("{six}/echo"), &["--data", &placeholder]);
    assert_eq!(body.verdict(), 200, "{body:?}");
}
