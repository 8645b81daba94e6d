//! Values that the store does not hold: a real OpenBao, a real PostgreSQL behind it, files.

use std::path::PathBuf;
use std::time::Duration;

use onecli_tests::client::{self, Outcome, Run};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::openbao::OpenBao;
use onecli_tests::postgres::{PASSWORD, Postgres};
use onecli_tests::upstream::Upstream;
use onecli_tests::{canary, need, wait_for};
use serde_json::{Value, json};

const API: &str = "api.test";
/// A token that the upstream's `/accept/N` accepts.
const FIRST: &str = "minted-token-1";
const SECOND: &str = "minted-token-2";

struct World {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
    bao: OpenBao,
}

/// A file with a token that may read the test's secrets.
fn token(bao: &OpenBao) -> PathBuf {
    let rules = r#"
        path "secret/data/*" { capabilities = ["read"] }
        path "database/creds/*" { capabilities = ["read"] }
        path "sys/leases/revoke" { capabilities = ["update"] }
        path "sys/leases/renew" { capabilities = ["update"] }
    "#;
    bao.root("PUT", "sys/policies/acl/onecli", &json!({ "policy": rules }));
    let made = bao.root("POST", "auth/token/create", &json!({ "policies": ["onecli"], "ttl": "1h" }));
    let token = made["auth"]["client_token"].as_str().unwrap();
    canary::watch(token);
    let file = bao.dir().join("token");
    std::fs::write(&file, token).unwrap();
    file
}

fn put(bao: &OpenBao, path: &str, data: &Value) {
    for value in data.as_object().unwrap().values().filter_map(Value::as_str) {
        canary::watch(value);
    }
    bao.root("POST", &format!("secret/data/{path}"), &json!({ "data": data }));
}

impl World {
    /// A daemon that reads from a vault server. `more` adds lines to `[backend.vault]`.
    fn new(part: &str, more: &str) -> Option<World> {
        let bao = need::fixture(part, OpenBao::start())?;
        let upstream = Upstream::start(&[API]);
        let config = format!(
            "[backend.vault]\naddress = \"{}\"\nca_file = \"{}\"\n{more}\n\
             auth = {{ method = \"token\", token_file = \"{}\" }}\n",
            // A name, so that the daemon resolves it.
            bao.url().replace("127.0.0.1", "localhost"),
            bao.ca_file().display(),
            token(&bao).display(),
        );
        let daemon = Daemon::builder().upstream(&upstream).config(&config).start();
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        Some(World { daemon, upstream, agent, bao })
    }

    /// Adds a secret without a value and grants it to the agent.
    fn add(&self, name: &str, options: &[&str]) {
        let host = format!("{API}:{}", self.upstream.https_addr().port());
        let all = [&["--json", "secret", "add", name, "--host", &host], options].concat();
        let _ = self.daemon.onecli(&all).ok("secret add");
        let _ = self.daemon.grant(&self.agent, name);
    }

    fn run(&self, path: &str, args: &[&str]) -> Run {
        self.daemon.explicit(&self.agent.token, client::curl(&self.upstream.https_url(API, path)).args(args))
    }

    fn ask(&self, path: &str, args: &[&str]) -> Outcome {
        self.run(path, args).outcome()
    }

