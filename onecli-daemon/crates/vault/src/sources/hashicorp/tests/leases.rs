//! Dynamic secrets from a real database.

use onecli_tests::postgres::{PASSWORD, Postgres};

use super::*;

const USER: &str = "database/creds/ro#username";
const PASS: &str = "database/creds/ro#password";

/// A server that creates users in PostgreSQL.
fn database(server: &OpenBao, postgres: &Postgres, ttl: &str, max: &str) {
    server.root("POST", "sys/mounts/database", &json!({ "type": "database" }));
    let url = format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
        postgres.port()
    );
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": ["ro"], "connection_url": url,
        "username": "postgres", "password": PASSWORD,
    });
    server.root("POST", "database/config/pg", &config);
    let role = json!({
        "db_name": "pg", "default_ttl": ttl, "max_ttl": max,
        "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"],
        "revocation_statements": ["DROP ROLE IF EXISTS \"{{name}}\";"],
    });
    server.root("POST", "database/roles/ro", &role);
    policy(server);
}

fn both(part: &str) -> Option<(OpenBao, Postgres)> {
    let postgres = onecli_tests::need::fixture(part, Postgres::start())?;
    Some((server(part)?, postgres))
}

fn users(postgres: &Postgres) -> usize {
    let sql = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'";
    postgres.query(sql).unwrap().parse().unwrap()
}

async fn text(client: &Arc<HashiCorp>, agent: AgentId, reference: &str) -> String {
    let material = client.fetch(agent, &reference.parse().unwrap()).await.unwrap();
    String::from_utf8(material.value.expose().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_agent_gets_its_own_user_until_it_ends() {
    let Some((server, postgres)) = both("dynamic secrets") else { return };
    database(&server, &postgres, "1h", "24h");
    let method = Method::Token { file: token_file(&server, &reader(&server)) };
    let memory = Arc::new(Memory::default());
    let client = client_of(settings(&server, method.clone()), &memory);

    let (user, password) = (text(&client, agent(1), USER).await, text(&client, agent(1), PASS).await);
    postgres.query_as(&user, &password, "SELECT 1").expect("name and password share one lease");
    let other = text(&client, agent(2), USER).await;
    assert_ne!(user, other);
    assert_eq!(users(&postgres), 2);
    assert_eq!(memory.leases.lock().len(), 2);

    client.end_agent(agent(1)).await;
    assert_eq!(users(&postgres), 1);
    postgres.query_as(&user, &password, "SELECT 1").expect_err("revoked");
    assert_ne!(text(&client, agent(1), USER).await, user, "a new session, a new user");
    assert_eq!(client.status().await.leases, 2);

    // The daemon crashed: the next one revokes its leases.
    drop(client);
    let next = client_of(settings(&server, method), &memory);
    let own = text(&next, agent(3), USER).await;
    assert_eq!(next.give_back_orphans().await, Ok(2));
    assert_eq!(users(&postgres), 1);
    assert_eq!(text(&next, agent(3), USER).await, own, "the other agent's user stays");
    assert_eq!(memory.leases.lock().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_revocation_is_retried_later() {
    let Some((server, postgres)) = both("giving back later") else { return };
    database(&server, &postgres, "1h", "24h");
    let method = Method::Token { file: token_file(&server, ROOT) };
    let memory = Arc::new(Memory::default());
    let client = client_of(settings(&server, method), &memory);
    text(&client, agent(1), USER).await;
    server.seal();
    client.end_agent(agent(1)).await;
    assert_eq!(memory.leases.lock().len(), 1, "still stored");
    server.unseal();
    assert_eq!(client.give_back_orphans().await, Ok(1));
    assert_eq!(users(&postgres), 0);
    assert!(memory.leases.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_lease_is_renewed_while_used_and_revoked_when_unused() {
    let Some((server, postgres)) = both("renewing leases") else { return };
    database(&server, &postgres, "6s", "1h");
    let method = Method::Token { file: token_file(&server, ROOT) };
    let memory = Arc::new(Memory::default());
    let client = client_of(settings(&server, method), &memory);
    let first = text(&client, agent(1), USER).await;
    text(&client, agent(2), USER).await;
    let used = async {
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(text(&client, agent(1), USER).await, first, "past the 6 s of its first time");
        }
    };
    tokio::select! {
        () = client.maintain() => {}
        () = used => {}
    }
    assert_eq!(users(&postgres), 1, "the unused one is gone");
    assert_eq!(memory.leases.lock().len(), 1);
}
