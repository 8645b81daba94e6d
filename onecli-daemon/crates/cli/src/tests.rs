//! Tests of the command line, and of commands against a real admin server.

mod agent_set;
mod runners;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};
use onecli_admin::testing::{FakeDaemon, Served, root};
use onecli_api::Transparent;
use onecli_api::{
    AgentAdd, AgentDetail, AgentRemoved, AgentToken, AgentView, AuditFilter, AuditQuery, Ca, EnvName,
    GrantView, Import, ImportOptions, KeyRotate, KeyRotated, KeyView, NamedValue, RecoveryKey, SecretAdd,
    SecretRotate, SecretView, Session, SessionRequest, SlotAdd, SlotAdded, SlotView, Status, WireKey,
    WireValue, routes,
};
use onecli_launch::{AgentEnvironment, LaunchUser, environment};
use onecli_model::{Egress, Factors, MaskIssued, Placement, Profile, SecretValue, Token};

use crate::args::{Args, Command};
use crate::client::{Client, ClientError};
use crate::commands::secret::SecretCommand;
use crate::input::value_args::ValueArgs;
use crate::unparsed::names_run;

const VALUE: &str = "sk-the-real-credential";

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(std::iter::once("onecli").chain(line.split(' ').filter(|word| !word.is_empty())))
}

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn command_lines() {
    for good in [
        "status",
        "--json status",
        "status --json",
        "doctor",
        "doctor --json --config /etc/onecli/config.toml",
        "--socket /x status",
        "agent add a",
        "agent add a --factors token,cgroup --cgroup a.slice --user u --egress allow",
        "agent list",
        "agent show a",
        "secret add s --host api.x.com --bearer",
        "secret add s --host *.x.com:8443 --basic u --value-stdin --env A_B --allow-plaintext",
        "secret add s --host [::1]:1 --query key --path /v1/** --path /x --method get --method POST",
        "secret add s --host ::1 --header A:{secret} --value-file f",
        "secret rotate s --value-stdin",
        "secret rotate s --compromised --value-file f",
        "secret rollback s",
        "secret edit s --path /v1/** --method get --env A,B",
        "secret edit s --host api.x.com:8443 --basic u --allow-plaintext no --if-version 3 --value-stdin",
        "secret edit s --all-methods --no-env",
        "secret import f --replace --dry-run",
        "vault import secret/team --replace --dry-run",
        "grant a s",
        "ungrant a s",
        "audit list --limit 5 --agent a",
        "audit tail -f -n 0",
        "audit list --host api.test --verdict deny --event alert --code egress_denied --since 1h --until 2026-01-02",
        "audit list --decision inject --request 0198c5a2-0000-7000-8000-000000000001",
        "audit export --format csv --since 7d",
        "audit verify --dir /x --witness a --witness b",
        "ca export",
        "ca show",
        "ca rotate",
        "ca rotate --finish",
        "key status",
        "key add-key-file",
        "key add-key -",
        "key add-passphrase --passphrase-file f",
        "key add-recovery",
        "key remove-slot 2",
        "key rotate --drop-other-slots --no-wait",
        "backup f",
        "restore f --dry-run --data-dir d --config c --passphrase-file p",
        "run -- true",
        "run --agent a true",
        "setup --agent a --recipe npm --host a.test --import gh --import netrc --yes",
        "secret test s --path /x --method HEAD",
        "run --agent a -- true --json",
        "run --agent a --user u --keep-env A --keep-env B -- sh -c true",
    ] {
        assert!(parse(good).is_ok(), "{good}: {}", parse(good).unwrap_err());
    }
    for bad in [
        "",
        "agent",
        "agent add",
        "agent add A",
        "agent add a --factors charm",
        "agent add a --cgroup a/b",
        "agent add a --egress maybe",
        "secret add s --bearer",
        "secret add s --host api.x.com",
        "secret add s --host api.x.com --bearer --query k",
        "secret add s --host *.com --bearer",
        "secret add s --host a.b:0 --bearer",
        "secret add s --host a.b:99999 --bearer",
        "secret add s --host [::1 --bearer",
        "secret add s --host [::1]x --bearer",
        "secret add s --host a.b --bearer --path x",
        "secret add s --host a.b --bearer --method TRACE",
        "secret add s --host a.b --bearer --env path",
        "secret add s --host a.b --bearer --value-stdin --value-file f",
        "secret add s --host a.b --bearer --value sk-on-the-command-line",
        "secret edit s",
        "secret edit s --value-stdin",
        "secret edit s --method get --all-methods",
        "secret edit s --env A --no-env",
        "secret edit s --bearer --query k",
        "secret edit s --allow-plaintext maybe",
        "grant a",
        "audit list --limit 0",
        "audit list --since yesterday-ish",
        "audit list --verdict maybe",
        "audit export --format xml",
        "audit verify --public-key x",
        "run",
        "setup --host a.test",
        "secret test s --method GET",
        "run --agent a",
        "run --agent a --",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn hosts_and_ports_are_parsed() {
    let check = |text: &str, host: &str, port: u16| {
        let Command::Secret(SecretCommand::Add(args)) =
            parse(&format!("secret add s --bearer --host {text}")).unwrap().command
        else {
            panic!("{text}");
        };
        let resolved = args.resolve().unwrap();
        assert_eq!((resolved.host.to_string().as_str(), resolved.port), (host, port), "{text}");
    };
    check("API.x.com", "api.x.com", 443);
    check("api.x.com:8443", "api.x.com", 8443);
    check("**.x.com:80", "**.x.com", 80);
    check("2001:db8::1", "2001:db8::1", 443);
    check("[2001:db8::1]:444", "2001:db8::1", 444);
    check("127.0.0.1:1", "127.0.0.1", 1);
}

#[test]
fn usage_errors_of_run_have_their_own_exit_code() {
    let check = |line: &str, expected: bool| {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        assert_eq!(names_run(&words), expected, "{line}");
    };
    check("onecli run", true);
    check("onecli --json --socket /x run --nope", true);
    check("onecli --socket=/x run", true);
    check("onecli agent run", false);
    check("onecli --socket run status", false);
    check("onecli", false);
}

/// A placeholder must not replace a variable that `run` sets itself.
#[test]
fn secret_cannot_use_a_variable_that_run_sets() {
    let Ok(user) = LaunchUser::find("nobody") else {
        println!("not run: variables of run's own (there is no user 'nobody')");
        return;
    };
    let agent = AgentEnvironment {
        ca_bundle: "/ca".into(),
        placeholders: BTreeMap::new(),
        own_view: true,
        proxy: Some("http://x".to_owned()),
    };
    for (name, _) in environment([], &[], &user, &agent).unwrap() {
        assert!(name.to_str().unwrap().parse::<EnvName>().is_err(), "{name:?}");
    }
}

fn add_agent(
    client: &Client,
    name: &str,
    change: impl FnOnce(&mut AgentAdd),
) -> Result<AgentToken, ClientError> {
    let mut request = AgentAdd {
        name: name.parse().unwrap(),
        factors: None,
        cgroup: None,
        user: None,
        egress: Egress::Deny,
        runners: Vec::new(),
        allow_git_config: false,
    };
    change(&mut request);
    client.post(routes::AGENTS, &request)
}

fn value(text: &str) -> WireValue {
    WireValue(SecretValue::new(text.as_bytes().to_vec()).unwrap())
}

fn add_secret(client: &Client, name: &str, env: Option<&str>) -> Result<SecretView, ClientError> {
    let request = SecretAdd {
        name: name.parse().unwrap(),
        host: "api.test".parse().unwrap(),
        port: 443,
        methods: vec!["GET".to_owned()].try_into().unwrap(),
        paths: Vec::new(),
        placement: Placement::bearer(),
        profile: Profile::default(),
        env: env.map(|env| env.parse().unwrap()),
        allow_plaintext: false,
        value: Some(value(VALUE)),
        force: false,
    };
    client.post(routes::SECRETS, &request)
}

fn grant(client: &Client, agent: &str, secret: &str) -> Result<GrantView, ClientError> {
    client.put(&routes::grant(&agent.parse().unwrap(), &secret.parse().unwrap()))
}

fn session(client: &Client, agent: &str, user: Option<&str>) -> Result<Session, ClientError> {
    let request = SessionRequest { user: user.map(str::to_owned), caller: None, recipe: None };
    client.post(&routes::agent_action(&agent.parse().unwrap(), "session"), &request)
}

/// Checks that a refusal contains the words.
fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");
    let report = error.report();
    let text = format!("{}\n{}", report.message, report.hint);
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn agents_are_added_changed_and_removed() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    let name = "a".parse().unwrap();

    let added = add_agent(&client, "a", |_| {}).unwrap();
    assert_eq!((added.agent.factors, added.agent.generation), (Factors::BOTH, 1));
    assert_eq!(added.agent.cgroup.as_str(), "onecli-agents-a.slice");
    assert_eq!(served.host().cgroups(), ["onecli-agents-a.slice"]);
    assert_eq!(served.host().reloads(), 1);
    let token = Token::parse(&added.token).unwrap();
    assert_eq!(served.state().agents[0].token_hash, served.vault().token_hash(&token));

    refused(add_agent(&client, "a", |_| {}), &["agent 'a' already exists", "onecli agent rotate a"]);
    let same_cgroup =
        |request: &mut AgentAdd| request.cgroup = Some("onecli-agents-a.slice".parse().unwrap());
    refused(add_agent(&client, "b", same_cgroup), &["belongs to agent 'a'", "--cgroup"]);
    refused(add_agent(&client, "b", |r| r.user = Some("root".to_owned())), &["never runs as root"]);
    refused(add_agent(&client, "b", |r| r.user = Some("0".to_owned())), &["never runs as root"]);
    refused(add_agent(&client, "b", |r| r.user = Some("no-such-user".to_owned())), &["useradd"]);
    add_agent(&client, "b", |r| {
        r.user = Some("nobody".to_owned());
        r.factors = Some(Factors::CGROUP);
        r.egress = Egress::Allow;
    })
    .unwrap();
    let same_user = |request: &mut AgentAdd| request.user = Some("65534".to_owned());
    refused(add_agent(&client, "c", same_user), &["belongs to agent 'b'"]);

    let agents: Vec<AgentView> = client.get(routes::AGENTS).unwrap();
    assert_eq!(agents.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);

    let rotated: AgentToken = client.post_empty(&routes::agent_action(&name, "rotate")).unwrap();
    assert_eq!(rotated.agent.generation, 2);
    assert_ne!(rotated.token, added.token);
    let disabled: AgentView = client.post_empty(&routes::agent_action(&name, "disable")).unwrap();
    assert!(!disabled.enabled);
    refused(session(&client, "a", Some("daemon")), &["agent 'a' is disabled", "onecli agent enable a"]);
    let enabled: AgentView = client.post_empty(&routes::agent_action(&name, "enable")).unwrap();
    assert!(enabled.enabled);

    served.host().populate("onecli-agents-a.slice", true);
    let before = served.host().reloads();
    refused(
        client.delete::<AgentRemoved>(&routes::agent(&name)),
        &["processes run as agent 'a'", "--kill", "onecli agent disable a"],
    );
    refused(client.delete::<AgentRemoved>(&format!("{}?kill=1", routes::agent(&name))), &["'kill=1'"]);
    assert_eq!(served.host().reloads(), before, "nothing was changed");
    let kill = format!("{}?{}", routes::agent(&name), routes::KILL);
    let removed: AgentRemoved = client.delete(&kill).unwrap();
    assert_eq!(removed.cgroup_left.as_deref(), Some("processes do not end"));
    assert_eq!(served.host().reloads(), before + 1);
    // Existing processes must not become the next agent of that cgroup, with a default or an explicit name.
    let lived_in =
        &["'onecli-agents-a.slice' already contains processes", "onecli-agents-a.slice/cgroup.kill"];
    refused(add_agent(&client, "a", |_| {}), lived_in);
    let other = |r: &mut AgentAdd| r.cgroup = Some("onecli-agents-a.slice".parse().unwrap());
    refused(add_agent(&client, "c", other), lived_in);
    served.host().populate("onecli-agents-b.slice", false);
    let kill = format!("{}?{}", routes::agent(&"b".parse().unwrap()), routes::KILL);
    assert_eq!(client.delete::<AgentRemoved>(&kill).unwrap().cgroup_left, None);
    add_agent(&client, "a", |_| {}).unwrap();
    client.delete::<AgentRemoved>(&routes::agent(&name)).unwrap();
    refused(
        client.get::<AgentDetail>(&routes::agent(&name)),
        &["there is no agent 'a'", "onecli agent list"],
    );
}

#[test]
fn secrets_are_stored_and_granted() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    let (agent, secret) = ("a".parse().unwrap(), "s".parse().unwrap());
    add_agent(&client, "a", |r| r.user = Some("nobody".to_owned())).unwrap();

    let added = add_secret(&client, "s", Some("API_KEY")).unwrap();
    assert_eq!((added.version, added.paths[0].to_string().as_str()), (1, "/**"));
    refused(
        add_secret(&client, "s", None),
        &["secret 's' already exists", "onecli secret edit s", "onecli secret rotate s"],
    );
    add_secret(&client, "other", Some("API_KEY")).unwrap();
    add_secret(&client, "silent", None).unwrap();

    let given = grant(&client, "a", "s").unwrap();
    assert!(given.placeholder.starts_with("onecli_ph_") && given.env.as_deref() == Some("API_KEY"));
    assert_eq!(grant(&client, "a", "s").unwrap(), given, "granting again changes nothing");
    refused(grant(&client, "a", "other"), &["already reads secret 's' from API_KEY", "onecli ungrant a s"]);
    refused(grant(&client, "a", "none"), &["there is no secret 'none'"]);
    refused(grant(&client, "none", "s"), &["there is no agent 'none'"]);
    grant(&client, "a", "silent").unwrap();

    let detail: AgentDetail = client.get(&routes::agent(&agent)).unwrap();
    assert_eq!(detail.secrets[0], given);
    assert_eq!(detail.secrets.len(), 2);
    let with_grants: SecretView = client.get(&routes::secret(&secret)).unwrap();
    assert_eq!(with_grants.agents, std::slice::from_ref(&agent));

    let session = session(&client, "a", None).unwrap();
    assert_eq!(session.cgroup, Some(PathBuf::from("/cgroups/onecli-agents-a.slice")));
    assert_eq!(session.placeholders, BTreeMap::from([("API_KEY".to_owned(), given.placeholder.clone())]));
    assert_eq!((session.user.as_str(), &session.proxy, session.expires), ("nobody", &None, None));

    let path = routes::secret_action(&secret, "rotate");
    let rotate = SecretRotate { value: value("sk-another-credential"), compromised: false, force: false };
    let rotated: SecretView = client.post(&path, &rotate).unwrap();
    assert_eq!(rotated.version, 2);
    assert_eq!(grant(&client, "a", "s").unwrap().placeholder, given.placeholder);
    let off: SecretView = client.post_empty(&routes::secret_action(&secret, "disable")).unwrap();
    assert!(!off.enabled);
    let on: SecretView = client.post_empty(&routes::secret_action(&secret, "enable")).unwrap();
    assert!(on.enabled);

    client.delete::<GrantView>(&routes::grant(&agent, &secret)).unwrap();
    refused(client.delete::<GrantView>(&routes::grant(&agent, &secret)), &["has no grant for secret 's'"]);
    client.delete::<SecretView>(&routes::secret(&secret)).unwrap();
    refused(client.get::<SecretView>(&routes::secret(&secret)), &["there is no secret 's'"]);

    let stored = format!("{:?}", served.state());
    assert!(!stored.contains(VALUE) && !stored.contains("sk-another"));
    assert!(served.state().secrets.iter().all(|secret| !secret.sealed.0.is_empty()));
}

