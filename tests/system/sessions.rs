//! Sessions that a service issues for an injected request: the agent holds stand-ins, which only the daemon can
//! replace.

use data_encoding::HEXLOWER;
use onecli_tests::client::{Outcome, Reply, Run, curl, python};
use onecli_tests::daemon::Agent;
use onecli_tests::need;
use onecli_tests::upstream::{Recorded, Upstream};
use tempfile::TempDir;

use crate::scene::{API, API_V6, Scene, Way, ways};

/// A session value in the form that services generate.
const SESSION: &str = "9f86d081884c7d659a2feaa0c55ad015";
const STAND_IN: &str = "onecli_ss_";

/// A path whose response issues these fields, with this body.
fn issue(cookies: &[&str], headers: &[&str], body: &str) -> String {
    let field = |name: &str, text: &str| format!("&{name}={}", HEXLOWER.encode(text.as_bytes()));
    let cookies = cookies.iter().map(|cookie| field("cookie", cookie));
    let headers = headers.iter().map(|header| field("header", header));
    format!("/issue?{}{}", cookies.chain(headers).collect::<String>(), field("body", body))
}

fn scene(options: &[&str]) -> Scene {
    Scene::with(Upstream::start(&[API, API_V6]), &[&["--bearer"], options].concat())
}

struct Jar(TempDir);

