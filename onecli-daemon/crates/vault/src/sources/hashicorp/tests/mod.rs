//! Tests against a real OpenBao server, and against a failing proxy in front of it.

mod faults;
mod leases;
mod login;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use onecli_sys::{OsRandom, SystemClock};
use onecli_tests::openbao::{OpenBao, ROOT};
use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::*;

/// Stores secret ids and leases as the store would.
#[derive(Debug, Default)]
pub(super) struct Memory {
    kept: Mutex<Option<Vec<u8>>>,
    leases: Mutex<Vec<LeaseNote>>,
}

#[async_trait]
impl SecretIdStore for Memory {
    async fn load(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.kept.lock().clone().map(Zeroizing::new)
    }

    async fn save(&self, content: &[u8]) -> Result<(), String> {
        *self.kept.lock() = Some(content.to_vec());
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for Memory {
    async fn add(&self, lease: &LeaseNote) -> Result<(), String> {
        self.leases.lock().push(lease.clone());
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), String> {
        self.leases.lock().retain(|lease| lease.id != id);
        Ok(())
    }

    async fn all(&self) -> Result<Vec<LeaseNote>, String> {
        Ok(self.leases.lock().clone())
    }
}

pub(super) fn server(part: &str) -> Option<OpenBao> {
    onecli_tests::need::fixture(part, OpenBao::start())
}

/// A file of the server's directory with a token in it.
pub(super) fn token_file(server: &OpenBao, token: &str) -> PathBuf {
    let file = server.dir().join(format!("token-{}", Uuid::new_v4()));
    std::fs::write(&file, format!("{token}\n")).unwrap();
    file
}

pub(super) fn settings(server: &OpenBao, method: Method) -> Settings {
    Settings {
        address: Address::parse(&server.url()).unwrap(),
        namespace: None,
        ca_file: Some(server.ca_file()),
        method,
        timeout: Duration::from_secs(5),
        cache_ttl: Duration::from_secs(30),
        stale_for: Duration::ZERO,
    }
}

pub(super) fn client_of(settings: Settings, memory: &Arc<Memory>) -> Arc<HashiCorp> {
    let (secret_ids, lease_store) = (Arc::clone(memory), Arc::clone(memory));
    let client = HashiCorp::new(settings, secret_ids, lease_store, Arc::new(SystemClock), Arc::new(OsRandom));
    Arc::new(client.unwrap())
}

/// A client that is logged in with this token.
pub(super) fn client(server: &OpenBao, token: &str) -> Arc<HashiCorp> {
    let method = Method::Token { file: token_file(server, token) };
    client_of(settings(server, method), &Arc::default())
}

/// A token that may read the data the tests write, and nothing else.
pub(super) fn reader(server: &OpenBao) -> String {
    policy(server);
    let made = server.root("POST", "auth/token/create", &json!({ "policies": ["reader"], "ttl": "1h" }));
    made["auth"]["client_token"].as_str().unwrap().to_owned()
}

pub(super) fn policy(server: &OpenBao) {
    let rules = r#"
        path "secret/data/open/*" { capabilities = ["read"] }
        path "kv1/open/*" { capabilities = ["read"] }
        path "database/creds/*" { capabilities = ["read"] }
        path "sys/leases/revoke" { capabilities = ["update"] }
    "#;
    server.root("PUT", "sys/policies/acl/reader", &json!({ "policy": rules }));
}

pub(super) fn agent(number: u128) -> AgentId {
    AgentId(Uuid::from_u128(number))
}

pub(super) async fn value(client: &Arc<HashiCorp>, reference: &str) -> Result<String, BackendError> {
    let material = client.fetch(agent(1), &reference.parse().unwrap()).await?;
    Ok(String::from_utf8(material.value.expose().to_vec()).unwrap())
}

pub(super) fn put(server: &OpenBao, path: &str, key: &str) {
    server.root("POST", &format!("secret/data/{path}"), &json!({ "data": { "key": key } }));
}

#[test]
fn debug_never_prints_a_value() {
    const HIDDEN: &str = "hunter22hunter22";
    let field: Field = serde_json::from_str(&format!("\"{HIDDEN}\"")).unwrap();
    let fields: Arc<Fields> = Arc::new([("key".to_owned(), field.clone())].into());
    let read = Read { fields: Arc::clone(&fields), version: Some(1), lease: None };
    let secret = SecretValue::new(HIDDEN.into()).unwrap();
    let material = Material { value: secret, version: None, stale: false };
    let text = |json: serde_json::Value| json.to_string();
    let plain: words::Plain = serde_json::from_str(&text(json!({ "data": { "key": HIDDEN } }))).unwrap();
    let versioned = json!({ "data": { "data": { "key": HIDDEN }, "metadata": { "version": 1 } } });
    let versioned: words::Versioned = serde_json::from_str(&text(versioned)).unwrap();
    let login: words::LoggedIn =
        serde_json::from_str(&text(json!({ "auth": { "client_token": HIDDEN } }))).unwrap();
    let fetched = Expiring { value: read.clone(), usable_for: Duration::ZERO };
    for shown in [
        format!("{field:?} {fields:?} {read:?} {material:?}"),
        format!("{plain:?} {versioned:?} {login:?} {fetched:?}"),
    ] {
        assert!(!shown.contains("hunter22"), "{shown}");
    }
}