#[test]
fn refused_sessions_name_the_obstacle() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    add_agent(&client, "a", |_| {}).unwrap();
    add_agent(&client, "b", |r| r.user = Some("nobody".to_owned())).unwrap();
    refused(session(&client, "a", None), &["agent 'a' has no user", "--user"]);
    refused(session(&client, "a", Some("root")), &["never runs as root"]);
    refused(session(&client, "a", Some("nobody")), &["belongs to agent 'b'"]);
    assert!(session(&client, "b", Some("nobody")).is_ok());
    served.host().break_links("the link of connect4 is gone; restart onecli-daemon");
    refused(session(&client, "b", None), &["the link of connect4 is gone"]);
}

#[test]
fn session_without_ebpf_is_a_proxy_token() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::without_ebpf());
    let client = Client::new(served.socket());
    let added = add_agent(&client, "a", |r| r.user = Some("nobody".to_owned())).unwrap();
    assert_eq!(added.agent.factors, Factors::TOKEN);
    assert!(served.host().cgroups().is_empty());
    add_agent(&client, "b", |r| r.factors = Some(Factors::BOTH)).unwrap();
    refused(
        session(&client, "b", Some("daemon")),
        &["requires token+cgroup", "--no-ebpf", "start the daemon without it", "--factors token"],
    );

    let before = served.host().reloads();
    let granted = session(&client, "a", None).unwrap();
    assert_eq!(served.host().reloads(), before + 1);
    assert_eq!(granted.cgroup, None);
    let proxy = granted.proxy.unwrap();
    let token = proxy.strip_prefix("http://a:").unwrap().strip_suffix("@127.0.0.1:10255").unwrap();
    let token = Token::parse(token).unwrap();
    let stored = served.state().sessions;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].token_hash, served.vault().token_hash(&token));
    assert_eq!(Some(stored[0].expires), granted.expires);
}

