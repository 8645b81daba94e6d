//! Sessions: a service answers an injected request with a cookie or token that works without the credential.
//!
//! Control: the service ties the session to the credential, and the agent's next request in it is served.

use std::io;

use crate::stage::row::{Row, Trial};
use crate::stage::world::{A, Conn, Seen, VALUE, World, reply_with};

const SESSION: &str = "9fK2sWm4Qx7Tb1Zc8Vy5Lr3Nh6Jd0Gp";
const CONTROL: &str = "the session is opened, and works for its agent";

pub(crate) const ROWS: &[Row] = &[
    Row::new("session/around", "a session that works without OneCLI", CONTROL, around).quick(),
    Row::new("session/without-grant", "requests that the grant does not cover", CONTROL, without_grant),
    Row::new("session/after-ungrant", "the session after the grant is revoked", CONTROL, after_ungrant)
        .quick(),
    Row::new("session/other-agent", "the session for an agent without the grant", CONTROL, other_agent),
    Row::new(
        "session/token-header",
        "a session token from a response header",
        "the session is opened",
        token_header,
    ),
];

/// Opens a session for the credential; otherwise reports the identity of the caller.
fn service(seen: &Seen, conn: &mut Conn) -> io::Result<()> {
    let (who, fields) = if seen.has(VALUE) {
        let cookie =
            format!("Set-Cookie: JSESSIONID={SESSION}; Path=/; HttpOnly\r\nX-Subject-Token: {SESSION}\r\n");
        ("credential", cookie)
    } else if seen.has(SESSION) {
        ("session", String::new())
    } else {
        ("nobody", String::new())
    };
    reply_with(conn, &fields, format!("served as {who}"))
}

struct Scene {
    world: World,
    placeholder: String,
    /// The cookie that the agent received.
    cookie: String,
    /// The response that opened the session.
    opened: String,
}

fn scene(trial: &mut Trial) -> Scene {
    let (world, granted) = World::with_key(&["--bearer", "--path", "/rest/**", "--method", "GET"], service);
    world.allow(A, "/public/**");
    let fields = format!("Authorization: Bearer {}\r\nConnection: close\r\n", granted.placeholder);
    let answer = world.get(A, "/rest/1", &fields);
    let opened = answer.body == b"served as credential";
    trial.control("the session is opened", opened);
    let cookie = answer.field("set-cookie").unwrap_or_default();
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    Scene { world, placeholder: granted.placeholder, cookie, opened: answer.head }
}

impl Scene {
    /// With its grant, the agent can use its session.
    fn works_for_its_agent(&self, trial: &mut Trial) {
        let fields = format!(
            "Authorization: Bearer {}\r\nCookie: {}\r\nConnection: close\r\n",
            self.placeholder, self.cookie
        );
        self.world.script.clear();
        self.world.get(A, "/rest/2", &fields);
        trial.control("the agent's next request carries the session", self.world.script.saw(SESSION));
        self.world.script.clear();
    }

    fn cookie_field(&self) -> String {
        format!("Cookie: {}\r\nConnection: close\r\n", self.cookie)
    }
}

fn around(trial: &mut Trial) {
    let scene = scene(trial);
    scene.works_for_its_agent(trial);
    let direct = scene.world.request("GET", A, "/rest/admin", &scene.cookie_field());
    let answer = scene.world.direct(A, &direct);
    trial.attempt("the cookie works without OneCLI", answer.body == b"served as session");
}

fn without_grant(trial: &mut Trial) {
    let scene = scene(trial);
    scene.works_for_its_agent(trial);
    let request = scene.world.request(
        "POST",
        A,
        "/public/x",
        &format!("Content-Length: 0\r\n{}", scene.cookie_field()),
    );
    let answer = scene.world.send(A, &request);
    trial.attempt(
        "a path that a rule allows, with a method that the secret does not allow",
        answer.body == b"served as session",
    );
}

fn after_ungrant(trial: &mut Trial) {
    let scene = scene(trial);
    scene.works_for_its_agent(trial);
    scene.world.daemon.onecli(&["ungrant", "bot", "key"]).ok("ungrant");
    for path in ["/public/x", "/rest/2"] {
        let answer = scene.world.get(A, path, &scene.cookie_field());
        trial.attempt(path, answer.body == b"served as session");
    }
}

fn other_agent(trial: &mut Trial) {
    let scene = scene(trial);
    scene.works_for_its_agent(trial);
    let other = scene.world.daemon.add_agent("other", &["--factors", "token"]);
    let request = scene.world.request("GET", A, "/public/x", &scene.cookie_field());
    let answer = scene.world.send_as(&other, A, &request);
    trial.attempt("another agent's request is served in the session", answer.body == b"served as session");
}

fn token_header(trial: &mut Trial) {
    let scene = scene(trial);
    trial.attempt(
        "X-Subject-Token arrives unsealed",
        scene.opened.contains(&format!("X-Subject-Token: {SESSION}"))
            || scene.opened.contains(&format!("x-subject-token: {SESSION}")),
    );
}