    /// The status and the text of a response.
    fn answer(&self, path: &str) -> (u16, String) {
        let reply = self.ask(path, &[]).reply();
        (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    }

    fn echoed(&self) -> String {
        let (status, body) = self.answer("/echo");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The last `Authorization` that the API received.
    fn authorization(&self) -> Option<String> {
        let seen = self.upstream.requests().pop()?;
        seen.header("authorization").map(str::to_owned)
    }
}

#[test]
fn value_from_a_vault_server_follows_its_rotation() {
    let Some(world) = World::new("values of a vault server", "cache_ttl = \"1h\"") else { return };
    put(&world.bao, "api", &json!({ "key": FIRST, "other": "an-unused-value" }));
    world.add("api", &["--bearer", "--vault", "secret/api#key"]);
    let shown = world.daemon.onecli_json(&["secret", "show", "api"]);
    assert_eq!(shown["profile"]["source"]["vault"], "secret/api#key", "{shown}");
    let out = world.echoed();
    assert_eq!(world.authorization().as_deref(), Some("Bearer minted-token-1"));
    assert!(!out.contains(FIRST), "scrubbed: {out}");
    let outcome = world.daemon.audit_until("the outcome", |r| r["event"] == "outcome");
    assert_eq!(outcome["backend"], "vault@1", "{outcome}");

    // A rotation at the source takes effect at once, because the API refuses the old value. The daemon then sends the
    // agent's request a second time instead of refusing it.
    put(&world.bao, "api", &json!({ "key": SECOND }));
    world.upstream.clear();
    let (status, _) = world.answer("/accept/2");
    assert_eq!((status, world.upstream.requests().len()), (200, 2));
    assert_eq!(world.authorization().as_deref(), Some("Bearer minted-token-2"));
    // A client that knows the old value still cannot see it, nor the new one.
    let out = world.ask("/echo", &["--header", "X-Old: minted-token-1"]).ok("curl");
    assert!(!out.contains(FIRST) && !out.contains(SECOND), "{out}");

    let status = world.daemon.onecli_json(&["vault", "status"]);
    assert_eq!((&status["sealed"], &status["fault"]), (&json!(false), &Value::Null), "{status}");
    // The daemon cannot change the secret's value.
    let refused = world.daemon.home().cli(&["secret", "rotate", "api", "--value-stdin"]).stdin("sk-12345678");
    let refused = refused.outcome();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("vault:secret/api#key"), "{refused:?}");
}

#[test]
fn sealed_server_is_reported_and_a_stale_value_serves_only_if_configured() {
    let Some(world) = World::new("a sealed vault server", "cache_ttl = \"1s\"") else { return };
    put(&world.bao, "api", &json!({ "key": FIRST }));
    world.add("api", &["--bearer", "--vault", "secret/api#key"]);
    world.echoed();
    world.bao.seal();
    std::thread::sleep(Duration::from_millis(1200));
    let before = world.upstream.requests().len();
    let (status, body) = world.answer("/echo");
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("secret_unavailable") && body.contains("vault server is sealed"), "{body}");
    assert!(body.contains("not OneCLI"), "{body}");
    assert_eq!(world.upstream.requests().len(), before, "no request is sent without the value");
    let view = world.daemon.onecli_json(&["vault", "status"]);
    assert_eq!(view["sealed"], true, "{view}");
    world.bao.unseal();
    let up = wait_for(Duration::from_secs(20), || (world.answer("/echo").0 == 200).then_some(()));
    assert!(up.is_some(), "the daemon does not recover");
}

#[test]
fn stale_value_is_served_for_the_configured_time_and_reported() {
    let more = "cache_ttl = \"1s\"\nstale_for = \"1h\"";
    let Some(world) = World::new("stale values", more) else { return };
    put(&world.bao, "api", &json!({ "key": FIRST }));
    world.add("api", &["--bearer", "--vault", "secret/api#key"]);
    world.echoed();
    world.bao.seal();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(world.answer("/echo").0, 200);
    let _ = world.daemon.audit_until("a stale value", |r| r["backend"] == "vault@1 stale");
    // If the API refuses the only known value, the daemon still retains it.
    assert_eq!((world.answer("/accept/2").0, world.answer("/echo").0), (401, 200));
}

/// A database whose users OpenBao creates.
fn database(bao: &OpenBao) -> Option<Postgres> {
    let postgres = need::fixture("dynamic secrets", Postgres::start())?;
    bao.root("POST", "sys/mounts/database", &json!({ "type": "database" }));
    let url = format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
        postgres.port()
    );
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": ["ro"], "connection_url": url,
        "username": "postgres", "password": PASSWORD,
    });
    bao.root("POST", "database/config/pg", &config);
    let role = json!({
        "db_name": "pg", "default_ttl": "1h", "max_ttl": "24h",
        "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"],
        "revocation_statements": ["DROP ROLE IF EXISTS \"{{name}}\";"],
    });
    bao.root("POST", "database/roles/ro", &role);
    Some(postgres)
}