#[test]
fn status_ca_and_audit_are_returned() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    served.host().break_links("gone");
    let status: Status = client.get(routes::STATUS).unwrap();
    assert_eq!((status.transparent, status.agents), (Transparent::Available, Some(0)));
    assert_eq!(status.transparent_fault.as_deref(), Some("gone"));
    assert_eq!(status.counters["requests"], 3);
    assert!(client.get::<Ca>(routes::CA).unwrap().pem.starts_with("-----BEGIN"));

    for seq in 1..=5 {
        served.add_audit(seq, if seq % 2 == 0 { "even" } else { "odd" });
    }
    let list = |agent: Option<&str>, limit| {
        let agent = agent.map(|agent| agent.parse().unwrap());
        let filter = AuditFilter { agent, ..AuditFilter::default() };
        let query = AuditQuery { filter, limit, ..AuditQuery::default() };
        let mut seqs = Vec::new();
        let read = client.lines(&format!("{}?{}", routes::AUDIT, query.to_query()), |line| {
            seqs.push(seq_of(line));
            Ok::<_, ClientError>(())
        });
        read.unwrap();
        seqs
    };
    assert_eq!(list(None, 100), [1, 2, 3, 4, 5]);
    assert_eq!(list(None, 2), [4, 5]);
    assert_eq!(list(Some("even"), 100), [2, 4]);
    assert_eq!(list(Some("nobody"), 100), [0; 0]);
    let all = AuditQuery { all: true, ..AuditQuery::default() };
    let mut seqs = Vec::new();
    let exported = client.lines(&format!("{}?{}", routes::AUDIT, all.to_query()), |line| {
        seqs.push(seq_of(line));
        Ok::<_, ClientError>(())
    });
    exported.unwrap();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);

    // Following: one earlier record, then each new one, until the reader has enough.
    let seen = RefCell::new(Vec::new());
    let query = AuditQuery { limit: 1, follow: true, ..AuditQuery::default() };
    let followed = client.lines(&format!("{}?{}", routes::AUDIT, query.to_query()), |line| {
        seen.borrow_mut().push(seq_of(line));
        let next = seen.borrow().len() as u64 + 5;
        if next > 8 {
            return Err(ClientError::Timeout(std::time::Duration::ZERO));
        }
        std::thread::scope(|scope| scope.spawn(|| served.add_audit(next, "odd")).join().unwrap());
        Ok(())
    });
    assert!(matches!(followed, Err(ClientError::Timeout(_))));
    assert_eq!(seen.into_inner(), [5, 6, 7, 8]);
}

