//! A token request continues if the request that needed it is gone.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use onecli_model::{Authority, Mint, Placement};
use onecli_policy::ScrubGrant;
use onecli_sys::SystemClock;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;
use crate::Purpose;
use onecli_policy::Grant;
use std::sync::Arc;

/// A token server that responds when the test permits it. Its refresh tokens can be used once.
#[derive(Debug)]
struct Slow {
    may_answer: Semaphore,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl TokenEndpointClient for Slow {
    async fn send(
        &self,
        _: Purpose<'_>,
        _: &Authority,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, DaemonRequestError> {
        let number = {
            let mut asked = self.asked.lock();
            asked.push(String::from_utf8(request.body().to_vec()).unwrap());
            asked.len()
        };
        self.may_answer.acquire().await.unwrap().forget();
        let token = serde_json::json!({
            "access_token": format!("bought-token-{number}"), "expires_in": 3600,
            "refresh_token": format!("refresh-token-{number}"),
        });
        Ok(Response::new(token.to_string().into()))
    }
}

/// A secret whose value is a refresh token that its service replaces at each use.
struct Spending {
    vault: Arc<Vault>,
    store: Arc<dyn Store>,
    secret: Secret,
    server: Arc<Slow>,
    credentials: Arc<Credentials>,
}

impl Spending {
    async fn new() -> Spending {
        let host = Host::new().await;
        let vault = Arc::new(host.unlock().await.unwrap());
        let mut secret = secret(1, "key");
        secret.profile.mint = Some(Mint::RefreshToken {
            token_url: "https://login.test/token".parse().unwrap(),
            client_id: "me".to_owned(),
            scope: None,
        });
        secret.sealed = vault.seal(&secret, &value("refresh-token-0")).unwrap();
        let store: Arc<dyn Store> = Arc::new(host.store);
        store.add_secret(&secret).await.unwrap();
        let server = Arc::new(Slow { may_answer: Semaphore::new(0), asked: Mutex::default() });
        let credentials = Arc::new(Credentials::new(
            Arc::clone(&vault),
            Arc::clone(&store),
            Arc::clone(&server) as _,
            Sources::for_test(),
            Arc::new(SystemClock),
        ));
        Spending { vault, store, secret, server, credentials }
    }
}

/// Otherwise an agent could use up every refresh token and lose its successor.
#[tokio::test]
async fn refresh_token_survives_client_disconnect() {
    let Spending { vault, store, secret, server, credentials } = Spending::new().await;
    let grant = Grant::for_test(Arc::new(agent(1, "one")), Arc::new(secret));
    for _ in 0..3 {
        let asking = credentials.open(&grant);
        tokio::time::timeout(Duration::from_millis(20), asking).await.expect_err("the server is slow");
    }
    server.may_answer.add_permits(8);
    let token = credentials.open(&grant).await.unwrap();
    assert_eq!(token.value().expose(), b"bought-token-1");
    let asked = server.asked.lock().clone();
    assert!(asked.len() == 1 && asked[0].contains("refresh-token-0"), "{asked:?}");
    let stored = store.load().await.unwrap().secrets.remove(0);
    assert_eq!(stored.version, 2);
    assert_eq!(vault.open_value(&stored).unwrap().expose(), b"refresh-token-1");
}

/// An administrator edits the secret during a token request: the new refresh token is stored for the edited secret.
#[tokio::test]
async fn refresh_token_survives_concurrent_edit() {
    let Spending { vault, store, secret, server, credentials } = Spending::new().await;
    let grant = Grant::for_test(Arc::new(agent(1, "one")), Arc::new(secret.clone()));
    let asking = credentials.open(&grant);
    tokio::time::timeout(Duration::from_millis(20), asking).await.expect_err("the server is slow");

    let mut edited = Secret { version: 2, env: Some("OTHER".to_owned()), ..secret.clone() };
    vault.carry(&secret, &mut edited, |_, _| Ok::<(), VaultError>(())).unwrap();
    store.add_version(&edited, None).await.unwrap();
    server.may_answer.add_permits(1);
    credentials.open(&grant).await.unwrap();
    let stored = store.load().await.unwrap().secrets.remove(0);
    assert_eq!((stored.version, stored.env.as_deref()), (3, Some("OTHER")));
    assert_eq!(vault.open_value(&stored).unwrap().expose(), b"refresh-token-1");
}

/// The strings that responses are searched for while `text` is stored, with their class.
async fn searched_for(change: impl FnOnce(&mut Secret), text: &str) -> Vec<(String, String)> {
    let on = Host::new().await;
    let vault = Arc::new(on.unlock().await.unwrap());
    let mut secret = secret(1, "key");
    change(&mut secret);
    secret.sealed = vault.seal(&secret, &value(text)).unwrap();
    let server = Slow { may_answer: Semaphore::new(0), asked: Mutex::default() };
    let clock = Arc::new(SystemClock);
    let credentials =
        Credentials::new(vault, Arc::new(on.store), Arc::new(server), Sources::for_test(), clock);
    let forms = credentials.stored_forms(&ScrubGrant::for_test(secret)).unwrap().unwrap();
    let described = |form: &onecli_model::WireForm| {
        (String::from_utf8(form.expose().to_vec()).unwrap(), form.class().to_string())
    };
    forms.iter().map(described).collect()
}

#[tokio::test]
async fn a_class_is_the_recorded_one_or_follows_from_the_value() {
    let recorded = |secret: &mut Secret| secret.class = Some("token/1024".parse().unwrap());
    for (text, with, without) in
        [("sk-live-canary", "token/1024", "token/128"), ("correct horse", "text/1024", "text/128")]
    {
        let of = |class: &str| [(text.to_owned(), class.to_owned())];
        assert_eq!(searched_for(recorded, text).await, of(with));
        assert_eq!(searched_for(|_| {}, text).await, of(without));
    }
    let sigv4 = |secret: &mut Secret| secret.placement = Placement::sigv4("*/*", Vec::new()).unwrap();
    let sent = searched_for(sigv4, "AKIDEXAMPLE:secret/key:session/token==").await;
    assert_eq!(sent, [("session/token==".to_owned(), "token/16384".to_owned())]);
}
