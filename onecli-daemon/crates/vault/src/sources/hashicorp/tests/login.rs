//! All login methods, and a lost login.

use super::*;

struct AppRole {
    role_id: String,
}

fn approle(server: &OpenBao, ttl: &str) -> AppRole {
    policy(server);
    server.root("POST", "sys/auth/approle", &json!({ "type": "approle" }));
    let role = json!({ "token_policies": ["reader"], "token_ttl": ttl, "token_max_ttl": "1h" });
    server.root("POST", "auth/approle/role/onecli", &role);
    let answer = server.root("GET", "auth/approle/role/onecli/role-id", &json!(null));
    AppRole { role_id: answer["data"]["role_id"].as_str().unwrap().to_owned() }
}

impl AppRole {
    fn method(&self, server: &OpenBao, content: &str, wrapped: bool) -> Method {
        Method::AppRole {
            mount: "approle".to_owned(),
            role_id: self.role_id.clone(),
            secret_id_file: token_file(server, content),
            wrapped,
        }
    }
}

fn secret_id(server: &OpenBao) -> String {
    let made = server.root("POST", "auth/approle/role/onecli/secret-id", &json!({}));
    made["data"]["secret_id"].as_str().unwrap().to_owned()
}

/// A wrapping token for the response of `path`.
fn wrapped(server: &OpenBao, path: &str, body: &serde_json::Value) -> String {
    let curl =
        onecli_tests::client::Run::new("curl").args(["--silent", "--fail", "--cacert"]).arg(server.ca_file());
    let outcome = curl
        .args(["--header", &format!("X-Vault-Token: {ROOT}"), "--header", "X-Vault-Wrap-TTL: 5m"])
        .args(["--data-binary", &body.to_string(), &format!("{}/v1/{path}", server.url())])
        .outcome();
    let answer: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    answer["wrap_info"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn approle_with_a_plain_and_with_a_wrapped_secret_id() {
    let Some(server) = server("AppRole") else { return };
    put(&server, "open/api", "the-value");
    let role = approle(&server, "1h");
    let plain =
        client_of(settings(&server, role.method(&server, &secret_id(&server), false)), &Arc::default());
    assert_eq!(value(&plain, "secret/open/api#key").await.unwrap(), "the-value");

    let token = wrapped(&server, "auth/approle/role/onecli/secret-id", &json!({}));
    let method = role.method(&server, &token, true);
    let memory = Arc::new(Memory::default());
    for start in ["first start", "second start: the wrapping token is used, the secret id is stored"] {
        let client = client_of(settings(&server, method.clone()), &memory);
        assert_eq!(value(&client, "secret/open/api#key").await.unwrap(), "the-value", "{start}");
    }

    // Another client unwrapped it first.
    let elsewhere = client_of(settings(&server, method), &Arc::default());
    let error = value(&elsewhere, "secret/open/api#key").await.unwrap_err();
    assert!(matches!(error, BackendError::Unwrapped { .. }), "{error}");

    // An attacker put a wrapping token of another origin there.
    let forged = wrapped(&server, "sys/wrapping/wrap", &json!({ "secret_id": "of-the-attacker" }));
    let forged = client_of(settings(&server, role.method(&server, &forged, true)), &Arc::default());
    let error = value(&forged, "secret/open/api#key").await.unwrap_err();
    assert!(
        matches!(&error, BackendError::WrappedElsewhere { found, .. } if found == "sys/wrapping/wrap"),
        "{error}"
    );

    let wrong = client_of(settings(&server, role.method(&server, "no-secret-id", false)), &Arc::default());
    let error = value(&wrong, "secret/open/api#key").await.unwrap_err().to_string();
    assert!(error.contains("AppRole failed: invalid"), "{error}");
    assert!(!error.contains("no-secret-id"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_is_replaced_at_the_next_request() {
    let Some(server) = server("a revoked token") else { return };
    put(&server, "open/a", "value-of-a");
    put(&server, "open/b", "value-of-b");
    let role = approle(&server, "1h");
    let client =
        client_of(settings(&server, role.method(&server, &secret_id(&server), false)), &Arc::default());
    assert_eq!(value(&client, "secret/open/a#key").await.unwrap(), "value-of-a");
    let first = client.auth.current().unwrap();
    server.root("POST", "auth/token/revoke", &json!({ "token": first.token.as_str() }));
    assert_eq!(value(&client, "secret/open/b#key").await.unwrap(), "value-of-b");
    let second = client.auth.current().unwrap();
    assert_ne!(first.token, second.token);
    // A missing permission is no reason to log in again.
    value(&client, "secret/closed/c#key").await.unwrap_err();
    assert_eq!(client.auth.current().unwrap().token, second.token);
}

#[test]
fn renewal_is_due_at_two_thirds_or_up_to_a_tenth_before() {
    let since = SystemClock.instant();
    let login = |ttl| Login { token: Arc::default(), renewable: true, ttl, since };
    for (jitter, due) in [(0, 60), (255, 54)] {
        let expected = Some(since + Duration::from_secs(due));
        assert_eq!(login(Some(Duration::from_secs(90))).renewal_due(jitter), expected, "{jitter}");
    }
    assert_eq!(login(None).renewal_due(0), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_renewed_at_two_thirds_and_replaced_at_maximum_lifetime() {
    let Some(server) = server("renewal") else { return };
    policy(&server);
    server.root("POST", "sys/auth/approle", &json!({ "type": "approle" }));
    let role = json!({ "token_policies": ["reader"], "token_ttl": "3s", "token_max_ttl": "6s" });
    server.root("POST", "auth/approle/role/onecli", &role);
    let answer = server.root("GET", "auth/approle/role/onecli/role-id", &json!(null));
    let role = AppRole { role_id: answer["data"]["role_id"].as_str().unwrap().to_owned() };
    let client =
        client_of(settings(&server, role.method(&server, &secret_id(&server), false)), &Arc::default());
    client.auth.token(&client.wire, None).await.unwrap();
    let mut seen = vec![client.auth.current().unwrap()];
    let watch = async {
        for _ in 0..80 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let login = client.auth.current().unwrap();
            if !Arc::ptr_eq(&login, seen.last().unwrap()) {
                seen.push(login);
            }
        }
    };
    tokio::select! {
        () = client.maintain() => {}
        () = watch => {}
    }
    let tokens: std::collections::BTreeSet<String> =
        seen.iter().map(|login| login.token.to_string()).collect();
    assert!(seen.len() >= 3, "renewed or replaced {} times in 8 s", seen.len() - 1);
    assert!(tokens.len() >= 2, "a new token before the maximum of 6 s");
    assert!(tokens.len() < seen.len(), "and renewals of the same one");
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_is_read_again_at_each_login() {
    let Some(server) = server("JWT") else { return };
    if !onecli_tests::need::program("JWT", "openssl", "openssl") {
        return;
    }
    put(&server, "open/api", "the-value");
    policy(&server);
    let key = server.dir().join("jwt.key");
    let openssl = |args: &[&str], stdin: &str| {
        let outcome = onecli_tests::client::Run::new("openssl").args(args).stdin(stdin).outcome();
        assert!(outcome.status.success(), "{:?}", String::from_utf8_lossy(&outcome.stderr));
        outcome.stdout
    };
    let key = key.to_str().unwrap();
    openssl(&["genrsa", "-out", key, "2048"], "");
    let public = String::from_utf8(openssl(&["rsa", "-in", key, "-pubout"], "")).unwrap();
    server.root("POST", "sys/auth/jwt", &json!({ "type": "jwt" }));
    server.root(
        "POST",
        "auth/jwt/config",
        &json!({ "jwt_validation_pubkeys": [public], "bound_issuer": "test" }),
    );
    let role = json!({
        "role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", "token_policies": ["reader"],
        "bound_subject": "onecli", "token_ttl": "1h",
    });
    server.root("POST", "auth/jwt/role/onecli", &role);
    let jwt = |subject: &str| {
        let part =
            |value: serde_json::Value| data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let now = SystemClock.now().as_second();
        let claims = json!({ "iss": "test", "aud": "vault", "sub": subject, "iat": now, "exp": now + 60 });
        let signed = format!("{}.{}", part(json!({ "alg": "RS256", "typ": "JWT" })), part(claims));
        let signature = openssl(&["dgst", "-sha256", "-sign", key], &signed);
        format!("{signed}.{}", data_encoding::BASE64URL_NOPAD.encode(&signature))
    };
    let file = token_file(&server, &jwt("somebody-else"));
    let method = Method::Jwt { mount: "jwt".to_owned(), role: "onecli".to_owned(), file: file.clone() };
    let client = client_of(settings(&server, method), &Arc::default());
    let error = value(&client, "secret/open/api#key").await.unwrap_err();
    assert!(matches!(error, BackendError::Login { method: "JWT", .. }), "{error}");
    std::fs::write(&file, jwt("onecli")).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(value(&client, "secret/open/api#key").await.unwrap(), "the-value");
}

/// Kubernetes' own API confirms the service account token; the upstream of the tests replaces that API.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_of_kubernetes_logs_in() {
    let Some(server) = server("Kubernetes") else { return };
    put(&server, "open/api", "the-value");
    policy(&server);
    let kubernetes = onecli_tests::upstream::Upstream::start(&["localhost"]);
    server.root("POST", "sys/auth/kubernetes", &json!({ "type": "kubernetes" }));
    let config = json!({
        "kubernetes_host": format!("https://localhost:{}", kubernetes.https_addr().port()),
        "kubernetes_ca_cert": kubernetes.ca_pem(), "token_reviewer_jwt": "the-reviewers-token",
        "disable_local_ca_jwt": true,
    });
    server.root("POST", "auth/kubernetes/config", &config);
    let role = json!({
        "bound_service_account_names": ["onecli"], "bound_service_account_namespaces": ["agents"],
        "token_policies": ["reader"], "token_ttl": "1h",
    });
    server.root("POST", "auth/kubernetes/role/onecli", &role);
    let token = |name: &str| {
        let part =
            |value: serde_json::Value| data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let now = SystemClock.now().as_second();
        let claims = json!({
            "iss": "https://kubernetes.default.svc", "sub": format!("system:serviceaccount:agents:{name}"),
            "aud": ["https://kubernetes.default.svc"], "iat": now, "nbf": now, "exp": now + 600,
            "kubernetes.io": { "namespace": "agents", "serviceaccount": { "name": name, "uid": "0815" } },
        });
        format!("{}.{}.{}", part(json!({ "alg": "RS256", "typ": "JWT" })), part(claims), "c2lnbmVk")
    };
    let file = token_file(&server, &token("somebody-else"));
    let method =
        Method::Jwt { mount: "kubernetes".to_owned(), role: "onecli".to_owned(), file: file.clone() };
    let client = client_of(settings(&server, method.clone()), &Arc::default());
    let error = value(&client, "secret/open/api#key").await.unwrap_err();
    assert!(matches!(error, BackendError::Login { .. }), "{error}");
    // Kubernetes replaces the file before its token expires.
    std::fs::write(&file, token("onecli")).unwrap();
    let client = client_of(settings(&server, method), &Arc::default());
    assert_eq!(value(&client, "secret/open/api#key").await.unwrap(), "the-value");
    let reviews = kubernetes.requests();
    let last = reviews.last().unwrap();
    assert_eq!(last.header("authorization"), Some("Bearer the-reviewers-token"));
    assert!(String::from_utf8_lossy(&last.body).contains(&token("onecli")[..40]));
    // It has its own runtime, which must not be dropped on a thread of this one.
    tokio::task::block_in_place(|| drop(kubernetes));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_token_file_is_named_in_error_and_status() {
    let Some(server) = server("status") else { return };
    let file = server.dir().join("no-such-file");
    let client = client_of(settings(&server, Method::Token { file: file.clone() }), &Arc::default());
    let error = value(&client, "secret/open/api#key").await.unwrap_err().to_string();
    assert!(error.contains("no-such-file"), "{error}");
    let status = client.status().await;
    assert_eq!((status.sealed, status.token_ttl), (Some(false), None));
    assert!(status.fault.unwrap().contains("no-such-file"));
    std::fs::write(&file, "s.wrong").unwrap();
    assert!(client.status().await.fault.unwrap().contains("is not valid"));
    std::fs::write(&file, reader(&server)).unwrap();
    let status = client.status().await;
    assert_eq!(status.fault, None);
    assert!(status.token_ttl.unwrap() > Duration::from_mins(50));
    assert!(status.version.unwrap().starts_with('2'));
    server.seal();
    let status = client.status().await;
    assert_eq!(status.sealed, Some(true));
    server.unseal();
}

/// A file on an unreachable server: the login fails in time, and the daemon's threads stay available meanwhile.
#[tokio::test]
async fn hanging_token_file_blocks_nothing_else() {
    let file: PathBuf = "/dev/null".into();
    let settings = Settings {
        address: Address::parse("http://127.0.0.1:9").unwrap(),
        namespace: None,
        ca_file: None,
        method: Method::Token { file: file.clone() },
        timeout: Duration::from_secs(20),
        cache_ttl: Duration::from_secs(30),
        stale_for: Duration::ZERO,
    };
    let client = client_of(settings, &Arc::default());
    let turns = u32::try_from(crate::sources::file::TURNS).unwrap();
    let hanging = client.auth.files.turns(&file).acquire_many_owned(turns).await.unwrap();
    let other = async { tokio::time::sleep(Duration::from_millis(50)).await };
    let (error, ()) = tokio::join!(value(&client, "secret/open/api#key"), other);
    assert!(error.unwrap_err().to_string().contains("could not be read within 5s"));
    drop(hanging);
}
