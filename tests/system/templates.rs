//! Every template with a real daemon: the agent sends its placeholder as that service's clients do, and the service
//! receives the credential at the expected location.

use data_encoding::BASE64;
use onecli_tests::client;
use onecli_tests::daemon::Daemon;
use onecli_tests::upstream::Upstream;
use serde_json::Value;

/// The credential of each service.
const VALUE: &str = "real-credential/0123456789+abcdef";
/// A value that fits into one segment of a path.
const SEGMENT_VALUE: &str = "110201543:AAH-real-credential-0123456789";

/// How a service's clients send the key.
enum Sent {
    /// A header field, with `{}` for the key.
    Header(&'static str, &'static str),
    /// User and password of Basic authentication.
    Basic(&'static str),
    /// A query parameter.
    Query(&'static str),
    /// A string of a JSON body.
    Json(&'static str),
    /// A segment of the path, with this text before the key.
    Segment(&'static str),
    /// Signature Version 4 for this service: `placements::sigv4` tests the details.
    Signed(&'static str),
}

use Sent::{Basic, Header, Json, Query, Segment, Signed};

const BEARER: Sent = Header("authorization", "Bearer {}");

/// From the services' own documentation: the template, one of its hosts, and how its clients send the key.
const SERVICES: &[(&str, &str, Sent)] = &[
    ("anthropic", "api.anthropic.com", Header("x-api-key", "{}")),
    ("aws", "dynamodb.eu-central-1.amazonaws.com", Signed("eu-central-1:dynamodb")),
    ("azure-openai", "acme.openai.azure.com", Header("api-key", "{}")),
    ("bitbucket", "api.bitbucket.org", Basic("me@acme.test")),
    ("brave-search", "api.search.brave.com", Header("x-subscription-token", "{}")),
    ("cloudflare", "api.cloudflare.com", BEARER),
    ("cohere", "api.cohere.com", BEARER),
    ("datadog", "api.datadoghq.com", Header("dd-api-key", "{}")),
    ("datadog-app", "api.datadoghq.eu", Header("dd-application-key", "{}")),
    ("deepseek", "api.deepseek.com", BEARER),
    ("digitalocean", "api.digitalocean.com", BEARER),
    ("discord", "discord.com", Header("authorization", "Bot {}")),
    ("docker-hub", "auth.docker.io", Basic("acme")),
    ("elevenlabs", "api.elevenlabs.io", Header("xi-api-key", "{}")),
    ("fireworks", "api.fireworks.ai", BEARER),
    ("github", "api.github.com", Header("authorization", "token {}")),
    ("github-git", "github.com", Basic("x-access-token")),
    ("gitlab", "gitlab.com", Header("private-token", "{}")),
    ("google-ai", "generativelanguage.googleapis.com", Header("x-goog-api-key", "{}")),
    ("google-maps", "maps.googleapis.com", Query("key")),
    ("groq", "api.groq.com", BEARER),
    ("heroku", "api.heroku.com", BEARER),
    ("huggingface", "huggingface.co", BEARER),
    ("jira", "acme.atlassian.net", Basic("me@acme.test")),
    ("linear", "api.linear.app", Header("authorization", "{}")),
    ("mailgun", "api.mailgun.net", Basic("api")),
    ("mistral", "api.mistral.ai", BEARER),
    ("netlify", "api.netlify.com", BEARER),
    ("notion", "api.notion.com", BEARER),
    ("npm", "npm.test", BEARER),
    ("openai", "api.openai.com", BEARER),
    ("openrouter", "openrouter.ai", BEARER),
    ("openstack", "identity.test", Json("auth/identity/application_credential/secret")),
    ("perplexity", "api.perplexity.ai", BEARER),
    ("pinecone", "api.pinecone.io", Header("api-key", "{}")),
    ("pypi", "pypi.test", Basic("__token__")),
    ("redfish", "bmc.test", Json("Password")),
    ("replicate", "api.replicate.com", BEARER),
    ("s3-compatible", "minio.test", Signed("us-east-1:s3")),
    ("sendgrid", "api.sendgrid.com", BEARER),
    ("sentry", "sentry.io", BEARER),
    ("slack", "slack.com", BEARER),
    ("stripe", "api.stripe.com", BEARER),
    ("tavily", "api.tavily.com", BEARER),
    ("tavily-body", "api.tavily.com", Json("api_key")),
    ("telegram", "api.telegram.org", Segment("bot")),
    ("together", "api.together.xyz", BEARER),
    ("twilio", "api.twilio.com", Basic("AC0123456789")),
    ("vercel", "api.vercel.com", BEARER),
    ("xai", "api.x.ai", BEARER),
];

/// A document with `value` below these names.
fn nested(names: &str, value: &str) -> Value {
    names.rsplit('/').fold(Value::from(value), |inner, name| serde_json::json!({ name: inner }))
}

/// Returns whether `host` belongs to the template.
fn has_host(template: &Value, host: &str) -> bool {
    let patterns = template["hosts"].as_array().unwrap();
    patterns.is_empty()
        || patterns.iter().filter_map(Value::as_str).any(|pattern| {
            let suffix = pattern.trim_start_matches('*');
            host == pattern || (pattern.starts_with('*') && host.ends_with(suffix))
        })
}

#[test]
fn every_service_receives_its_credential() {
    let names: Vec<&str> = SERVICES.iter().map(|(_, host, _)| *host).collect();
    let upstream = Upstream::start(&names);
    let daemon = Daemon::for_upstream(&upstream);
    let templates = daemon.onecli_json(&["template", "list"]);
    let templates = templates.as_array().unwrap();
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let port = upstream.https_addr().port();
    for template in templates {
        let name = template["name"].as_str().unwrap();
        // Minted tokens have separate tests.
        if !template["mint"].is_null() {
            continue;
        }
        let row = SERVICES.iter().find(|(own, _, _)| *own == name);
        let (_, host, sent) = row.unwrap_or_else(|| panic!("no row for the template '{name}'"));
        assert!(has_host(template, host), "{name}: {host} is not one of {}", template["hosts"]);
        let value = match sent {
            Signed(_) => "AKIDREAL:real-credential/0123456789",
            Segment(_) => SEGMENT_VALUE,
            _ => VALUE,
        };
        daemon.add_secret(name, value, &["--template", name, "--host", &format!("{host}:{port}")]);
        let granted = daemon.grant(&agent, name);
        let prefix = template["prefix"].as_str().unwrap();
        assert!(granted.placeholder.starts_with(&format!("{prefix}onecli_ph_")), "{name}");
        let variables: Vec<&str> =
            template["env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(granted.env.as_deref(), Some(variables.join(",").as_str()), "{name}");

        let key = &granted.placeholder;
        let url = upstream.https_url(host, "/echo");
        let run = match sent {
            Header(field, text) => {
                client::curl(&url).args(["-H", &format!("{field}: {}", text.replace("{}", key))])
            }
            Basic(user) => client::curl(&url).args(["-u", &format!("{user}:{key}")]),
            Query(field) => client::curl(&format!("{url}?a=1&{field}={key}")),
            Segment(text) => client::curl(&format!("{url}/{text}{key}/getMe")),
            Json(field) => client::curl(&url).args([
                "-H",
                "content-type: application/json",
                "-d",
                &nested(field, key).to_string(),
            ]),
            Signed(scope) => client::curl(&url).args([
                "--aws-sigv4",
                &format!("aws:amz:{scope}"),
                "-u",
                &format!("{key}:{key}"),
            ]),
        };
        let outcome = daemon.explicit(&agent.token, run).outcome();
        outcome.ok(name);
        assert_eq!(outcome.reply().status, 200, "{name}: {outcome:?}");
        let seen = upstream.only_request();
        upstream.clear();
        match sent {
            Header(field, text) => {
                assert_eq!(seen.header(field), Some(text.replace("{}", VALUE).as_str()), "{name}: {seen:#?}");
            }
            Basic(user) => {
                let expected = format!("Basic {}", BASE64.encode(format!("{user}:{VALUE}").as_bytes()));
                assert_eq!(seen.header("authorization"), Some(expected.as_str()), "{name}: {seen:#?}");
            }
            Query(field) => {
                let value = VALUE.replace('/', "%2F").replace('+', "%2B");
                assert_eq!(seen.path, format!("/echo?a=1&{field}={value}"), "{name}");
            }
            Segment(text) => assert_eq!(seen.path, format!("/echo/{text}{SEGMENT_VALUE}/getMe"), "{name}"),
            Json(field) => {
                let body: Value = serde_json::from_slice(&seen.body).unwrap();
                assert_eq!(body, nested(field, VALUE), "{name}");
            }
            Signed(_) => {
                let signature = seen.header("authorization").unwrap();
                assert!(
                    signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIDREAL/"),
                    "{name}: {signature}"
                );
            }
        }
        assert!(!format!("{seen:?}").contains("onecli_ph_"), "{name}: {seen:#?}");
        assert!(!outcome.out().contains("real-credential"), "{name}: scrubbed");
        // Two templates may have the same host and location.
        let _ = daemon.onecli(&["secret", "remove", name]).ok("secret remove");
    }
}

/// Requests that would issue a credential to the agent are refused, in every spelling.
#[test]
fn requests_for_new_credentials_are_refused() {
    let hosts = ["api.github.com", "gitlab.com", "npm.test", "sts.amazonaws.com"];
    let upstream = Upstream::start(&hosts);
    let daemon = Daemon::for_upstream(&upstream);
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let port = upstream.https_addr().port();
    for (template, host) in ["github", "gitlab", "npm", "aws"].iter().zip(hosts) {
        daemon.add_secret(
            template,
            "AKID:real-credential",
            &["--template", template, "--host", &format!("{host}:{port}")],
        );
        let _ = daemon.grant(&agent, template);
    }
    let ask = |method: &str, host: &str, path: &str| {
        let run = client::curl(&upstream.https_url(host, path)).args(["-X", method, "--path-as-is"]);
        let reply = daemon.explicit(&agent.token, run).outcome().reply();
        (reply.status, reply.header("x-onecli-error").map(str::to_owned))
    };
    let refused = (403, Some("credential_endpoint".to_owned()));
    for (method, host, path) in [
        ("POST", hosts[0], "/app/installations/42/access_tokens"),
        ("POST", hosts[0], "/app/installations/42/./access_tokens/"),
        ("POST", hosts[0], "/app/installations/42/access%5ftokens"),
        ("POST", hosts[0], "/app/installations/42/%2561ccess_tokens"),
        ("POST", hosts[0], "/app//installations/42/ACCESS_TOKENS;x"),
        ("POST", hosts[0], "/x/../user/keys"),
        ("POST", hosts[1], "/api/v4/projects/group%2fname/access_tokens"),
        ("POST", hosts[1], "/api/v4/users/1/personal_access_tokens"),
        ("POST", hosts[2], "/-/npm/v1/tokens"),
        ("GET", hosts[3], "/?Action=GetSessionToken"),
    ] {
        assert_eq!(ask(method, host, path), refused, "{method} {host}{path}");
    }
    assert_eq!(upstream.request_count(), 0);
    // Similar requests are not.
    for (method, host, path) in [
        ("GET", hosts[0], "/app/installations/42"),
        ("POST", hosts[0], "/repos/a/b/issues"),
        ("GET", hosts[1], "/api/v4/projects/group%2Fname/issues"),
        ("GET", hosts[2], "/@scope%2fname"),
    ] {
        assert_eq!(ask(method, host, path), (404, None), "{method} {host}{path}");
    }
    let record = daemon.audit_until("a refusal", |r| r["code"] == "credential_endpoint");
    assert_eq!(record["verdict"], "deny", "{record}");
}

/// An action in the query, in a form body, in a header field or in the text of a GraphQL query.
#[test]
fn actions_that_issue_credentials_are_refused() {
    let ec2 = "ec2.eu-central-1.amazonaws.com";
    let ecr = "api.ecr.eu-central-1.amazonaws.com";
    let github = "api.github.com";
    let upstream = Upstream::start(&[ec2, ecr, github]);
    let daemon = Daemon::for_upstream(&upstream);
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let port = upstream.https_addr().port();
    let hosts = [ec2, ecr].map(|host| format!("{host}:{port}"));
    let aws = ["--template", "aws", "--host", &hosts[0], "--host", &hosts[1]];
    daemon.add_secret("aws", "AKIDREAL:real-credential/0123456789", &aws);
    daemon.add_secret(
        "github",
        "real-credential/0123456789",
        &["--template", "github", "--host", &format!("{github}:{port}")],
    );
    let key = daemon.grant(&agent, "aws").placeholder;
    let _ = daemon.grant(&agent, "github");
    let user = format!("{key}:{key}");
    let ask = |host: &str, path: &str, args: &[&str]| {
        let run = client::curl(&upstream.https_url(host, path)).args(args);
        let run = if host == github {
            run
        } else {
            let service = if host == ec2 { "ec2" } else { "ecr" };
            run.args(["--aws-sigv4", &format!("aws:amz:eu-central-1:{service}"), "-u", &user])
        };
        let reply = daemon.explicit(&agent.token, run).outcome().reply();
        (reply.status, reply.header("x-onecli-error").map(str::to_owned))
    };
    let refused = (403, Some("credential_endpoint".to_owned()));
    let target = "X-Amz-Target: AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    for (host, path, args) in [
        (ec2, "/?Action=CreateKeyPair&KeyName=x", &[][..]),
        (ec2, "/", &["-d", "Action=CreateKeyPair&KeyName=x"][..]),
        (ec2, "/x", &["-d", "Version=2016-11-15&%41ction=createKeyPair"][..]),
        (ecr, "/", &["-d", "{}", "-H", target][..]),
        (github, "/graphql", &["-d", r#"{"query":"{repository{a:temp\u0043loneToken}}"}"#][..]),
    ] {
        assert_eq!(ask(host, path, args), refused, "{host}{path} {args:?}");
    }
    // A body that the daemon would not read as the server does.
    let coded = ["-d", "Action=x", "-H", "Content-Encoding: gzip"];
    assert_eq!(ask(ec2, "/", &coded), (400, Some("bad_request".to_owned())));
    assert_eq!(upstream.request_count(), 0);
    for (host, path, args) in [
        (ec2, "/echo?Action=DescribeKeyPairs", &[][..]),
        (ec2, "/echo", &["-d", "Action=DescribeKeyPairs&Filter=CreateKeyPair"][..]),
        (
            ecr,
            "/echo",
            &["-d", "{}", "-H", "X-Amz-Target: AmazonEC2ContainerRegistry_V20150921.ListImages"][..],
        ),
        (github, "/echo", &["-d", r#"{"query":"{viewer{login}}"}"#][..]),
    ] {
        assert_eq!(ask(host, path, args), (200, None), "{host}{path} {args:?}");
    }
    let seen = upstream.requests();
    let form = seen.iter().find(|request| request.body.starts_with(b"Action=")).unwrap();
    assert_eq!(form.body, b"Action=DescribeKeyPairs&Filter=CreateKeyPair".as_slice());
}
