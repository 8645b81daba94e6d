//! Invalid input of every kind gives a clear error, loses nothing and causes no panic.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use onecli_tests::client::{Outcome, curl};
use onecli_tests::daemon::{Daemon, Home};
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, Scene, VALUE, Way, curl_with_key};

/// Writes `bytes` and reads until the daemon closes the connection or is silent for a while.
fn exchange(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = Socket::connect(daemon.explicit_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    // The daemon may close the connection before everything is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn malformed_http_at_the_explicit_listener_is_refused() {
    let mut scene = Scene::new();
    let auth = format!("Proxy-Authorization: Bearer {}\r\n", scene.outside.token);
    let port = scene.upstream.https_addr().port();
    let plain = scene.upstream.http_addr().port();
    let long = "x".repeat(1 << 20);
    let head =
        |first: &str, fields: &str| format!("{first}\r\nHost: {API}\r\n{auth}{fields}\r\n").into_bytes();
    let get = format!("GET http://{API}:{plain}/echo HTTP/1.1");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("zeros", vec![0; 64]),
        ("noise", (0..=255).collect()),
        ("an empty line", b"\r\n\r\n".to_vec()),
        ("no version", b"GET\r\n\r\n".to_vec()),
        ("HTTP/9.9", head(&format!("GET http://{API}/ HTTP/9.9"), "")),
        ("a TLS hello instead of HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("CONNECT without a port", head(&format!("CONNECT {API} HTTP/1.1"), "")),
        ("CONNECT with a port past the end", head(&format!("CONNECT {API}:65536 HTTP/1.1"), "")),
        ("CONNECT with port zero", head(&format!("CONNECT {API}:0 HTTP/1.1"), "")),
        ("CONNECT with user information", head(&format!("CONNECT me@{API}:{port} HTTP/1.1"), "")),
        ("CONNECT with a path", head(&format!("CONNECT {API}:{port}/x HTTP/1.1"), "")),
        ("CONNECT to an empty host", head("CONNECT :443 HTTP/1.1", "")),
        ("CONNECT to half an IPv6 address", head("CONNECT [::1:443 HTTP/1.1", "")),
        ("a space in the host", head("GET http://a b/ HTTP/1.1", "")),
        ("user information", head(&format!("GET http://me@{API}:{plain}/ HTTP/1.1"), "")),
        ("another scheme", head("GET ftp://api.test/ HTTP/1.1", "")),
        ("origin form", head("GET /echo HTTP/1.1", "")),
        ("no Host", format!("GET / HTTP/1.1\r\n{auth}\r\n").into_bytes()),
        ("two lengths", head(&get, "Content-Length: 1\r\nContent-Length: 2\r\n")),
        ("length and chunks", head(&get, "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")),
        ("a negative length", head(&get, "Content-Length: -1\r\n")),
        ("an unknown transfer coding", head(&get, "Transfer-Encoding: zzz\r\n")),
        ("a space before the colon", head(&get, "X-One : 1\r\n")),
        ("a folded line", head(&get, "X-One: 1\r\n two\r\n")),
        ("a bare LF", head(&get, "X-One: 1\nX-Two: 2\r\n")),
        ("a NUL in a value", head(&get, "X-One: a\0b\r\n")),
        ("a name with a space", head(&get, "X One: 1\r\n")),
        ("a huge header", head(&get, &format!("X-One: {long}\r\n"))),
        ("very many headers", head(&get, &"X-One: 1\r\n".repeat(5000))),
        ("a huge request line", head(&format!("GET http://{API}:{plain}/{long} HTTP/1.1"), "")),
        ("a fragment", head(&format!("GET http://{API}:{plain}/echo#x HTTP/1.1"), "")),
        ("Host of another", head(&get, "Host: other.test\r\n")),
        (
            "a broken token",
            b"CONNECT api.test:443 HTTP/1.1\r\nProxy-Authorization: Basic !!!\r\n\r\n".to_vec(),
        ),
        ("HTTP/2 in the clear", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
    ];
    for (what, bytes) in &cases {
        let answer = exchange(&scene.daemon, bytes);
        // Closed without a response, or refused. Over HTTP/2 a GOAWAY is not text.
        let refused =
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5");
        assert!(refused || !answer.starts_with("HTTP/1.1"), "{what}: {answer}");
        assert!(!answer.contains("panicked"), "{what}: {answer}");
        scene.daemon.assert_healthy();
    }
    assert_eq!(
        scene.upstream.request_count(),
        0,
        "a request was forwarded: {:#?}",
        scene.upstream.requests()
    );
    let reply = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &[])).reply();
    assert_eq!(reply.verdict(), 200, "the daemon still serves: {reply:?}");
}