fn users(postgres: &Postgres) -> usize {
    postgres.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").unwrap().parse().unwrap()
}

fn until_users(postgres: &Postgres, expected: usize, what: &str) {
    let there = wait_for(Duration::from_secs(20), || (users(postgres) == expected).then_some(()));
    assert!(there.is_some(), "{what}: {} users, not {expected}", users(postgres));
}

#[test]
fn database_user_of_an_agent_ends_with_the_agent_and_with_the_daemon() {
    let Some(mut world) = World::new("dynamic secrets", "") else { return };
    let Some(postgres) = database(&world.bao) else { return };
    world.add("db", &["--basic", "app", "--path", "/echo", "--vault", "database/creds/ro#password"]);
    put(&world.bao, "api", &json!({ "key": FIRST }));
    world.add("api", &["--bearer", "--path", "/accept/*", "--vault", "secret/api#key"]);
    assert_eq!(
        (world.answer("/accept/1").0, users(&postgres)),
        (200, 0),
        "no user is created for scrubbing alone"
    );
    let other = world.daemon.add_agent("other", &["--factors", "token"]);
    let _ = world.daemon.grant(&other, "db");
    world.echoed();
    world.echoed();
    assert_eq!(users(&postgres), 1, "the agent's user is reused");
    let url = world.upstream.https_url(API, "/echo");
    assert_eq!(world.daemon.explicit(&other.token, client::curl(&url)).outcome().reply().status, 200);
    assert_eq!(users(&postgres), 2, "each agent has its own user");

    let _ = world.daemon.onecli(&["agent", "disable", "agent"]).ok("disable");
    until_users(&postgres, 1, "disabled");
    // The daemon is killed while it holds a lease: the next start revokes the lease.
    world.daemon.kill();
    assert_eq!(users(&postgres), 1);
    world.daemon.restart();
    until_users(&postgres, 0, "orphans");
    let _ = world.daemon.onecli(&["agent", "enable", "agent"]).ok("enable");
    world.echoed();
    assert_eq!(users(&postgres), 1, "a new session gets a new user");
}

#[test]
fn database_user_of_an_agent_ends_with_its_run() {
    if !need::bpf("the end of an agent's run") {
        return;
    }
    let Some(world) = World::new("dynamic secrets", "") else { return };
    let Some(postgres) = database(&world.bao) else { return };
    let inside = world.daemon.add_agent("inside", &["--factors", "cgroup", "--user", "nobody"]);
    world.add("db", &["--basic", "app", "--vault", "database/creds/ro#password"]);
    let _ = world.daemon.grant(&inside, "db");
    let run = client::curl(&world.upstream.https_url(API, "/echo"));
    assert_eq!(world.daemon.managed(&inside, &run).outcome().reply().status, 200);
    assert_eq!(users(&postgres), 1);
    until_users(&postgres, 0, "its cgroup is empty");
}

/// Changes the location in a stored secret, and prints the stored data.
const SCRIPT: &str = "import sqlite3, sys\n\
    db = sqlite3.connect(sys.argv[1])\n\
    done = db.execute(\"UPDATE secrets SET profile = replace(profile, 'secret/api#key', 'secret/admin#key')\")\n\
    db.commit()\n\
    print(db.execute('SELECT profile FROM secrets').fetchone()[0])\n";

