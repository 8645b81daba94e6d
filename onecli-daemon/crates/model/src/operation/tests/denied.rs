//! Every denial of every template, in several spellings, and similar requests that are allowed.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::CanonicalPath;
use crate::Host;
use crate::PathReadings;
use crate::operation::AWS_TARGET;
use crate::operation::Asked;
use crate::operation::Condition;
use crate::operation::Operations;
use crate::operation::Reading;
use crate::template::Denial;
use crate::template::Template;

/// A request: `METHOD HOST/PATH?QUERY`, one header field, a body.
struct RequestText<'r> {
    line: &'r str,
    field: Option<(&'r str, &'r str)>,
    body: &'r str,
}

fn asks(line: &str) -> RequestText<'_> {
    RequestText { line, field: None, body: "" }
}

fn is_denied(template: &str, asked: &RequestText<'_>) -> bool {
    let (method, url) = asked.line.split_once(' ').unwrap();
    let (host, rest) = url.split_once('/').unwrap();
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let (method, host): (Method, Host) = (method.parse().unwrap(), host.parse().unwrap());
    let path = CanonicalPath::parse(&format!("/{path}")).unwrap();
    let path = PathReadings::new(&path);
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = asked.field {
        headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let mut operations = Operations::of(query, &headers);
    let template = Template::find(template).unwrap();
    let silent = Operations::default();
    let reading = template.reads(&Asked { method: &method, host: &host, path: &path, operations: &silent });
    operations.read_query(reading, query).unwrap();
    if reading > Reading::Nothing {
        operations.read_body(&headers, asked.body.as_bytes()).unwrap();
    }
    template.denies(&Asked { method: &method, host: &host, path: &path, operations: &operations })
}

/// Returns a path of the pattern, and other spellings that servers may read as it.
fn spellings(denial: &Denial) -> Vec<String> {
    let text = denial.to_string();
    let place = text.split(' ').nth(1).unwrap();
    let pattern = match place.split_once('/') {
        Some((_, pattern)) => pattern.to_owned(),
        // The denial of an operation.
        None => format!("**/operation/{}", place.to_ascii_lowercase()),
    };
    let plain = format!("/{}", pattern.replace("**", "x/y").replace('*', "z"));
    let last = plain.rfind('/').unwrap() + 1;
    let mut all = vec![
        plain.clone(),
        plain.to_ascii_uppercase(),
        format!("{plain}/"),
        format!("/q/..{plain}"),
        plain.replace('/', "//"),
        format!("{plain};v=1"),
        format!("{plain}%3Fa"),
        plain.replace('/', "/./"),
    ];
    if plain != "/" {
        all.push(format!("{plain}.json"));
    }
    if let Some(first) = plain.as_bytes().get(last) {
        let tail = &plain[last + 1..];
        all.push(format!("{}%{first:02x}{tail}", &plain[..last]));
        all.push(format!("{}%25{first:02X}{tail}", &plain[..last]));
    }
    all
}

#[test]
fn every_denial_holds_in_every_spelling() {
    let mut count = 0;
    for template in Template::all() {
        for denial in &template.denials {
            let method = denial.method.clone().unwrap_or(Method::POST);
            let host = match denial.host.as_ref().map(ToString::to_string) {
                Some(host) if host.starts_with("aws:") => {
                    let service = host["aws:".len()..].replace('*', "a");
                    format!("{service}.eu-central-1.amazonaws.com")
                }
                Some(host) => host.replace('*', "a"),
                None => "any.test".to_owned(),
            };
            let host: Host = host.parse().unwrap();
            for operations in ways_to_say(denial) {
                for path in spellings(denial) {
                    let path = CanonicalPath::parse(&path).unwrap();
                    assert!(
                        denial.matches(&method, &host, &PathReadings::new(&path), &operations),
                        "{}: {denial}: {path} {operations:?}",
                        template.name
                    );
                    count += 1;
                }
                if method == Method::POST {
                    let path = CanonicalPath::parse(&spellings(denial)[0]).unwrap();
                    for method in [Method::PUT, Method::PATCH] {
                        let is_denied =
                            denial.matches(&method, &host, &PathReadings::new(&path), &operations);
                        assert!(is_denied, "{}: {denial}: {method}", template.name);
                    }
                }
            }
            if denial.condition().is_some() {
                let is_operation = matches!(denial.condition(), Some(Condition::Operation { .. }));
                let path = if is_operation { "/" } else { &spellings(denial)[0] };
                let path = CanonicalPath::parse(path).unwrap();
                let silent = Operations::default();
                assert!(!denial.matches(&method, &host, &PathReadings::new(&path), &silent), "{denial}");
            }
        }
    }
    assert!(count > 5000, "{count}");
}

/// Returns each way in which a request may fulfil the condition.
fn ways_to_say(denial: &Denial) -> Vec<Operations> {
    let none = HeaderMap::new();
    let of_query = |query: String| Operations::of(Some(&query), &HeaderMap::new());
    match denial.condition() {
        None => vec![Operations::default()],
        Some(Condition::Parameter { name, value, in_body }) => {
            let is_member = *in_body && value.is_none();
            let value = value.as_deref().unwrap_or_default().replace('*', "x");
            let first = name.as_bytes()[0];
            let of_body = |body: String| {
                let mut operations = Operations::default();
                operations.read_body(&none, body.as_bytes()).unwrap();
                operations
            };
            let form = in_body.then(|| of_body(format!("Version=1&{name}={value}")));
            let json = is_member.then(|| of_body(format!("{{\"a\":[{{\"{name}\":1}}]}}")));
            let mut all = vec![
                of_query(format!("a=b&{name}={value}")),
                of_query(format!("{}={}", name.to_ascii_uppercase(), value.to_ascii_uppercase())),
                of_query(format!("%{first:02x}{}={value}", &name[1..])),
            ];
            all.extend(form.into_iter().chain(json));
            all
        }
        Some(Condition::Header { name, value }) => {
            let value = HeaderValue::from_str(&value.replace('*', "x")).unwrap();
            vec![Operations::of(None, &[(name.clone(), value)].into_iter().collect())]
        }
        Some(Condition::Operation { name, in_form }) => {
            let target = HeaderValue::from_str(&format!("Service_2015.{name}")).unwrap();
            let field = [(HeaderName::from_static(AWS_TARGET), target)].into_iter().collect();
            let mut all = vec![of_query(format!("Action={name}")), Operations::of(None, &field)];
            if *in_form {
                let mut form = Operations::default();
                form.read_body(&none, format!("Version=1&Action={name}").as_bytes()).unwrap();
                all.push(form);
            }
            all
        }
        Some(Condition::Word(word)) => {
            let mut body = Operations::default();
            body.read_body(&none, format!("{{\"query\":\"mutation {{ {word} }}\"}}").as_bytes()).unwrap();
            vec![body]
        }
    }
}

#[test]
fn requests_that_issue_credentials_are_denied() {
    let check = |template: &str, line: &str| assert!(is_denied(template, &asks(line)), "{template}: {line}");
    for (template, line) in [
        ("aws", "GET sts.eu-west-1.amazonaws.com/?Action=GetSessionToken"),
        ("aws", "GET iam.amazonaws.com/?Action=CreateAccessKey&UserName=x"),
        ("aws", "GET ec2.eu-west-1.amazonaws.com/?Action=CreateKeyPair&KeyName=x"),
        (
            "aws",
            "POST ecr.eu-west-1.api.aws/service/AmazonEC2ContainerRegistry_V20150921/operation/GetAuthorizationToken",
        ),
        ("aws", "GET redshift.eu-west-1.amazonaws.com/?Action=GetClusterCredentials"),
        ("aws", "GET rds.eu-west-1.amazonaws.com/?Action=ModifyDBInstance&MasterUserPassword=chosen-by-me"),
        ("aws", "POST lakeformation.eu-west-1.amazonaws.com/GetTemporaryGlueTableCredentials"),
        ("aws", "GET bucket--x-s3.s3express-use1-az4.us-east-1.amazonaws.com/?session"),
        ("aws", "GET s3.eu-west-1.amazonaws.com/bucket?session="),
        (
            "aws",
            "GET 123456789012.s3-control.eu-west-1.amazonaws.com/v20180820/accessgrantsinstance/dataaccess",
        ),
        ("aws", "POST appsync.eu-west-1.amazonaws.com/v1/apis/a/ApiKeys"),
        ("aws", "POST apigateway.eu-west-1.amazonaws.com/apikeys"),
        ("aws", "GET apigateway.eu-west-1.amazonaws.com/apikeys?includeValues=true"),
        ("cloudflare", "POST api.cloudflare.com/client/v4/zones/1/access/service_tokens"),
        ("cloudflare", "POST api.cloudflare.com/client/v4/accounts/1/access/service_tokens/2/rotate"),
        ("datadog", "POST api.datadoghq.com/api/v2/service_accounts/1/application_keys"),
        ("datadog-app", "POST api.datadoghq.com/api/v2/service_accounts/1/access_tokens"),
        ("gcp", "POST www.googleapis.com/storage/v1/projects/p/hmacKeys?serviceAccountEmail=x"),
        ("gcp", "POST iam.googleapis.com/v1/projects/p/serviceAccounts/a@b/keys:upload"),
        ("gcp", "POST iam.googleapis.com/v1/projects/p/serviceAccounts/a@b:signJwt"),
        ("gcp", "POST iam.googleapis.com/v1/projects/p/serviceAccounts/a%40b%3AsignBlob"),
        ("gcp", "POST iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b:generateAccessToken"),
        ("gcp", "POST www.googleapis.com/batch/storage/v1"),
        ("gcp", "POST iam.googleapis.com/batch"),
        ("gcp", "POST sqladmin.googleapis.com/sql/v1beta4/projects/p/instances/i/users"),
        ("gcp", "POST sqladmin.googleapis.com/v1/projects/p/instances/i:generateEphemeralCert"),
        ("gcp", "POST iam.googleapis.com/google.iam.admin.v1.IAM/CreateServiceAccountKey"),
        ("gcp", "POST iam.googleapis.com/$rpc/google.iam.admin.v1.IAM/CreateServiceAccountKey"),
        ("gcp", "POST iam.googleapis.com/%24rpc/google.iam.admin.v1.IAM/SignJwt"),
        ("gcp", "POST www.googleapis.com/google.iam.credentials.v1.IAMCredentials/GenerateAccessToken"),
        ("gcp", "POST storage.googleapis.com/google.storage.v2.Storage/CreateHmacKey"),
        ("gcp", "POST sqladmin.googleapis.com/google.cloud.sql.v1.SqlUsersService/Insert"),
        ("gcp", "GET sqladmin.googleapis.com/$rpc/google.cloud.sql.v1.SqlUsersService/Insert"),
        (
            "gcp",
            "POST compute.googleapis.com/$rpc/google.cloud.compute.v1.Projects/SetCommonInstanceMetadata",
        ),
        ("gcp", "PUT iam.googleapis.com/v1/projects/p/serviceAccounts/a@b/keys"),
        (
            "google-ai",
            "POST generativelanguage.googleapis.com/google.ai.generativelanguage.v1alpha.AuthTokenService/CreateAuthToken",
        ),
        ("github", "PUT api.github.com/user/keys"),
        ("github", "POST api.github.com/orgs/o/actions/runners/generate-jitconfig"),
        ("github", "POST api.github.com/enterprises/e/actions/runners/generate-jitconfig"),
        ("github", "POST api.github.com/repositories/1/actions/runners/registration-token"),
        ("gitlab", "POST gitlab.com/api/v4/projects/1/cluster_agents/2/tokens"),
        ("gitlab", "POST gitlab.com/api/v4/groups/1/service_accounts/2/personal_access_tokens/3/rotate"),
        ("gitlab", "POST gitlab.com/api/graphql"),
        ("sentry", "POST sentry.io/api/0/sentry-apps/app/api-tokens/"),
        ("sentry", "POST sentry.io/api/0/api-tokens/"),
        ("twilio", "POST api.twilio.com/2010-04-01/Accounts/AC1/SigningKeys.json"),
        ("twilio", "POST api.twilio.com/2010-04-01/Accounts/AC1/Keys.json"),
    ] {
        check(template, line);
    }
}

#[test]
fn targets_forms_and_words_are_denied() {
    let aws = |line, field, body| is_denied("aws", &RequestText { line, field, body });
    let post = "POST ec2.eu-west-1.amazonaws.com/";
    assert!(aws(post, None, "Action=CreateKeyPair&KeyName=x"));
    assert!(aws(post, Some(("x-amz-target", "AmazonEC2.DescribeKeyPairs")), "Action=CreateKeyPair"));
    assert!(!aws(post, None, "Action=DescribeKeyPairs"));
    let ecr = "POST api.ecr.eu-west-1.amazonaws.com/";
    let target = |operation| Some(("x-amz-target", operation));
    assert!(aws(ecr, target("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"), "{}"));
    assert!(!aws(ecr, target("AmazonEC2ContainerRegistry_V20150921.BatchGetImage"), "{}"));
    let graphql = |template, line, body| is_denied(template, &RequestText { line, field: None, body });
    let github = "POST api.github.com/graphql";
    assert!(graphql("github", github, r#"{"query":"{repository(name:\"a\"){x:tempCloneToken}}"}"#));
    assert!(!graphql("github", github, r#"{"query":"{viewer{login}}"}"#));
    let linear = "POST api.linear.app/graphql";
    assert!(graphql("linear", linear, r#"{"query":"mutation{oauthApplicationCreate(input:{}){id}}"}"#));
    assert!(graphql("linear", linear, r#"{"extensions":{"persistedQuery":{"sha256Hash":"0"}}}"#));
    assert!(!graphql("linear", linear, r#"{"query":"mutation{issueCreate(input:{}){success}}"}"#));
    let rds = "POST rds.eu-west-1.amazonaws.com/";
    assert!(aws(rds, None, "Action=ModifyDBInstance&DBInstanceIdentifier=d&MasterUserPassword=Xx1"));
    assert!(!aws(rds, None, "Action=ModifyDBInstance&DBInstanceIdentifier=d&ManageMasterUserPassword=true"));
    let redshift = "PUT redshift-fips.eu-west-1.amazonaws.com/x";
    assert!(aws(redshift, None, "Action=ModifyCluster&MasterUserPassword=Xx1"));
    let domain = "POST es.eu-west-1.amazonaws.com/2021-01-01/opensearch/domain/d/config";
    assert!(aws(
        domain,
        None,
        r#"{"AdvancedSecurityOptions":{"MasterUserOptions":{"MasterUserPassword":"x"}}}"#
    ));
    assert!(aws("POST lightsail.eu-west-1.amazonaws.com/", None, r#"{"masterUserPassword":"x"}"#));
    let gcs = |line, body| is_denied("gcp", &RequestText { line, field: None, body });
    assert!(gcs("POST storage.googleapis.com/", "Action=CreateAccessKey&UserName=a"));
    assert!(gcs("PUT storage.googleapis.com//", "Action=CreateHmacKey"));
    assert!(!gcs("PUT storage.googleapis.com/bucket/object", "Action=CreateAccessKey"));
    let sql = "PATCH sqladmin.googleapis.com/sql/v1beta4/projects/p/instances/i";
    assert!(gcs(sql, r#"{"rootPassword":"x"}"#));
    assert!(!gcs(sql, r#"{"settings":{}}"#));
    assert!(gcs(
        "PUT compute.googleapis.com/compute/v1/projects/p/zones/z/instances/i",
        r#"{"key":"ssh-keys"}"#
    ));
    let gce = "POST compute.googleapis.com/compute/v1/projects/p/zones/z/instances/i/setMetadata";
    assert!(graphql("gcp", gce, r#"{"items":[{"key":"ssh-keys","value":"me:ssh-ed25519 AAAA"}]}"#));
    assert!(!graphql("gcp", gce, r#"{"items":[{"key":"startup-script","value":"true"}]}"#));
}

/// At hosts of the operator's own, an API may be behind a prefix.
#[test]
fn denials_hold_behind_a_prefix() {
    let check = |template: &str, line: &str, expected: bool| {
        assert_eq!(is_denied(template, &asks(line)), expected, "{template}: {line}");
    };
    for prefix in ["", "/api/v3", "/api", "/tools/gitlab", "/a/b/c/d", "//x", "/..//x/api/v3"] {
        check("github", &format!("POST ghe.test{prefix}/repos/o/r/keys"), true);
        check("github", &format!("POST ghe.test{prefix}/user/keys"), true);
        check("github", &format!("POST ghe.test{prefix}/app/installations/1/access_tokens"), true);
        check("gitlab", &format!("POST gl.test{prefix}/api/v4/user/keys"), true);
        check("gitlab", &format!("POST gl.test{prefix}/api/v4/projects/1/access_tokens"), true);
        check("gitlab", &format!("POST gl.test{prefix}/api/graphql"), true);
    }
    for prefix in ["", "/api/v3", "/a/b/c", "//x"] {
        check("github", &format!("GET ghe.test{prefix}/authorizations"), true);
        check("gitlab", &format!("POST gl.test{prefix}/oauth/token"), true);
    }
    check("gitlab", &format!("POST gl.test{}/api/v4/user/keys", "/a".repeat(16)), true);
    check("gitlab", &format!("POST gl.test{}/api/v4/user/keys", "/a".repeat(17)), false);
    check("jira", "POST jira.test/jira/rest/pat/latest/tokens", true);
    check("github", "POST api.github.com//x/user/keys", true);
    check("github", "POST ghe.test/api/v3/user/k%u0065ys", true);
    check("github", "POST ghe.test/api/v3/user/k%c1%a5ys", true);
    // Projects, files and issues may have any name.
    check("github", "GET ghe.test/api/v3/repos/o/r/contents/applications/x", false);
    check("github", "POST ghe.test/api/v3/repos/o/applications/issues", false);
    check("github", "POST api.github.com/x/user/keys", false);
    check("gitlab", "POST gl.test/api/v4/projects/a%2Foauth/issues", false);
    let graphql = r#"{"query":"{repository{tempCloneToken}}"}"#;
    for path in ["/api/graphql", "/graphql", "//x/graphql"] {
        let line = format!("POST ghe.test{path}");
        assert!(is_denied("github", &RequestText { line: &line, field: None, body: graphql }), "{path}");
    }
}

#[test]
fn words_are_found_wherever_a_graphql_document_is() {
    let linear = |line: &str, kind: &str, body: &str| {
        let field = (!kind.is_empty()).then_some(("content-type", kind));
        assert!(is_denied("linear", &RequestText { line, field, body }), "{line} {kind} {body}");
    };
    let post = "POST api.linear.app/graphql";
    let form = "application/x-www-form-urlencoded";
    linear(post, form, "query=mutation{apiKeyCreate(input:{}){id}}");
    linear(post, form, "query=mutation%7Bapi%4beyCreate%7D");
    linear(post, form, "query=mutation%257Bapi%254beyCreate%257D");
    linear(post, form, "operations=%7B%22query%22%3A%22mutation%7Bapi%5Cu004beyCreate%7D%22%7D");
    linear("POST api.linear.app/graphql?query=mutation{apiKeyCreate}", "", "{}");
    linear("POST api.linear.app/graphql?query=mutation%7Bapi%4beyCreate%7D", "", "");
    linear("POST api.linear.app/graphql/0123", "", "{}");
}

/// The usual requests to services stay possible.
#[test]
fn similar_harmless_requests_are_allowed() {
    for (template, line) in [
        ("anthropic", "POST api.anthropic.com/v1/messages"),
        ("anthropic", "GET api.anthropic.com/v1/models"),
        ("aws", "GET ec2.eu-west-1.amazonaws.com/?Action=DescribeKeyPairs"),
        ("aws", "GET bucket.s3.eu-west-1.amazonaws.com/key?session-id=1"),
        ("aws", "GET bucket.s3.eu-west-1.amazonaws.com/session"),
        ("aws", "PUT bucket.s3.eu-west-1.amazonaws.com/apikeys"),
        ("aws", "GET apigateway.eu-west-1.amazonaws.com/apikeys"),
        ("aws", "POST bedrock-runtime.eu-west-1.amazonaws.com/model/m/invoke"),
        ("aws", "POST sqs.eu-west-1.amazonaws.com/"),
        ("aws", "GET rds.eu-west-1.amazonaws.com/?Action=ModifyDBInstance&ManageMasterUserPassword=true"),
        ("azure-openai", "POST a.openai.azure.com/openai/deployments/d/chat/completions"),
        ("bitbucket", "GET api.bitbucket.org/2.0/repositories/a/b/deploy-keys"),
        ("cloudflare", "GET api.cloudflare.com/client/v4/zones/1/dns_records"),
        ("cloudflare", "GET api.cloudflare.com/client/v4/accounts/1/access/service_tokens"),
        ("datadog", "POST api.datadoghq.com/api/v2/series"),
        ("digitalocean", "GET api.digitalocean.com/v2/databases/1"),
        ("digitalocean", "GET api.digitalocean.com/v2/account/keys"),
        ("discord", "POST discord.com/api/v10/channels/1/messages"),
        ("elevenlabs", "POST api.elevenlabs.io/v1/text-to-speech/v"),
        ("fireworks", "POST api.fireworks.ai/inference/v1/chat/completions"),
        ("gcp", "GET www.googleapis.com/storage/v1/b/bucket/o/hmacKeys"),
        ("gcp", "GET storage.googleapis.com/bucket/object?action=read"),
        ("gcp", "GET iam.googleapis.com/v1/projects/p/serviceAccounts/a@b/keys"),
        ("gcp", "POST bigquery.googleapis.com/bigquery/v2/projects/p/queries"),
        ("gcp", "GET sqladmin.googleapis.com/v1/projects/p/instances/i"),
        ("gcp", "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish"),
        ("gcp", "POST storage.googleapis.com/google.storage.v2.Storage/ReadObject"),
        ("gcp", "POST iam.googleapis.com/google.iam.admin.v1.IAM/ListServiceAccountKeys"),
        ("gcp", "POST aiplatform.googleapis.com/google.cloud.aiplatform.v1.PredictionService/Predict"),
        (
            "google-ai",
            "POST generativelanguage.googleapis.com/google.ai.generativelanguage.v1beta.GenerativeService/GenerateContent",
        ),
        ("github", "PATCH api.github.com/repos/a/b/issues/1"),
        ("github", "POST api.github.com/repos/a/b/issues"),
        ("github", "GET api.github.com/user/keys"),
        ("github", "GET api.github.com/repos/a/b/contents/applications/x"),
        ("github", "GET api.github.com/orgs/o/actions/runners"),
        ("github-git", "POST github.com/a/b.git/git-upload-pack"),
        ("gitlab", "GET gitlab.com/api/v4/projects/1/cluster_agents/2/tokens"),
        ("gitlab", "POST gitlab.com/api/v4/projects/1/trigger/pipeline"),
        ("google-ai", "POST generativelanguage.googleapis.com/v1beta/models/gemini-pro:generateContent"),
        ("heroku", "GET api.heroku.com/apps/a/config-vars"),
        ("huggingface", "GET huggingface.co/a/b/resolve/main/config.json"),
        ("jira", "POST a.atlassian.net/rest/api/3/issue"),
        ("mailgun", "POST api.mailgun.net/v3/d.test/messages"),
        ("netlify", "POST api.netlify.com/api/v1/sites/s/deploys"),
        ("notion", "POST api.notion.com/v1/pages"),
        ("npm", "GET npm.test/@scope%2fname"),
        ("npm", "GET npm.test/-/npm/v1/tokens"),
        ("openai", "POST api.openai.com/v1/responses"),
        ("openai", "GET api.openai.com/v1/organization/projects/p/service_accounts"),
        ("openrouter", "GET openrouter.ai/api/v1/keys"),
        ("perplexity", "POST api.perplexity.ai/chat/completions"),
        ("pinecone", "POST i.svc.pinecone.io/query"),
        ("sendgrid", "POST api.sendgrid.com/v3/mail/send"),
        ("sentry", "GET sentry.io/api/0/projects/o/p/keys/"),
        ("sentry", "POST sentry.io/api/0/organizations/o/releases/"),
        ("slack", "POST slack.com/api/chat.postMessage"),
        ("slack", "POST slack.com/api/auth.test"),
        ("stripe", "POST api.stripe.com/v1/checkout/sessions"),
        ("stripe", "GET api.stripe.com/v1/webhook_endpoints"),
        ("twilio", "POST api.twilio.com/2010-04-01/Accounts/AC1/Messages.json"),
        ("twilio", "GET api.twilio.com/2010-04-01/Accounts/AC1/Keys.json"),
        ("vercel", "GET api.vercel.com/v9/projects/p"),
        ("xai", "POST api.x.ai/v1/chat/completions"),
    ] {
        assert!(!is_denied(template, &asks(line)), "{template}: {line}");
    }
}

/// Each entry names its source and has an effect.
#[test]
fn every_denial_names_its_source() {
    for template in Template::all() {
        for group in &template.deny {
            assert!(group.source.len() >= 10, "{}: '{}'", template.name, group.source);
            assert!(group.date.parse::<jiff::civil::Date>().is_ok(), "{}: '{}'", template.name, group.date);
            assert!(!group.denials().unwrap().is_empty(), "{}: {}", template.name, group.source);
        }
        let mut texts: Vec<String> = template.denials.iter().map(ToString::to_string).collect();
        texts.sort();
        let all = texts.len();
        texts.dedup();
        assert_eq!(texts.len(), all, "{}: twice", template.name);
    }
}