fn seq_of(line: &[u8]) -> u64 {
    serde_json::from_slice::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap()
}

#[test]
fn missing_daemon_is_exit_code_3() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let error = Client::new(socket.clone()).get::<Status>(routes::STATUS).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
    // A socket left behind by a killed daemon.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(Client::new(socket).get::<Status>(routes::STATUS).unwrap_err().exit_code(), 3);
}

#[test]
fn refused_peer_is_exit_code_4() {
    if !root("commands against the admin server") {
        return;
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own =
        own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_matches('/').to_owned();
    let served = Served::with_agents_root(FakeDaemon::redirecting(), &own);
    let error = Client::new(served.socket()).get::<Status>(routes::STATUS).unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    // The same check for a request with a body that the server does not read.
    let error = add_secret(&Client::new(served.socket()), "s", None).unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
}

#[test]
fn missing_value_file_is_named() {
    let error = crate::input::value::read(&ValueArgs {
        value_stdin: false,
        value_file: Some("/none".into()),
        force: false,
    })
    .unwrap_err();
    assert!(error.to_string().contains("/none"), "{error}");
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let Command::Completions { shell } = parse(&format!("completions {shell}")).unwrap().command else {
            panic!("{shell}: another command");
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut crate::definition(), "onecli", &mut script);
        let script = String::from_utf8(script).unwrap();
        for word in ["secret", "grant", "keep-env"] {
            assert!(script.contains(word), "{shell}: no '{word}'");
        }
    }
}