#[test]
fn garbage_after_connect_is_refused() {
    let mut scene = Scene::new();
    let port = scene.upstream.https_addr().port();
    let token = BASE64.encode(format!("x:{}", scene.outside.token).as_bytes());
    let connect = format!(
        "CONNECT {API}:{port} HTTP/1.1\r\nHost: {API}:{port}\r\nProxy-Authorization: Basic {token}\r\n\r\n"
    );
    let mut cut = b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03".to_vec();
    cut.extend([7; 100]);
    let mut over = b"\x16\x03\x01\xff\xff\x01\xff\xff\xff".to_vec();
    over.extend(vec![7; 100_000]);
    let cases: &[(&str, &[u8])] = &[
        ("nothing", b""),
        ("zeros", &[0; 512]),
        ("a cut hello", &cut),
        ("a hello past its bounds", &over),
        ("an alert", b"\x15\x03\x03\x00\x02\x02\x28"),
        ("SSL 2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"),
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        let answer = exchange(&scene.daemon, &[connect.as_bytes(), bytes].concat());
        assert!(!answer.contains("onecli test upstream"), "{what}: {answer}");
        scene.daemon.assert_healthy();
    }
    assert_eq!(scene.upstream.request_count(), 0);
}

/// Most clients discard the body of a refused CONNECT, and many print the reason phrase.
#[test]
fn refused_connect_has_its_code_in_the_reason_phrase() {
    let scene = Scene::new();
    let token = BASE64.encode(format!("x:{}", scene.outside.token).as_bytes());
    let connect = |target: &str, token: &str| {
        let head = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {token}\r\n\r\n"
        );
        exchange(&scene.daemon, head.as_bytes())
    };
    let refused = connect("refused.test:443", &token);
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden (egress_denied)\r\n"), "{refused}");
    let unknown = connect("refused.test:443", &BASE64.encode(b"x:unknown"));
    assert!(
        unknown.starts_with("HTTP/1.1 407 Proxy Authentication Required (token_unknown)\r\n"),
        "{unknown}"
    );
}

/// Invariant 6: the server name, `Host` and the CONNECT target agree, or the request is refused.
#[test]
fn contradicting_host_names_are_refused() {
    let scene = Scene::new();
    let port = scene.upstream.https_addr().port();
    let connect_to = format!("other.test:{port}:{API}:{port}");
    let cases: &[(&str, String, &[&str])] = &[
        ("Host", scene.url("/echo"), &["--http1.1", "-H", "Host: other.test"]),
        ("Host with another port", scene.url("/echo"), &["--http1.1", "-H", "Host: api.test:1"]),
        (":authority", scene.url("/echo"), &["--http2", "-H", "Host: other.test"]),
        (
            "server name",
            format!("https://other.test:{port}/echo"),
            &["--connect-to", &connect_to, "--insecure"],
        ),
    ];
    for (what, url, args) in cases {
        let run = curl(url).args(*args);
        let reply = scene.daemon.explicit(&scene.outside.token, run).outcome().reply();
        let refused = reply.verdict() == 421 || (reply.status == 0 && reply.exit == Some(35));
        assert!(refused, "{what}: {reply:?}");
        assert_eq!(scene.upstream.request_count(), 0, "{what}");
    }
    let record = scene.daemon.audit_until("the other Host", |r| {
        r["code"] == "misdirected" && r["host"] == API && r["port"] == 1 && r["path"] == "/echo"
    });
    assert_eq!(record["method"], "GET", "{record}");
}