#[test]
fn row_changed_in_the_database_fetches_nothing() {
    let Some(mut world) = World::new("an edited source", "") else { return };
    put(&world.bao, "api", &json!({ "key": FIRST }));
    put(&world.bao, "admin", &json!({ "key": "the-admin-password" }));
    world.add("api", &["--bearer", "--vault", "secret/api#key"]);
    world.daemon.kill();
    let database = world.daemon.home().data_dir().join("onecli.db");
    let edited = Run::new("python3").args(["-c", SCRIPT]).arg(&database).outcome().ok("edit");
    assert!(edited.contains("secret/admin#key"), "{edited}");
    world.daemon.restart();
    let (status, body) = world.answer("/echo");
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("cannot be decrypted"), "{body}");
    assert!(world.upstream.requests().is_empty());
}

#[test]
fn values_are_imported_by_templates() {
    let Some(world) = World::new("import", "") else { return };
    let (key, other) = ("sk-imported-0815-0123456789", "sk-ant-imported-0816-0123456789");
    put(&world.bao, "team", &json!({ "openai_api_key": key, "colour": "not-a-credential" }));
    let first = world.daemon.onecli_json(&["vault", "import", "secret/team"]);
    let end = |all: &Value, name: &str| {
        let all = all.as_array().unwrap();
        all.iter().find(|one| one["name"] == name).map(|one| one["end"].clone())
    };
    assert_eq!(end(&first, "openai_api_key"), Some(json!("added")), "{first}");
    assert_eq!(end(&first, "colour"), Some(json!("skipped")), "{first}");
    let again = world.daemon.onecli_json(&["vault", "import", "secret/team"]);
    assert_eq!(end(&again, "openai_api_key"), Some(json!("unchanged")), "{again}");
    put(&world.bao, "team", &json!({ "openai_api_key": "sk-imported-0817-0123456789" }));
    let skipped = world.daemon.onecli_json(&["vault", "import", "secret/team"]);
    assert_eq!(end(&skipped, "openai_api_key"), Some(json!("skipped")), "{skipped}");
    let rotated = world.daemon.onecli_json(&["vault", "import", "secret/team", "--replace"]);
    assert_eq!(end(&rotated, "openai_api_key"), Some(json!("rotated")), "{rotated}");
    let shown = world.daemon.onecli_json(&["secret", "show", "openai"]);
    assert_eq!((&shown["version"], &shown["profile"]["template"]), (&json!(2), &json!("openai")), "{shown}");

    let file = world.bao.dir().join("env");
    std::fs::write(&file, format!("# keys\nexport ANTHROPIC_API_KEY=\"{other}\"\nDEBUG=1\n")).unwrap();
    canary::watch(other);
    let file = file.to_str().unwrap();
    let imported = world.daemon.onecli_json(&["secret", "import", file]);
    assert_eq!(end(&imported, "ANTHROPIC_API_KEY"), Some(json!("added")), "{imported}");
    assert_eq!(end(&imported, "DEBUG"), Some(json!("skipped")), "{imported}");
}

#[test]
fn file_is_read_at_each_use_and_only_root_may_configure_one() {
    if !need::root("files as sources") {
        return;
    }
    let upstream = Upstream::start(&[API]);
    let daemon = Daemon::for_upstream(&upstream);
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, format!("{FIRST}\n")).unwrap();
    canary::watch(FIRST);
    let host = format!("{API}:{}", upstream.https_addr().port());
    let path = file.to_str().unwrap();
    let _ =
        daemon.onecli(&["secret", "add", "f", "--host", &host, "--bearer", "--file", path]).ok("secret add");
    let _ = daemon.grant(&agent, "f");
    let ask = |path: &str| {
        let curl = client::curl(&upstream.https_url(API, path));
        daemon.explicit(&agent.token, curl).outcome().reply().status
    };
    assert_eq!(ask("/accept/1"), 200);
    std::fs::write(dir.path().join("new"), SECOND).unwrap();
    std::fs::rename(dir.path().join("new"), &file).unwrap();
    assert_eq!(ask("/accept/2"), 200);
    let _ = daemon.audit_until("the file", |r| r["backend"] == "file");
    std::fs::remove_file(&file).unwrap();
    let before = upstream.requests().len();
    assert_eq!((ask("/echo"), upstream.requests().len()), (502, before));
}