#[test]
fn keys_are_shown_and_changed() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    add_secret(&client, "s", None).unwrap();
    let before: KeyView = client.get(routes::KEY).unwrap();
    assert_eq!((before.slots.len(), before.opened_slot, &before.rekey), (1, 1, &None));

    let recovery: SlotAdded = client.post(routes::KEY_SLOTS, &SlotAdd::Recovery {}).unwrap();
    let text = recovery.recovery_key.clone().unwrap();
    assert!(text.starts_with("onecli-rk-") && !format!("{recovery:?}").contains(&text));
    let passphrase = WireValue(SecretValue::new(b"correct horse battery".to_vec()).unwrap());
    let added: SlotAdded =
        client.post(routes::KEY_SLOTS, &SlotAdd::Passphrase { passphrase: passphrase.clone() }).unwrap();
    assert_eq!((added.slot.number, added.slot.kind.as_str()), (3, "passphrase"));
    refused(client.delete::<SlotView>(&routes::key_slot(1)), &["could not start again without key slot 1"]);

    let nothing = KeyRotate::default();
    refused(
        client.post::<KeyRotated>(routes::KEY_ROTATE, &nothing),
        &["slot 3 cannot be resealed", "--drop-other-slots"],
    );
    let with = KeyRotate { passphrases: vec![passphrase], drop_other_slots: false };
    let rotated: KeyRotated = client.post(routes::KEY_ROTATE, &with).unwrap();
    assert_eq!((rotated.recovery_keys.len(), rotated.dropped_slots.len()), (1, 0));
    assert!(!format!("{rotated:?}").contains(&rotated.recovery_keys[0].recovery_key));
    let status: KeyView = client.get(routes::KEY).unwrap();
    assert_eq!((status.key_id, status.rekey.unwrap().from), (rotated.key_id, before.key_id));
    let recorded = served.host().recorded().join("; ");
    for what in ["key_slot_added: slot 2 (recovery)", "key_slot_added: slot 3", "key_rotated: root key"] {
        assert!(recorded.contains(what), "{recorded}");
    }
}