/// Policy decides about the method and the URL. No header may turn the request into another one behind the proxy.
#[test]
fn override_headers_are_not_forwarded() {
    let scene = Scene::new();
    for version in ["--http1.1", "--http2"] {
        let args = [
            version,
            "-H",
            "X-HTTP-Method-Override: DELETE",
            "-H",
            "X-Original-URL: /admin",
            "-H",
            "X-Kept: yes",
        ];
        // Servers read '_' as '-', so this spelling is refused.
        let spelt = [version, "-H", "X_Rewrite_Url: /admin"];
        let refused = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &spelt));
        assert_eq!(refused.reply().status, 400, "{refused:?}");
        let outcome = scene.run(Way::Explicit, curl_with_key(&scene.url("/echo"), &args));
        outcome.ok(version);
        let seen = scene.injected_once(&format!("Bearer {VALUE}"));
        assert_eq!(seen.header("x-kept"), Some("yes"), "{seen:#?}");
        assert!(!format!("{seen:?}").contains("/admin") && seen.count("DELETE") == 0, "{seen:#?}");
    }
}

/// Checks for an actionable error: the expected exit code, all `words` on standard error, no panic.
fn assert_refused(what: &str, outcome: &Outcome, codes: &[i32], words: &[&str]) {
    let err = outcome.err();
    assert!(!outcome.timed_out && outcome.code().is_some_and(|c| codes.contains(&c)), "{what}: {outcome:?}");
    assert!(!err.trim().is_empty() && !err.contains("panicked at"), "{what}: {outcome:?}");
    for word in words {
        assert!(err.contains(word), "{what}: `{word}` is missing: {outcome:?}");
    }
}

/// Arguments, standard input, valid exit codes, and words of the message.
type Refusal<'a> = (Vec<String>, &'a [u8], &'a [i32], &'a [&'a str]);

#[test]
fn invalid_commands_give_a_clear_error() {
    let upstream = Upstream::start(&[API]);
    let mut daemon = Daemon::builder().upstream(&upstream).no_ebpf().start();
    let _ = daemon.add_agent("taken", &["--factors", "token", "--user", "nobody"]);
    daemon.add_secret("taken", VALUE, &["--host", API, "--bearer"]);
    let value = VALUE.as_bytes();
    let secret = |extra: &[&str]| -> Vec<String> {
        ["secret", "add", "s", "--value-stdin"].iter().chain(extra).map(|&a| a.to_owned()).collect()
    };
    let words = |all: &[&str]| -> Vec<String> { all.iter().map(|&a| a.to_owned()).collect() };
    let cases: Vec<Refusal<'_>> = vec![
        (words(&["--frobnicate"]), b"", &[2], &["--frobnicate"]),
        (words(&["frobnicate"]), b"", &[2], &["frobnicate"]),
        (words(&["agent", "add"]), b"", &[2], &["NAME"]),
        (words(&["agent", "add", ""]), b"", &[1, 2], &[]),
        (words(&["agent", "add", "a/b", "--factors", "token"]), b"", &[1, 2], &["a/b"]),
        (words(&["agent", "add", "a b", "--factors", "token"]), b"", &[1, 2], &["a b"]),
        (words(&["agent", "add", "a", "--factors", "charm"]), b"", &[1, 2], &["charm"]),
        (words(&["agent", "add", "a", "--egress", "maybe"]), b"", &[1, 2], &["maybe"]),
        (words(&["agent", "add", "a", "--user", "no-such-user"]), b"", &[1, 2], &["no-such-user"]),
        (words(&["agent", "add", "a", "--user", "root"]), b"", &[1, 2], &["root"]),
        (words(&["agent", "add", "taken", "--factors", "token"]), b"", &[1], &["taken"]),
        (words(&["agent", "add", "b", "--factors", "token", "--user", "nobody"]), b"", &[1], &["nobody"]),
        (words(&["agent", "show", "nobody-here"]), b"", &[1], &["nobody-here"]),
        (words(&["agent", "remove", "nobody-here"]), b"", &[1], &["nobody-here"]),
        (words(&["grant", "taken", "no-secret"]), b"", &[1], &["no-secret"]),
        (words(&["grant", "no-agent", "taken"]), b"", &[1], &["no-agent"]),
        (words(&["secret", "show", "no-secret"]), b"", &[1], &["no-secret"]),
        (
            words(&["secret", "add", "taken", "--value-stdin", "--host", API, "--bearer"]),
            value,
            &[1],
            &["taken"],
        ),
        (secret(&["--bearer"]), value, &[2], &["--host"]),
        (secret(&["--host", API, "--bearer", "--query", "key"]), value, &[2], &[]),
        (secret(&["--host", API, "--bearer"]), b"", &[1], &[]),
        (secret(&["--host", API, "--bearer"]), b"short", &[1], &["8"]),
        (secret(&["--host", API, "--bearer"]), b"two lines\r\nX-Other: 1", &[1], &[]),
        (secret(&["--host", API, "--bearer"]), b"a NUL \0 inside", &[1], &[]),
        (secret(&["--host", API, "--header", "no colon {secret}"]), value, &[1, 2], &[]),
        (secret(&["--host", API, "--header", "X-Key: constant"]), value, &[1, 2], &["{secret}"]),
        (secret(&["--host", API, "--header", "Bad Name: {secret}"]), value, &[1, 2], &[]),
        (secret(&["--host", API, "--header", "Host: {secret}"]), value, &[1, 2], &["Host"]),
        (secret(&["--host", API, "--bearer", "--method", "G ET"]), value, &[1, 2], &[]),
        (secret(&["--host", API, "--bearer", "--path", "no-slash"]), value, &[1, 2], &["no-slash"]),
        (secret(&["--host", API, "--bearer", "--env", "1BAD=x"]), value, &[1, 2], &["1BAD=x"]),
        (
            words(&["secret", "add", "f", "--host", API, "--bearer", "--value-file", "/none"]),
            b"",
            &[1],
            &["/none"],
        ),
    ];
    for (args, stdin, codes, wanted) in &cases {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let outcome = daemon.home().cli(&args).stdin(*stdin).outcome();
        assert_refused(&args.join(" "), &outcome, codes, wanted);
    }
    for host in [
        "",
        "*",
        "**",
        "*.com",
        "**.com",
        "*.co.uk",
        "a.*.com",
        "*a.example.com",
        "foo..example.com",
        ".example.com",
        "-a.example.com",
        "a b.example.com",
        "ftp://api.example.com",
        "api.example.com/path",
        "me@api.example.com",
        "api.example.com:0",
        "api.example.com:65536",
        "api.example.com:https",
        "[::1",
        "api.example.com\r\nX: 1",
        &format!("{}.example.com", "a".repeat(64)),
    ] {
        let args: Vec<_> = secret(&["--host", host, "--bearer"]);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let outcome = daemon.home().cli(&args).stdin(VALUE).outcome();
        assert_refused(&format!("host pattern {host:?}"), &outcome, &[1, 2], &[]);
    }
    let names = daemon.onecli_json(&["secret", "list"]);
    assert_eq!(names.as_array().map(Vec::len), Some(1), "nothing was stored partly: {names}");
    daemon.assert_healthy();
}

