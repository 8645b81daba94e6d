//! Credentials that a service issues in the response to an injected request, at an endpoint that no template lists.
//!
//! Control: the credential is injected, and the rest of the response arrives unchanged.

use crate::stage::row::{Row, Trial};
use crate::stage::world::{Script, World, reply_with};
use crate::wire::Answer;

use super::credential::{AWS_VALUE, signature};

const GETS: &str = "a credential that the service issued";
const CONTROL: &str = "the rest of the response arrives unchanged";

pub(crate) const ROWS: &[Row] = &[
    Row::new("issue/json-member", GETS, CONTROL, json_member).quick(),
    Row::new("issue/xml-member", GETS, CONTROL, xml_member),
    Row::new("issue/other-bodies", GETS, CONTROL, other_bodies),
];

fn json_member(trial: &mut Trial) {
    const HOST: &str = "api.github.com";
    const ISSUED: &str = "ghs_16C7e42F292c6912E7710c838347Ae178B4a";
    let body = format!("{{\"id\": 7, \"token\": \"{ISSUED}\", \"note\": \"unchanged text\"}}");
    let script = Script::start(&[HOST], {
        let body = body.clone();
        move |_, conn| reply_with(conn, "Content-Type: application/json\r\n", &body)
    });
    let world = World::of(script, &[HOST]);
    let _ = world.give("key", HOST, "ghp_realCredential0123456789abcdefghij12", &["--template", "github"]);
    let fields = "Content-Length: 0\r\nConnection: close\r\n";
    let answer = world.send(HOST, &world.request("POST", HOST, "/repos/acme/site/unlisted", fields));
    judge(trial, &answer, &body, "unchanged text", ISSUED);
}

/// The same member in bodies whose type is not JSON, or that embed JSON.
fn other_bodies(trial: &mut Trial) {
    const HOST: &str = "api.github.com";
    const ISSUED: &str = "ghs_16C7e42F292c6912E7710c838347Ae178B4a";
    let json = format!("{{\"id\": 7, \"token\": \"{ISSUED}\"}}");
    let bodies = [
        ("text/plain", json.clone()),
        ("text/html", format!("<p data-x=\"{}\">", json.replace('"', "&quot;"))),
        ("application/json", serde_json::json!({ "body": json }).to_string()),
        ("application/json", format!("{{\"token\": {{\"value\": \"{ISSUED}\"}}}}")),
        ("text/plain", format!("<a><token><![CDATA[{ISSUED}]]></token></a>")),
        ("application/json;charset=utf-16", json.chars().flat_map(|c| [c, '\0']).collect()),
    ];
    for (kind, body) in bodies {
        let body = format!("{body} unchanged text");
        let script = Script::start(&[HOST], {
            let (body, kind) = (body.clone(), format!("Content-Type: {kind}\r\n"));
            move |_, conn| reply_with(conn, &kind, &body)
        });
        let world = World::of(script, &[HOST]);
        let value = "ghp_realCredential0123456789abcdefghij12";
        let _ = world.give("key", HOST, value, &["--template", "github"]);
        let fields = "Content-Length: 0\r\nConnection: close\r\n";
        let answer = world.send(HOST, &world.request("POST", HOST, "/repos/acme/site/unlisted", fields));
        let text = String::from_utf8_lossy(&answer.body).replace('\0', "");
        trial.control(
            format!("{kind}: {answer:?}"),
            text.ends_with(" unchanged text") && answer.body.len() == body.len(),
        );
        trial.attempt(format!("{kind}: the issued credential arrives"), text.contains(ISSUED));
    }
}

fn xml_member(trial: &mut Trial) {
    const HOST: &str = "unlisted.eu-west-1.amazonaws.com";
    const ISSUED: &str = "bQ8mZk3TtVx5Rj1Ws7Yc9Ne2Ld4Hg6Pf0AuKsXoE";
    let body = format!(
        "<R><Credentials><AccessKeyId>ASIAQWERTYUIOPASDFGH</AccessKeyId><SecretAccessKey>{ISSUED}</SecretAccessKey>\
         </Credentials><Note>unchanged text</Note></R>"
    );
    let script = Script::start(&[HOST], {
        let body = body.clone();
        move |_, conn| reply_with(conn, "Content-Type: text/xml\r\n", &body)
    });
    let world = World::of(script, &[HOST]);
    let granted = world.give("aws", HOST, AWS_VALUE, &["--template", "aws"]);
    let fields =
        format!("{}Content-Length: 0\r\nConnection: close\r\n", signature(&granted.placeholder, "unlisted"));
    let answer = world.send(HOST, &world.request("POST", HOST, "/", &fields));
    judge(trial, &answer, &body, "unchanged text", ISSUED);
}

fn judge(trial: &mut Trial, answer: &Answer, body: &str, rest: &str, issued: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    trial.control(format!("{answer:?}"), text.contains(rest) && answer.body.len() == body.len());
    trial.attempt("the issued credential arrives", text.contains(issued));
}
