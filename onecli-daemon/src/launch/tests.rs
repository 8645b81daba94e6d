use std::collections::BTreeMap;

use nix::unistd::{Gid, Uid};

use super::*;

fn user() -> LaunchUser {
    LaunchUser {
        name: "robot".to_owned(),
        uid: Uid::from_raw(990),
        gid: Gid::from_raw(991),
        groups: vec![Gid::from_raw(991)],
        home: "/srv/robot".into(),
        shell: "/bin/sh".into(),
    }
}

fn plan(caller: &[(&str, &str)], keep: &[&str], proxy: Option<&str>) -> BTreeMap<String, String> {
    let agent = AgentEnvironment {
        ca_bundle: "/run/onecli/ca.pem".into(),
        placeholders: BTreeMap::from([("OPENAI_API_KEY".to_owned(), "onecli_ph_x".to_owned())]),
        proxy: proxy.map(str::to_owned),
    };
    let caller = caller.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let keep: Vec<OsString> = keep.iter().map(OsString::from).collect();
    environment(caller, &keep, &user(), &agent)
        .unwrap()
        .into_iter()
        .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
        .collect()
}

#[test]
fn only_the_allow_list_crosses() {
    let check = |name: &str, keep: &[&str], expected: Option<&str>| {
        let env = plan(&[(name, "theirs")], keep, None);
        assert_eq!(env.get(name).map(String::as_str), expected, "{name}, keeping {keep:?}");
    };
    for name in ["TERM", "COLORTERM", "LANG", "LC_ALL", "LC_TIME", "TZ", "PATH"] {
        check(name, &[], Some("theirs"));
    }
    for name in
        ["AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "SUDO_USER", "NO_PROXY"]
    {
        check(name, &[], None);
        check(name, &[name], Some("theirs"));
        check(name, &["OTHER"], None);
    }
    // The daemon's word wins, whatever is kept.
    check("OPENAI_API_KEY", &["OPENAI_API_KEY"], Some("onecli_ph_x"));
    check("SSL_CERT_FILE", &["SSL_CERT_FILE"], Some("/run/onecli/ca.pem"));
    check("SSL_CERT_DIR", &["SSL_CERT_DIR"], None);
    check("USER", &["USER"], Some("robot"));
    check("HOME", &[], Some("/srv/robot"));
    check("HOME", &["HOME"], Some("theirs"));
}

#[test]
fn the_agent_gets_its_user_bundle_and_placeholders() {
    let env = plan(&[], &[], None);
    let expected = [
        ("AWS_CA_BUNDLE", "/run/onecli/ca.pem"),
        ("CARGO_HTTP_CAINFO", "/run/onecli/ca.pem"),
        ("CURL_CA_BUNDLE", "/run/onecli/ca.pem"),
        ("DENO_CERT", "/run/onecli/ca.pem"),
        ("GIT_SSL_CAINFO", "/run/onecli/ca.pem"),
        ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "/run/onecli/ca.pem"),
        ("HOME", "/srv/robot"),
        ("LOGNAME", "robot"),
        ("NIX_SSL_CERT_FILE", "/run/onecli/ca.pem"),
        ("NODE_EXTRA_CA_CERTS", "/run/onecli/ca.pem"),
        ("OPENAI_API_KEY", "onecli_ph_x"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("PIP_CERT", "/run/onecli/ca.pem"),
        ("REQUESTS_CA_BUNDLE", "/run/onecli/ca.pem"),
        ("SHELL", "/bin/sh"),
        ("SSL_CERT_FILE", "/run/onecli/ca.pem"),
        ("USER", "robot"),
    ];
    let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, expected);
}

#[test]
fn proxy_variables_only_where_connections_are_not_redirected() {
    let url = "http://x:onecli_st_y@127.0.0.1:10255";
    let env = plan(&[("NO_PROXY", "*"), ("no_proxy", "*")], &[], Some(url));
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        assert_eq!(env[name], url);
    }
    assert_eq!(env["NODE_USE_ENV_PROXY"], "1");
    assert!(!env.contains_key("NO_PROXY") && !env.contains_key("no_proxy"));
    assert!(!plan(&[], &[], None).keys().any(|name| name.to_ascii_uppercase().contains("PROXY")));
}

#[test]
fn kept_names_must_be_names() {
    let agent = AgentEnvironment { ca_bundle: "/x".into(), placeholders: BTreeMap::new(), proxy: None };
    for bad in ["", "A=B"] {
        let result = environment([], &[bad.into()], &user(), &agent);
        assert!(matches!(result, Err(LaunchError::EnvName(_))), "{bad:?}");
    }
}

#[test]
fn cgroup_paths_follow_the_mount_table() {
    let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    let nested = "30 23 0:26 /../outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                  31 30 0:26 /docker/x /sys/fs/cgroup/inner rw - cgroup2 cgroup2 rw\n";
    let check = |mountinfo: &str, directory: &str, expected: Option<&str>| {
        let path = cgroup::path_in_hierarchy(mountinfo, Path::new(directory));
        assert_eq!(path.as_deref(), expected.map(Path::new), "{directory}");
    };
    check(hybrid, "/sys/fs/cgroup/unified/a.slice/b", Some("/a.slice/b"));
    check(hybrid, "/sys/fs/cgroup/a.slice", None);
    check(hybrid, "/tmp", None);
    check(nested, "/sys/fs/cgroup/inner/b", Some("/docker/x/b"));

    assert_eq!(cgroup::unified_path("4:memory:/x\n0::/a.slice/b\n"), Some("/a.slice/b"));
    assert_eq!(cgroup::unified_path("4:memory:/x\n"), None);
}

#[test]
fn root_is_no_agent() {
    assert!(matches!(LaunchUser::find("root"), Err(LaunchError::RootUser(_))));
    assert!(matches!(LaunchUser::find("0"), Err(LaunchError::RootUser(_))));
    assert!(matches!(LaunchUser::find("no-such-user-here"), Err(LaunchError::NoUser(_))));
    let nobody = LaunchUser::find("nobody").unwrap();
    assert_eq!(LaunchUser::find(&nobody.uid.to_string()).unwrap(), nobody);
}