#[test]
fn command_without_a_daemon_gives_a_clear_error() {
    let home = Daemon::builder().no_ebpf().prepare();
    let socket = home.socket();
    let socket = socket.to_str().unwrap();
    assert_refused("status", &home.cli(&["status"]).outcome(), &[3], &[socket]);
    assert_refused("run", &home.cli(&["run", "--agent", "a", "--", "true"]).outcome(), &[125], &[socket]);
}

/// Runs `onecli-daemon`, which must exit with an error that contains `words`.
fn assert_daemon_refuses(what: &str, home: &Home, codes: &[i32], words: &[&str]) {
    let outcome = home.daemon(&["--no-ebpf"]).timeout(Duration::from_secs(15)).outcome();
    assert_refused(what, &outcome, codes, words);
}

const FAILED: &[i32] = &[1, 2, 78];

#[test]
fn invalid_configurations_are_refused() {
    let builder = || Daemon::builder().no_ebpf();
    let good = builder().prepare();
    let outcome = good.daemon(&["--no-ebpf", "--check-config"]).outcome();
    outcome.ok("--check-config");
    let cases: &[(&str, &[&str])] = &[
        ("frobnicate = 1", &["frobnicate"]),
        ("[listen]\nexplicitt = []", &["explicitt"]),
        ("[listen]\nexplicit = [\"nowhere\"]", &["explicit"]),
        ("[listen]\ntransparent_port = 70000", &["transparent_port"]),
        ("[listen]\ntransparent_port = \"x\"", &["transparent_port"]),
        ("[upstream]\nconnect_timeout = \"soon\"", &["connect_timeout"]),
        ("[upstream]\nextra_ca_files = [\"/none.pem\"]", &["/none.pem"]),
        ("[egress]\nallow_addresses = [\"10.0.0.0/99\"]", &["10.0.0.0/99"]),
        ("[resolver]\nhosts = { \"a.test\" = [\"nowhere\"] }", &["nowhere"]),
        ("[kernel]\nagents_root = \"../elsewhere\"", &["agents_root"]),
        ("store = \"oracle://x\"", &["store"]),
    ];
    for (toml, words) in cases {
        let home = builder().config(toml).prepare();
        assert_daemon_refuses(toml, &home, FAILED, words);
    }
    let home = builder().prepare();
    std::fs::write(home.config_file(), "data_dir = \n").unwrap();
    assert_daemon_refuses("no TOML", &home, FAILED, &["config.toml"]);
    let outcome = home.daemon(&["--frobnicate"]).outcome();
    assert_refused("an unknown option", &outcome, &[2], &["--frobnicate"]);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn unusable_data_directories_are_refused() {
    let builder = || Daemon::builder().no_ebpf();
    for mode in [0o777, 0o755, 0o750] {
        let home = builder().prepare();
        set_mode(&home.data_dir(), mode);
        let words = [home.data_dir().display().to_string()];
        if mode == 0o777 {
            assert_daemon_refuses("others may write", &home, FAILED, &[&words[0]]);
        } else {
            // Other users may at most list the directory. If they can read its files, the daemon refuses to start.
            let run = home.daemon(&["--no-ebpf"]).timeout(Duration::from_secs(3)).outcome();
            assert!(!run.err().contains("panicked at"), "{run:?}");
            for file in files(&home.data_dir()) {
                let open = file.metadata().unwrap().permissions().mode() & 0o077;
                assert_eq!(open, 0, "{} is readable by others", file.display());
            }
        }
    }
    let home = builder().prepare();
    std::fs::remove_dir(home.data_dir()).unwrap();
    std::fs::write(home.data_dir(), "a file").unwrap();
    assert_daemon_refuses("a file", &home, FAILED, &[&home.data_dir().display().to_string()]);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.is_file()).collect()
}

