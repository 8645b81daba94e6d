//! Tests of every configuration key, with valid and invalid values.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("c.toml"), text).and_then(Config::checked)
}

#[test]
fn empty_file_has_the_documented_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.store_url(), "sqlite:///var/lib/onecli/onecli.db");
    assert_eq!(config.kernel.agents_root, "onecli.slice/onecli-agents.slice");
    assert_eq!(config.listen.explicit, ["127.0.0.1:10255".parse().unwrap()]);
}

#[test]
fn tls_proxy_requires_names_and_separate_addresses() {
    let names = |text: &str| {
        let listen = parse(&format!("[listen]\n{text}\n")).map_err(|error| error.to_string())?.listen;
        Ok::<_, String>(listen.proxy_names().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    for (text, expected) in [
        ("", ""),
        ("explicit_tls_names = [\"proxy.internal\"]", "proxy.internal"),
        ("explicit_tls = [\"10.0.0.1:4\", \"10.0.0.1:5\"]", "10.0.0.1"),
        ("explicit_tls = [\"0.0.0.0:4\"]\nexplicit_tls_names = [\"proxy.internal\"]", "proxy.internal"),
    ] {
        assert_eq!(names(text).as_deref(), Ok(expected), "{text}");
    }
    for (text, expected) in [
        ("explicit_tls = [\"0.0.0.0:4\"]", "explicit_tls_names"),
        ("explicit_tls = [\"127.0.0.1:10255\"]", "different addresses"),
        ("explicit_tls = [\"127.0.0.1:10256\"]", "different ports"),
    ] {
        assert!(names(text).unwrap_err().contains(expected), "{text}");
    }
}

/// Guards the file that the package installs: every value shown as a default is the default, and no key is missing.
#[test]
fn installed_file_shows_every_key_with_its_default() {
    let installed = include_str!("../../../../systemd/config.toml");
    assert_eq!(parse(installed).unwrap(), Config::default(), "as installed");
    // A lone '#' disables a setting; '# ' begins a remark.
    let switched_on: String = installed
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#'])).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut shown = parse(&switched_on).unwrap();
    assert_eq!(shown.store_url(), Config::default().store_url());
    // These keys have no default; the file shows examples.
    shown.store = None;
    shown.upstream.proxy = None;
    shown.upstream.proxy_password_file = None;
    shown.vault.passphrase_file = None;
    assert_eq!(shown, Config::default(), "with every setting enabled");

    let document: toml::Table = switched_on.parse().unwrap();
    let has = |table: &toml::Table, keys: Vec<String>| {
        for key in keys {
            // A key without a default is shown by an example in a remark.
            let example = format!("\n# {key} = ");
            let shown = table.contains_key(&key) || installed.contains(&example);
            assert!(shown, "systemd/config.toml does not show '{key}'");
        }
    };
    has(&document, known_keys(""));
    for (name, value) in &document {
        // A vault server has no defaults: its keys are shown as an example in remarks.
        if let Some(table) = value.as_table().filter(|_| name != "backend") {
            has(table, known_keys(name));
        }
    }
}

/// Returns the keys that the parser accepts in a table, taken from its error for an unknown key.
fn known_keys(table: &str) -> Vec<String> {
    let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let refused = parse(&format!("{header}no_such_key = 1\n")).unwrap_err().to_string();
    let known: Vec<String> = refused.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(!known.is_empty(), "{refused}");
    known
}

#[test]
fn every_key_is_parsed() {
    let config = parse(
        r#"
        data_dir = "/srv/onecli"
        store = "sqlite:///srv/db"
        [kernel]
        ebpf = false
        agents_root = "/a.slice/"
        daemon_cgroup = "d.slice"
        bpffs_dir = "/run/bpf"
        [listen]
        explicit = ["[::1]:1", "10.0.0.1:2"]
        explicit_tls = ["10.0.0.1:4"]
        explicit_tls_names = ["Proxy.Internal"]
        allow_sources = ["172.17.0.0/16"]
        transparent_port = 3
        admin_socket = "/run/a.sock"
        [upstream]
        extra_ca_files = ["/etc/ca.pem"]
        connect_timeout = "250ms"
        head_timeout = "90s"
        idle_timeout = "1day"
        proxy = "http://me@proxy.corp:3128"
        proxy_password_file = "/etc/onecli/proxy"
        no_proxy = [".corp.test", "10.0.0.0/8"]
        [resolver]
        hosts = { "API.Internal" = ["10.0.0.5", "::5"] }
        [dns]
        refused_range = "240.1.2.3/8"
        [egress]
        allow_addresses = ["10.0.0.0/24"]
        [policy]
        approval_timeout = "30s"
        [audit]
        durability = "strict"
        [vault]
        passphrase_file = "/etc/onecli/passphrase"
        keep_replaced = "7days"
        "#,
    )
    .unwrap();
    assert_eq!(
        config,
        Config {
            data_dir: "/srv/onecli".into(),
            store: Some("sqlite:///srv/db".to_owned()),
            helper_socket: None,
            executor_socket: None,
            kernel: Kernel {
                ebpf: false,
                agents_root: "a.slice".to_owned(),
                daemon_cgroup: "d.slice".to_owned(),
                bpffs_dir: "/run/bpf".into(),
            },
            listen: Listen {
                allow_sources: vec!["172.17.0.0/16".parse().unwrap()],
                explicit: vec!["[::1]:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap()],
                explicit_tls: vec!["10.0.0.1:4".parse().unwrap()],
                explicit_tls_names: vec!["proxy.internal".parse().unwrap()],
                transparent_port: 3,
                admin_socket: "/run/a.sock".into(),
            },
            upstream: Upstream {
                extra_ca_files: vec!["/etc/ca.pem".into()],
                proxy: Some("http://me@proxy.corp:3128".parse().unwrap()),
                proxy_password_file: Some("/etc/onecli/proxy".into()),
                no_proxy: vec!["corp.test".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
                connect_timeout: Duration::from_millis(250),
                head_timeout: Duration::from_secs(90),
                idle_timeout: Duration::from_hours(24),
            },
            resolver: Resolver {
                hosts: BTreeMap::from([(
                    "api.internal".parse().unwrap(),
                    vec!["10.0.0.5".parse().unwrap(), "::5".parse().unwrap()],
                )]),
            },
            dns: Dns { refused_range: Some("240.0.0.0/8".parse().unwrap()) },
            egress: Egress { allow_addresses: vec!["10.0.0.0/24".parse().unwrap()] },
            audit: Audit { durability: Durability::Strict, ..Audit::default() },
            backend: Backend::default(),
            vault: Vault {
                passphrase_file: Some("/etc/onecli/passphrase".into()),
                insecure_key_from_env: false,
                keep_replaced: Duration::from_hours(7 * 24),
            },
            policy: Policy { approval_timeout: Duration::from_secs(30) },
        }
    );
}

#[test]
fn errors_name_file_line_and_key() {
    let check = |text: &str, start: &str, within: &str| {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(start) && error.contains(within), "{text:?}: {error}");
    };
    check("data_dirs = \"/x\"", "c.toml:1: data_dirs: ", "unknown field");
    check("\n[listen]\nport = 1", "c.toml:3: listen.port: ", "unknown field");
    check("[nope]\n", "c.toml:1: nope: ", "unknown field");
    check("data_dir = \"x\"", "c.toml:1: data_dir: ", "must be an absolute path");
    check("store = 5", "c.toml:1: store: ", "expected a string");
    check("[kernel]\nebpf = \"no\"", "c.toml:2: kernel.ebpf: ", "expected a boolean");
    check("[kernel]\nagents_root = \"../x\"", "c.toml:2: kernel.agents_root: ", "is not a valid cgroup");
    check("[kernel]\nagents_root = \"/\"", "c.toml:2: kernel.agents_root: ", "is not a valid cgroup");
    check(
        "[kernel]\ndaemon_cgroup = \"/sys/fs/cgroup/x\"",
        "c.toml:2: kernel.daemon_cgroup: ",
        "is not a valid cgroup",
    );
    check("[upstream]\nproxy = \"proxy:3128\"", "c.toml:2: upstream.proxy: ", "not the URL of a proxy");
    check(
        "[upstream]\nno_proxy = [\"a b\"]",
        "c.toml:2: upstream.no_proxy: ",
        "'a b' is not a valid host name",
    );
    check("[upstream]\nno_proxy = [\"a\"]", "upstream.proxy_password_file", "need upstream.proxy");
    let secret = parse("[upstream]\nproxy = \"http//me:secret@proxy\"").unwrap_err().to_string();
    assert!(!secret.contains("secret"), "{secret}");
    assert_eq!(parse("[dns]\nrefused_range = \"\"").unwrap().dns.refused_range, None);
    for range in [
        "127.0.0.0/8",
        "127.64.0.0/12",
        "112.0.0.0/4",
        "0.0.0.0/8",
        "224.0.0.0/4",
        "10.0.0.0/24",
        "0.0.0.0/0",
    ] {
        check(&format!("[dns]\nrefused_range = \"{range}\""), "c.toml:2: dns.refused_range: ", "/4 to /20");
    }
    check("[dns]\nrefused_range = \"fd00::/8\"", "c.toml:2: dns.refused_range: ", "is not an IPv4 network");
    check("[kernel]\nbpffs_dir = \"bpf\"", "c.toml:2: kernel.bpffs_dir: ", "absolute");
    check("[listen]\nexplicit = [\"localhost:1\"]", "c.toml:2: listen.explicit: ", "'localhost:1' is not");
    check("[listen]\ntransparent_port = 0", "c.toml:2: listen.transparent_port: ", "1 to 65535");
    check("[listen]\ntransparent_port = 70000", "c.toml:2: listen.transparent_port: ", "70000");
    check("[listen]\nadmin_socket = \"a\"", "c.toml:2: listen.admin_socket: ", "absolute");
    check("[upstream]\nextra_ca_files = [\"a\"]", "c.toml:2: upstream.extra_ca_files: ", "absolute");
    check("[upstream]\nconnect_timeout = 5", "c.toml:2: upstream.connect_timeout: ", "string");
    check("[upstream]\nconnect_timeout = \"0s\"", "c.toml:2: upstream.connect_timeout: ", "1ms to 5min");
    check("[upstream]\nhead_timeout = \"2h\"", "c.toml:2: upstream.head_timeout: ", "1ms to 1h");
    check("[vault]\nkeep_replaced = \"0s\"", "c.toml:2: vault.keep_replaced: ", "0 for none");
    check("[vault]\nkeep_replaced = \"31days\"", "c.toml:2: vault.keep_replaced: ", "30days");
    check("[upstream]\nidle_timeout = \"25h\"", "c.toml:2: upstream.idle_timeout: ", "1ms to 24h");
    check("[upstream]\nidle_timeout = \"never\"", "c.toml:2: upstream.idle_timeout: ", "1ms to 24h");
    check("[resolver]\nhosts = { \"a b\" = [] }", "c.toml:2: resolver.hosts: ", "'a b': the host is not");
    check(
        "[resolver]\nhosts = { \"a.b\" = [\"c\"] }",
        "c.toml:2: resolver.hosts: ",
        "'c' is not a valid address",
    );
    check(
        "[egress]\nallow_addresses = [\"10.0.0.5/33\"]",
        "c.toml:2: egress.allow_addresses: ",
        "'10.0.0.5/33' is not",
    );
    check("[audit]\ndurability = \"lax\"", "c.toml:2: audit.durability: ", "expected `strict`");
    check("a = \n", "c.toml:1: ", "");
    check(
        "[kernel]\nagents_root = \"a\"\ndaemon_cgroup = \"a/b\"",
        "kernel.agents_root (a)",
        "inside each other",
    );
    check("[listen]\ntransparent_port = 10255", "listen.explicit (127.0.0.1:10255)", "different ports");
}

#[test]
fn flags_take_precedence_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "store = \"sqlite:///a\"\n[listen]\nexplicit = [\"127.0.0.1:1\"]\n").unwrap();
    let flags = Overrides {
        data_dir: Some("/srv".into()),
        listen: vec!["127.0.0.1:2".parse().unwrap(), "127.0.0.1:3".parse().unwrap()],
        admin_socket: Some("/run/b.sock".into()),
        store: Some("sqlite:///b".to_owned()),
        agents_root: Some("/other.slice".to_owned()),
        no_ebpf: true,
        helper_socket: Some("/run/h.sock".into()),
        executor_socket: Some("/run/e.sock".into()),
        passphrase_file: Some("-".into()),
        insecure_key_from_env: true,
    };
    let config = Config::load(Some(&file), flags).unwrap();
    assert_eq!(config.data_dir, Path::new("/srv"));
    assert_eq!(config.listen.explicit.len(), 2);
    assert_eq!(config.listen.admin_socket, Path::new("/run/b.sock"));
    assert_eq!(config.store_url(), "sqlite:///b");
    assert_eq!(config.kernel.agents_root, "other.slice");
    assert!(!config.kernel.ebpf);
    let vault = Vault { passphrase_file: Some("-".into()), insecure_key_from_env: true, ..Vault::default() };
    assert_eq!(config.vault, vault);
    assert_eq!(Config::load(Some(&file), Overrides::default()).unwrap().store_url(), "sqlite:///a");

    let flags = Overrides { agents_root: Some("..".to_owned()), ..Overrides::default() };
    let error = Config::load(Some(&file), flags).unwrap_err().to_string();
    assert!(error.starts_with("--agents-root: "), "{error}");
}

#[test]
fn named_file_must_exist() {
    let error = Config::load(Some(Path::new("/nonexistent/c.toml")), Overrides::default()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/c.toml"), "{error}");
}

#[test]
fn vault_server_is_parsed_as_in_the_installed_example() {
    let installed = include_str!("../../../../systemd/config.toml");
    let (_, example) = installed.split_once("# [backend.vault]").unwrap();
    let example: String =
        example.lines().filter_map(|line| line.strip_prefix("# ")).flat_map(|line| [line, "\n"]).collect();
    let server = parse(&format!("[backend.vault]\n{example}")).unwrap().backend.vault.unwrap();
    assert_eq!(server.timeout, Duration::from_secs(5));
    assert_eq!((server.cache_ttl, server.stale_for), (Duration::from_secs(30), Duration::ZERO));
    assert!(matches!(server.auth, VaultAuth::AppRole { wrapped: false, .. }));

    let auth = |text: &str| {
        parse(&format!("[backend.vault]\naddress = \"https://v\"\n[backend.vault.auth]\n{text}"))
    };
    for good in [
        "method = \"token\"\ntoken_file = \"/t\"",
        "method = \"approle\"\nrole_id = \"r\"\nsecret_id_file = \"/s\"\nwrapped = true",
        "method = \"kubernetes\"\nrole = \"r\"",
        "method = \"jwt\"\nrole = \"r\"\njwt_file = \"/j\"",
    ] {
        auth(good).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        "method = \"token\"\ntoken_file = \"t\"",
        "method = \"token\"\ntoken = \"in the clear\"",
        "method = \"userpass\"",
        "method = \"approle\"\nrole_id = \"r\"",
    ] {
        auth(bad).expect_err(bad);
    }
}

#[test]
fn audit_keys_are_parsed_or_refused() {
    let read = |text: &str| {
        Config::parse(Path::new("x.toml"), &format!("[audit]\n{text}")).map(|config| config.audit)
    };
    let audit = read("durability = \"relaxed\"\nkeep_days = 30\nkeep_bytes = \"10 GiB\"\nwitnesses = [\"syslog\", \"syslog:/s\", \"file:/a\", \"https://w.example/x\"]").unwrap();
    assert_eq!(audit.durability, Durability::Relaxed);
    assert_eq!((audit.keep_days, audit.keep_bytes), (30, 10 << 30));
    let url = Witness::Url("https://w.example/x".to_owned());
    assert_eq!(
        audit.witnesses,
        [Witness::Syslog("/dev/log".into()), Witness::Syslog("/s".into()), Witness::File("/a".into()), url,]
    );
    for bad in [
        "keep_bytes = \"many\"",
        "agent_rate = 0",
        "witnesses = [\"ftp://x\"]",
        "witnesses = [\"file:x\"]",
        "witnesses = [\"syslog:x\"]",
        "witnesses = [\"https://u@h/\"]",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