#[test]
fn backup_is_a_database_and_leaves_no_files_behind() {
    if !root("commands against the admin server") {
        return;
    }
    let served = Served::start(FakeDaemon::redirecting());
    let client = Client::new(served.socket());
    add_secret(&client, "s", None).unwrap();
    let mut bytes = Vec::new();
    client
        .bytes::<ClientError>(routes::BACKUP, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
    assert!(bytes.starts_with(b"SQLite format 3\0"));
    let left: Vec<_> = std::fs::read_dir(onecli_admin::DaemonControl::data_dir(served.host()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("backup-"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(served.host().recorded(), ["backup_taken: a copy of the store"]);
}

/// Invariant 1 for `Debug` output and error texts: no type that carries a value or key through the admin API prints it.
#[test]
fn types_that_carry_a_value_never_print_it() {
    const OTHER: &str = "another-value-of-many";
    let wire = |text: &str| WireValue(SecretValue::new(text.as_bytes().to_vec()).unwrap());
    let key = WireKey(zeroize::Zeroizing::new([0x5a; 32]));
    let text = VALUE.to_owned();
    let slot = SlotView { number: 1, kind: "recovery".to_owned(), key_id: None, created: None };
    let recovery = RecoveryKey { slot: 1, recovery_key: text.clone() };
    let keys = onecli_model::AwsKeys::parse(
        &SecretValue::new(format!("AKIDEXAMPLE:{VALUE}:{OTHER}").into_bytes()).unwrap(),
    );
    let token = Token::parse(&format!("onecli_st_{}", "h".repeat(43))).unwrap();
    let proxy: onecli_model::ProxyUrl = format!("http://user:{VALUE}@proxy.test:3128").parse().unwrap();
    assert!(!format!("{token:?}").contains("hhh"));
    let shown = [
        format!("{recovery:?} {keys:?} {proxy:?}"),
        format!("{:?}", SlotAdded { slot, recovery_key: Some(text.clone()) }),
        format!(
            "{:?}",
            KeyRotated {
                key_id: String::new(),
                key_file: None,
                dropped_slots: Vec::new(),
                recovery_keys: vec![recovery],
            }
        ),
        format!(
            "{:?}",
            Import {
                values: vec![NamedValue { name: "A".to_owned(), value: wire(VALUE) }],
                mask_issued: MaskIssued::default(),
                force: false,
                how: ImportOptions::default(),
            }
        ),
        format!("{:?}", wire(VALUE)),
        format!("{:?}", SecretRotate { value: wire(VALUE), compromised: false, force: false }),
        format!("{:?}", SlotAdd::Passphrase { passphrase: wire(VALUE) }),
        format!("{:?}", SlotAdd::Key { key: key.clone() }),
        format!("{:?}", KeyRotate { passphrases: vec![wire(VALUE), wire(OTHER)], drop_other_slots: true }),
        format!("{:?}", onecli_vault::NewSlot::Key(key.0)),
        format!("{:?}", onecli_vault::NewSlot::Passphrase(zeroize::Zeroizing::new(VALUE.to_owned()))),
    ];
    let add = SecretAdd {
        name: "api".parse().unwrap(),
        host: "api.test".parse().unwrap(),
        port: 443,
        methods: Vec::<String>::new().try_into().unwrap(),
        paths: Vec::new(),
        placement: Placement::bearer(),
        profile: Profile::default(),
        env: None,
        allow_plaintext: false,
        value: Some(wire(VALUE)),
        force: false,
    };
    let session = Session {
        agent: "coder".parse().unwrap(),
        id: onecli_model::AgentId(uuid::Uuid::from_u128(1)),
        cgroup: None,
        user: "coder".to_owned(),
        ca_bundle: "/ca.pem".into(),
        placeholders: [("API_KEY".to_owned(), VALUE.to_owned())].into(),
        proxy: Some(format!("http://x:{VALUE}@127.0.0.1:10255")),
        expires: None,
        hidden: Vec::new(),
        allow_git_config: false,
        lacks_rules: false,
    };
    let panicked = onecli_tests::panicking::unwrap_text((add.clone(), session.clone(), wire(VALUE)));
    assert!(panicked.contains("SecretAdd"), "{panicked}");
    let shown = [shown.concat(), format!("{add:?} {session:?}"), panicked];
    // The error of an invalid request does not quote its content.
    let bodies = [
        format!(r#"{{"value":"{VALUE}"}}"#),
        format!(r#"{{"value":["{VALUE}"]}}"#),
        format!(r#"{{"value":{{"{VALUE}":1}}}}"#),
        format!(r#"{{"value":"{}"}}"#, data_encoding::BASE64.encode(&VALUE.as_bytes()[..5])),
        format!(r#"{{"kind":"key","key":"{VALUE}"}}"#),
        format!(r#"{{"kind":"key","key":["{VALUE}"]}}"#),
        format!(r#"{{"kind":"passphrase","passphrase":"{VALUE}"}}"#),
        format!(r#"{{"passphrases":["{VALUE}"]}}"#),
    ];
    let mut errors = Vec::new();
    for body in &bodies {
        errors.extend(serde_json::from_str::<SecretRotate>(body).err().map(|error| error.to_string()));
        errors.extend(serde_json::from_str::<SlotAdd>(body).err().map(|error| error.to_string()));
        errors.extend(serde_json::from_str::<KeyRotate>(body).err().map(|error| error.to_string()));
    }
    assert_eq!(errors.len(), 3 * bodies.len());
    let bytes = format!("{:?}", &VALUE.as_bytes()[..4]);
    for text in shown.iter().chain(&errors) {
        for hidden in [VALUE, OTHER, "90, 90", "5a5a", &bytes[1..bytes.len() - 1]] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
}
