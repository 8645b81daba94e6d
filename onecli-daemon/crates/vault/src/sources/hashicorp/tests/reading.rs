//! Reads, and the errors of failed reads.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn kv_versions_are_read_and_missing_parts_are_named() {
    let Some(server) = server("reading KV") else { return };
    server.root("POST", "sys/mounts/kv1", &json!({ "type": "kv", "options": { "version": "1" } }));
    server.root("POST", "kv1/open/old", &json!({ "key": "value-of-kv1", "number": 1_234_567_890 }));
    put(&server, "open/api", "first-value");
    put(&server, "open/api", "second-value");
    put(&server, "closed/api", "never-read");
    put(&server, "open/gone", "deleted-value");
    server.root("DELETE", "secret/data/open/gone", &json!({}));
    server.root(
        "POST",
        "secret/data/open/odd",
        &json!({ "data": { "list": ["a"], "short": "abc", "null": null } }),
    );
    server.root("POST", "secret/data/open/with%20space", &json!({ "data": { "key": "spaced-value" } }));
    let client = client(&server, &reader(&server));

    for (reference, expected) in [
        ("secret/open/api#key", "second-value"),
        ("secret/open/api?version=1#key", "first-value"),
        ("kv1/open/old#key", "value-of-kv1"),
        ("kv1/open/old#number", "1234567890"),
        ("secret/open/with space#key", "spaced-value"),
    ] {
        assert_eq!(value(&client, reference).await.unwrap(), expected, "{reference}");
    }
    let versions = client.fetch(agent(1), &"secret/open/api#key".parse().unwrap()).await.unwrap();
    assert_eq!((versions.version, versions.stale), (Some(2), false));

    for (reference, expected) in [
        ("secret/open/api#other", "no field 'other'"),
        ("secret/open/odd#list", "no field 'list' that holds text"),
        ("secret/open/odd#null", "no field 'null' that holds text"),
        ("secret/open/odd#short", "shorter than 8 bytes"),
        ("secret/open/nothing#key", "nothing at 'secret/open/nothing'"),
        ("secret/open/gone#key", "nothing at 'secret/open/gone'"),
        ("secret/open/api?version=9#key", "in version 9"),
        ("kv1/open/old?version=1#key", "not in a KV version 2 mount"),
        ("secret/closed/api#key", "does not permit"),
        ("auth/token/lookup-self#id", "belongs to the vault server"),
        ("sys/seal-status#version", "belongs to the vault server"),
        ("identity/lookup/entity#id", "belongs to the vault server"),
        ("nomount/api#key", "does not permit"),
    ] {
        let error = value(&client, reference).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected), "{reference}: {text}");
        assert!(!error.is_outage(), "{reference}: {text}");
        assert!(!text.contains("abc"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn value_is_cached_fetched_once_for_many_and_again_after_a_refusal() {
    let Some(server) = server("keeping values") else { return };
    put(&server, "open/api", "first-value");
    let tap = onecli_tests::tap::Tap::start(([127, 0, 0, 1], server.port()).into());
    let method = Method::Token { file: token_file(&server, &reader(&server)) };
    let mut settings = settings(&server, method);
    settings.address = Address::parse(&format!("https://127.0.0.1:{}", tap.address().port())).unwrap();
    let client = client_of(settings, &Arc::default());

    let reference: VaultReference = "secret/open/api#key".parse().unwrap();
    let all = futures_util::future::join_all((0..100).map(|_| client.fetch(agent(1), &reference))).await;
    assert!(all.iter().all(|got| got.as_ref().unwrap().value.expose() == b"first-value"));
    assert_eq!(tap.connections(), 1, "one connection served the login and the one fetch");

    put(&server, "open/api", "second-value");
    assert_eq!(value(&client, "secret/open/api#key").await.unwrap(), "first-value", "kept");
    client.evict(agent(1), &reference).await;
    assert_eq!(value(&client, "secret/open/api#key").await.unwrap(), "second-value");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_separate_equal_paths() {
    let Some(server) = server("namespaces") else { return };
    server.root("POST", "sys/namespaces/team", &json!({}));
    server.root("POST", "team/sys/mounts/secret", &json!({ "type": "kv", "options": { "version": "2" } }));
    put(&server, "open/api", "value-of-root");
    server.root("POST", "team/secret/data/open/api", &json!({ "data": { "key": "value-of-team" } }));
    let method = Method::Token { file: token_file(&server, ROOT) };
    let team = Settings { namespace: Some("team".to_owned()), ..settings(&server, method.clone()) };
    assert_eq!(
        value(&client_of(team, &Arc::default()), "secret/open/api#key").await.unwrap(),
        "value-of-team"
    );
    let root = client_of(settings(&server, method), &Arc::default());
    for path in ["team/auth/token/lookup-self#id", "team/sys/seal-status#version"] {
        assert!(matches!(value(&root, path).await, Err(BackendError::Own(_))), "{path}");
    }
    assert_eq!(value(&root, "secret/open/api#key").await.unwrap(), "value-of-root");
}