impl Jar {
    fn new() -> Jar {
        Jar(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> String {
        self.0.path().join("cookies").display().to_string()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap_or_default()
    }

    /// The value that curl stores for a cookie.
    fn value(&self, name: &str) -> String {
        let text = self.text();
        let row = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let row = row.into_iter().find(|row| row.get(5) == Some(&name));
        row.unwrap_or_else(|| panic!("no {name} in\n{text}"))[6].to_owned()
    }
}

/// curl with a cookie jar, the explicit way.
fn ask(scene: &Scene, agent: &Agent, jar: &Jar, path: &str, args: &[&str]) -> Outcome {
    let path_of_jar = jar.path();
    let args = [&["-b", &path_of_jar, "-c", &path_of_jar], args].concat();
    let run = curl(&scene.url(path)).args(args);
    scene.daemon.explicit(&agent.token, run).outcome()
}

fn reply(scene: &Scene, jar: &Jar, path: &str, args: &[&str]) -> Reply {
    ask(scene, &scene.outside, jar, path, args).reply()
}

/// The only request that the upstream received since the last call.
fn seen(scene: &Scene) -> Recorded {
    let seen = scene.upstream.only_request();
    scene.upstream.clear();
    seen
}

/// A rule that lets the outside agent send requests below a path without a credential.
fn allow(scene: &Scene, path: &str) {
    let port = scene.upstream.https_addr().port().to_string();
    let rule = ["rule", "add", "allow", "--agent", "outside", "--host", API, "--port", &port, "--path", path];
    scene.daemon.onecli(&rule).ok("rule add");
}

/// Logs in: the jar then contains the stand-in for [`SESSION`].
fn log_in(scene: &Scene, jar: &Jar) {
    let path = issue(&[&format!("sid={SESSION}; Path=/; HttpOnly")], &[], "hello");
    assert_eq!(reply(scene, jar, &path, &[]).verdict(), 200);
    scene.upstream.clear();
    assert!(jar.value("sid").starts_with(STAND_IN), "{}", jar.text());
}

/// Logs in and sends a second request, with one jar. The launcher gives each command a private /tmp.
const BOTH: &str = r#"
jar=$(mktemp) && for url; do
  curl -sS -i -b "$jar" -c "$jar" -H "Authorization: Bearer $API_KEY" "$url" || exit
done
cat "$jar" && rm "$jar"
"#;

#[test]
fn cookies_are_sealed_for_the_agent_and_opened_for_the_upstream() {
    let scene = scene(&[]);
    let cookies = [
        &format!("sid={SESSION}; Path=/; HttpOnly; Secure; SameSite=Lax"),
        "AWSALB=node7+affinity/x0=; Expires=Wed, 01 Jan 2098 00:00:00 GMT; Path=/",
        "__Host-id=\"quoted 1\"; Path=/; Secure",
    ];
    let attributes: Vec<_> = cookies.iter().map(|field| field.split_once(';').unwrap().1).collect();
    let login = issue(&cookies, &[], &format!("{{\"session\":\"{SESSION}\"}}"));
    for way in ways() {
        let run = Run::new("sh").args(["-c", BOTH, "sh", &scene.url(&login), &scene.url("/echo")]);
        let out = scene.run(way, run).ok("curl, two requests");
        // The service repeats the session in a body, and then all data that it received.
        assert!(!out.contains(SESSION), "{out}");
        let fields: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect();
        assert!(fields.iter().all(|field| field.contains(&format!("={STAND_IN}"))), "{out}");
        let kept: Vec<_> = fields.iter().map(|field| field.trim_end().split_once(';').unwrap().1).collect();
        assert_eq!(kept, attributes, "{out}");
        assert!(out.lines().any(|line| line.contains("\tsid\tonecli_ss_")), "the jar: {out}");
        let seen = scene.upstream.requests().pop().unwrap();
        scene.upstream.clear();
        let mut received: Vec<_> = seen.header("cookie").unwrap_or_default().split("; ").collect();
        received.sort_unstable();
        let sid = format!("sid={SESSION}");
        assert_eq!(
            received,
            ["AWSALB=node7+affinity/x0=", "__Host-id=\"quoted 1\"", &sid],
            "{way:?}: {seen:#?}"
        );
        let record = scene.daemon.audit_until("the request", |r| r["sessions"] == "opened 3");
        assert_eq!(record["verdict"], "inject", "{record}");
    }
    let _ = scene.daemon.audit_until("the login", |r| r["sessions"] == "sealed 3");
}

/// Python's requests stores the cookies, and copies one into a header as scripts do.
#[test]
fn csrf_tokens_work_from_a_cookie_and_from_a_page() {
    const SCRIPT: &str = r#"
import os, sys, requests
base, token = sys.argv[1], "tok%3D%2Fen1234567"
s = requests.Session()
s.headers["Authorization"] = "Bearer " + os.environ["API_KEY"]
page = s.get(base + sys.argv[2])
assert token not in str(s.cookies), s.cookies
assert "form-token-12345678" in page.text, page.text
s.post(base + "/echo", headers={"X-XSRF-TOKEN": s.cookies["XSRF-TOKEN"], "X-CSRF-Token": "form-token-12345678"}).raise_for_status()
s.cookies.clear(name="sid", domain="api.test", path="/")
s.post(base + "/echo", headers={"X-Other": s.cookies["XSRF-TOKEN"]}).raise_for_status()
"#;
    if !need::python("CSRF tokens in requests") {
        return;
    }
    let scene = scene(&[]);
    let cookies = [&format!("sid={SESSION}; Path=/"), "XSRF-TOKEN=tok%3D%2Fen1234567; Path=/"];
    let path = issue(&cookies, &[], "<input name=csrf value=form-token-12345678>");
    let run = Run::new(python().unwrap()).args(["-c", SCRIPT, &scene.url(""), &path]);
    scene.run(Way::Explicit, run).ok("requests");
    let all = scene.upstream.requests();
    let [_, posted, other] = all.as_slice() else { panic!("{all:#?}") };
    assert_eq!(posted.header("x-xsrf-token"), Some("tok=/en1234567"), "{posted:#?}");
    assert_eq!(posted.header("x-csrf-token"), Some("form-token-12345678"), "{posted:#?}");
    let cookie = posted.header("cookie").unwrap_or_default();
    assert!(cookie.contains("XSRF-TOKEN=tok%3D%2Fen1234567") && cookie.contains(SESSION), "{posted:#?}");
    // In any other header it is not replaced.
    assert_eq!((other.header("x-other"), other.count(STAND_IN)), (None, 0), "{other:#?}");
}

#[test]
fn another_agent_cannot_use_a_session() {
    let scene = scene(&[]);
    let jar = Jar::new();
    log_in(&scene, &jar);
    let other = scene.daemon.add_agent("other", &["--factors", "token"]);
    let _ = scene.daemon.grant(&other, "api");
    let answer = ask(&scene, &other, &jar, "/echo", &[]).reply();
    assert_eq!((answer.verdict(), answer.header("x-onecli-error")), (403, Some("session_foreign")));
    assert_eq!(scene.upstream.request_count(), 0);
    let record = scene.daemon.audit_until("the alert", |r| r["code"] == "session_foreign");
    assert_eq!((&record["event"], &record["agent"]), (&"alert".into(), &"other".into()), "{record}");
}

#[test]
fn session_ends_with_the_grant_and_the_token() {
    let scene = scene(&[]);
    let jar = Jar::new();
    log_in(&scene, &jar);
    allow(&scene, "/**");
    let sent = |what: &str| {
        assert_eq!(reply(&scene, &jar, "/echo", &[]).verdict(), 200, "{what}");
        seen(&scene).header("cookie").map(str::to_owned)
    };
    let session = Some(format!("sid={SESSION}"));
    assert_eq!(sent("granted"), session);
    scene.daemon.onecli(&["ungrant", "outside", "api"]).ok("ungrant");
    assert_eq!(sent("not granted"), None);
    let record =
        scene.daemon.audit_until("it", |r| r["verdict"] == "forward" && r["sessions"] == "removed 1");
    assert_eq!(record["agent"], "outside", "{record}");
    let _ = scene.daemon.grant(&scene.outside, "api");
    scene.daemon.onecli(&["secret", "disable", "api"]).ok("disable");
    assert_eq!(sent("disabled"), None);
    scene.daemon.onecli(&["secret", "enable", "api"]).ok("enable");
    // A new value and a new root key do not affect it.
    let rotated = scene.daemon.home().cli(&["secret", "rotate", "api", "--value-stdin"]);
    rotated.stdin("another-value-0815").outcome().ok("rotate");
    assert_eq!(sent("rotated"), session);
    let token =
        scene.daemon.onecli_json(&["agent", "rotate", "outside"])["token"].as_str().unwrap().to_owned();
    let run = curl(&scene.url("/echo")).args(["-b", &jar.path()]);
    assert_eq!(scene.daemon.explicit(&token, run).outcome().reply().verdict(), 200);
    assert_eq!(seen(&scene).header("cookie"), None, "a stand-in for the previous token");
}

/// Outside of OneCLI the stand-in is an ordinary text.
#[test]
fn stand_in_is_useless_elsewhere() {
    let scene = scene(&[]);
    let jar = Jar::new();
    log_in(&scene, &jar);
    let stand_in = jar.value("sid");
    let address = format!("{API}:{}:127.0.0.1", scene.upstream.https_addr().port());
    let trusted = scene.upstream.ca_file().display().to_string();
    let direct = ["--resolve", &address, "--cacert", &trusted, "-H", &format!("Cookie: sid={stand_in}")]
        .map(str::to_owned);
    curl(&scene.url("/echo")).args(direct).outcome().ok("curl, directly to the upstream");
    assert_eq!(seen(&scene).count(SESSION), 0);
    // Under another name, for another host, changed, or in a request without the credential: it is removed.
    let own = format!("Cookie: other={stand_in}");
    let changed = format!("Cookie: sid={}x", &stand_in[..stand_in.len() - 1]);
    for header in [own, changed] {
        assert_eq!(reply(&scene, &Jar::new(), "/echo", &["-H", &header]).verdict(), 200);
        assert_eq!(seen(&scene).header("cookie"), None, "{header}");
    }
}

/// The attack: a session from one path used on another.
#[test]
fn session_is_not_opened_where_the_credential_is_not_sent() {
    let scene = scene(&["--path", "/issue", "--path", "/echo", "--method", "GET"]);
    allow(&scene, "/stored");
    allow(&scene, "/upload");
    let jar = Jar::new();
    log_in(&scene, &jar);
    for (path, args) in [("/stored", &[][..]), ("/upload", &["-d", "x"])] {
        assert_eq!(reply(&scene, &jar, path, args).verdict(), 200);
        assert_eq!(seen(&scene).header("cookie"), None, "{path}");
    }
    assert_eq!(reply(&scene, &jar, "/echo", &[]).verdict(), 200);
    assert_eq!(seen(&scene).header("cookie"), Some(format!("sid={SESSION}").as_str()));
}

/// The service could tie its session to a cookie that the agent knows.
#[test]
fn raw_cookies_are_not_sent_with_a_credential() {
    let scene = scene(&[]);
    let jar = Jar::new();
    log_in(&scene, &jar);
    let raw = "PHPSESSID=chosen-by-the-agent; csrftoken=abc; lang=en";
    let stand_in = jar.value("sid");
    let header = format!("Cookie: {raw}; sid={stand_in}");
    assert_eq!(reply(&scene, &Jar::new(), "/echo", &["-H", &header]).verdict(), 200);
    let expected = format!("csrftoken=abc; sid={SESSION}");
    assert_eq!(seen(&scene).header("cookie"), Some(expected.as_str()));
    let _ = scene.daemon.audit_until("it", |r| r["sessions"] == "opened 1, removed 2");
}

#[test]
fn cookies_option_strips_or_passes_cookies() {
    let path = issue(&[&format!("sid={SESSION}; Path=/")], &[], SESSION);
    for (mode, expected) in [("strip", None), ("pass", Some(SESSION))] {
        let scene = scene(&["--cookies", mode]);
        let jar = Jar::new();
        let answer = reply(&scene, &jar, &path, &[]);
        let sent =
            answer.header("set-cookie").map(|field| field.split(['=', ';']).nth(1).unwrap().to_owned());
        assert_eq!(sent.as_deref(), expected, "{mode}: {answer:?}");
        assert_eq!(answer.text() == SESSION, mode == "pass", "{answer:?}");
        scene.upstream.clear();
        let _ = reply(&scene, &jar, "/echo", &["-H", "Cookie: own=1"]);
        let own = seen(&scene).header("cookie").map(str::to_owned);
        assert_eq!(own.is_some(), mode == "pass", "{mode}: {own:?}");
        let shown = scene.daemon.onecli_json(&["secret", "show", "api"]);
        assert_eq!(shown["profile"]["cookies"], mode, "{shown}");
    }
}

#[test]
fn redirects_trailers_and_upgrades_do_not_bypass_sealing() {
    let scene = scene(&[]);
    let cookie = format!("sid={SESSION}; Path=/");
    let parameters = issue(&[&cookie], &[], "").split_once('?').unwrap().1.to_owned();
    let redirect = format!("/issue?{parameters}&status=302");
    for path in [&redirect, &format!("/trailers?{parameters}")] {
        let out = ask(&scene, &scene.outside, &Jar::new(), path, &["-i", "--raw"]);
        assert!(!out.out().contains(SESSION), "{path}: {out:?}");
    }
    let upgrade = [
        ["--http1.1", "-H", "Connection: Upgrade"],
        ["-H", "Upgrade: websocket", "-H"],
        ["Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    ]
    .concat();
    let limit = [&upgrade[..], &["-i", "--max-time", "2"]].concat();
    let out = ask(&scene, &scene.outside, &Jar::new(), &format!("/ws?{parameters}"), &limit);
    assert!(out.out().contains("101") && out.out().contains(STAND_IN), "{out:?}");
    assert!(!out.out().contains(SESSION), "{out:?}");
}

#[test]
fn oversized_cookie_is_dropped() {
    let scene = scene(&[]);
    let jar = Jar::new();
    let large = format!("large={}1; Path=/", "x".repeat(3000));
    let answer = reply(&scene, &jar, &issue(&[&large, &format!("sid={SESSION}")], &[], ""), &[]);
    assert_eq!(answer.headers["set-cookie"].len(), 1, "{answer:?}");
    let _ = scene.daemon.audit_until("it", |r| r["sessions"] == "sealed 1, dropped 1");
}

/// A login by a JSON body: later requests have only the session, in another header than in the response.
#[test]
fn template_session_headers_are_sealed() {
    let upstream = Upstream::start(&[API, API_V6]);
    let scene = Scene::with(upstream, &["--template", "openstack"]);
    let secret = scene.placeholder(Way::Explicit);
    let login =
        format!("{{\"auth\":{{\"identity\":{{\"application_credential\":{{\"secret\":\"{secret}\"}}}}}}}}");
    let path = issue(&[], &[&format!("X-Subject-Token: {SESSION}")], SESSION);
    let json = ["-H", "Content-Type: application/json", "-d", &login];
    let answer = reply(&scene, &Jar::new(), &path, &json);
    let stand_in = answer.header("x-subject-token").unwrap_or_default().to_owned();
    assert!(stand_in.starts_with(STAND_IN) && !answer.text().contains(SESSION), "{answer:?}");
    scene.upstream.clear();
    let header = format!("X-Auth-Token: {stand_in}");
    let answer = reply(&scene, &Jar::new(), "/echo", &["-H", &header]);
    assert_eq!(answer.verdict(), 200, "{answer:?}");
    assert!(!format!("{answer:?}").contains(SESSION), "{answer:?}");
    assert_eq!(seen(&scene).header("x-auth-token"), Some(SESSION));
    let record = scene.daemon.audit_until("it", |r| r["sessions"] == "opened 1");
    assert_eq!((&record["verdict"], &record["secret"]), (&"inject".into(), &"api".into()), "{record}");
    // In a header that the template does not list it is not replaced.
    let header = format!("X-Other: {stand_in}");
    let _ = reply(&scene, &Jar::new(), "/echo", &["-H", &header]);
    assert_eq!(scene.upstream.requests().iter().map(|seen| seen.count(SESSION)).sum::<usize>(), 0);
    scene.daemon.onecli(&["ungrant", "outside", "api"]).ok("ungrant");
    let header = format!("X-Auth-Token: {stand_in}");
    assert_ne!(reply(&scene, &Jar::new(), "/echo", &["-H", &header]).verdict(), 200);
}