/// The root key is created once, as a closed file. It is never created again if the database has rows.
#[test]
fn root_key_is_created_once_and_checked() {
    let upstream = Upstream::start(&[API]);
    let mut daemon = Daemon::builder().upstream(&upstream).no_ebpf().start();
    daemon.add_secret("api", VALUE, &["--host", API, "--bearer"]);
    daemon.kill();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    let keys: Vec<_> = files(&daemon.home().data_dir()).into_iter().filter(|f| mode(f) == 0o400).collect();
    let [key] = keys.as_slice() else { panic!("expected one file with mode 0400, got {keys:?}") };
    let right = std::fs::read(key).unwrap();
    let path = key.display().to_string();

    set_mode(key, 0o644);
    assert_daemon_refuses("a key others may read", daemon.home(), FAILED, &[&path]);
    set_mode(key, 0o600);
    let wrong: Vec<u8> = right.iter().map(|b| if *b == b'0' { b'1' } else { b'0' }).collect();
    std::fs::write(key, &wrong).unwrap();
    set_mode(key, 0o400);
    assert_daemon_refuses("another key", daemon.home(), &[78], &[]);
    set_mode(key, 0o600);
    std::fs::write(key, &right[..right.len() / 2]).unwrap();
    set_mode(key, 0o400);
    assert_daemon_refuses("half a key", daemon.home(), &[78], &[&path]);
    std::fs::remove_file(key).unwrap();
    assert_daemon_refuses("no key, but rows", daemon.home(), &[78], &[]);
    assert!(!key.exists(), "no new key is created beside existing rows");
    std::fs::write(key, &right).unwrap();
    set_mode(key, 0o400);
    daemon.restart();
    let names = daemon.onecli_json(&["secret", "list"]);
    assert_eq!(names.as_array().map(Vec::len), Some(1), "nothing was lost: {names}");
}
