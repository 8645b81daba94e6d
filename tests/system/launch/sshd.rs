//! No service of the host starts a program for an agent: the files in the agent's home are not in the home of
//! passwd(5).

use onecli_tests::daemon::Daemon;
use onecli_tests::need;
use onecli_tests::scripts::{SSHD, on_a_copy_of_the_host};

fn on_a_copy(script: &str) -> Option<String> {
    let able = need::root("everything")
        && need::program("everything", "useradd", "passwd")
        && need::program("everything", "sshd", "openssh-server");
    if !able {
        return None;
    }
    let home = Daemon::builder().no_ebpf().prepare();
    Some(on_a_copy_of_the_host(&home, &format!("{SSHD}{script}")).outcome().ok("a copy"))
}

/// The text after a mark.
fn part<'o>(out: &'o str, mark: &str) -> &'o str {
    let (_, rest) = out.split_once(&format!("== {mark}\n")).unwrap_or_else(|| panic!("no {mark}: {out}"));
    rest.split("== ").next().unwrap_or(rest)
}

#[test]
fn sshd_ignores_files_written_by_an_agent() {
    let script = r#"
        onecli agent add a --create-user --factors token >/dev/null; unlock onecli-a-a
        mark account; getent passwd onecli-a-a; stat -c '%U %a' /var/lib/onecli-agents/onecli-a-a
        mark agent
        onecli run --agent a --no-dir -- sh -c "umask 077; mkdir ~/.ssh; echo '$pub' > ~/.ssh/authorized_keys
            ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519; git config --global user.name Robot
            echo ~; echo \$SHELL; ls ~/.ssh; stat -c '%U %a' ~"
        mark again; onecli run --agent a --no-dir -- sh -c 'cd; git config user.name; ls -A .ssh'
        mark outside; ls -A /var/lib/onecli-agents/onecli-a-a
        mark login; login onecli-a-a
        # Control: the same key in a home that its user can write.
        useradd --system --create-home --home-dir "$dir/upper/visitor" --shell /bin/sh visitor; unlock visitor
        chmod 755 "$dir" "$dir/upper"; mkdir "$dir/upper/visitor/.ssh"; echo "$pub" > "$dir/upper/visitor/.ssh/authorized_keys"
        chown -R visitor "$dir/upper/visitor"; chmod 700 "$dir/upper/visitor/.ssh"
        mark control; login visitor"#;
    let Some(out) = on_a_copy(script) else { return };
    let account = part(&out, "account");
    assert!(
        account.contains(
            ":/var/lib/onecli-agents/onecli-a-a:/usr/sbin/nologin
root 755
"
        ),
        "{out}"
    );
    let agent = part(&out, "agent");
    assert!(
        agent.starts_with(
            "/var/lib/onecli-agents/onecli-a-a
/bin/sh
authorized_keys
id_ed25519"
        ),
        "{out}"
    );
    assert!(
        agent.ends_with(
            "onecli-a-a 700
"
        ),
        "{out}"
    );
    assert_eq!(
        part(&out, "again"),
        "Robot
authorized_keys
id_ed25519
id_ed25519.pub
",
        "{out}"
    );
    assert_eq!(part(&out, "outside"), "", "{out}");
    assert_eq!(
        part(&out, "login"),
        "Permission denied (publickey)
",
        "{out}"
    );
    assert_eq!(
        part(&out, "control"),
        "in
",
        "{out}"
    );
}

/// As the package migrates users that older versions created.
#[test]
fn accounts_of_older_versions_are_converted() {
    let script = r#"
        groupadd --system --force onecli-agents; homes=/var/lib/onecli-agents
        useradd --system --user-group --groups onecli-agents --create-home --home-dir $homes/onecli-a-old             --key HOME_MODE=0700 --shell /bin/sh onecli-a-old; unlock onecli-a-old
        onecli agent add old --user onecli-a-old --factors token >/dev/null
        mkdir $homes/onecli-a-old/.ssh; echo "$pub" > $homes/onecli-a-old/.ssh/authorized_keys
        echo text > $homes/onecli-a-old/file; chown -R onecli-a-old $homes/onecli-a-old
        mark before; login onecli-a-old
        mark doctor; onecli doctor --no-self-test | grep -A1 'agent accounts' || true
        mark convert; onecli agent convert-user --made
        mark after; login onecli-a-old; getent passwd onecli-a-old | cut -d: -f6,7; stat -c '%U %a' $homes/onecli-a-old
        ls -A $homes/onecli-a-old
        mark twice; onecli agent convert-user --made
        mark agent; onecli run --agent old --no-dir -- sh -c 'cd; pwd; ls -A .ssh; cat file; stat -c "%U %a" .'
        mark healed; onecli doctor --no-self-test | grep 'agent accounts' || true"#;
    let Some(out) = on_a_copy(script) else { return };
    assert_eq!(
        part(&out, "before"),
        "in
",
        "{out}"
    );
    let doctor = part(&out, "doctor");
    for words in ["WARN", "login shell /bin/sh", "(there: .ssh)", "onecli agent convert-user onecli-a-old"] {
        assert!(doctor.contains(words), "{words:?}: {out}");
    }
    assert!(part(&out, "convert").contains("user 'onecli-a-old': its login shell was removed"), "{out}");
    let home = "/var/lib/onecli-agents/onecli-a-old";
    let after = format!(
        "Permission denied (publickey)
{home}:/usr/sbin/nologin
root 755
"
    );
    assert_eq!(part(&out, "after"), after, "{out}");
    assert_eq!(part(&out, "twice"), "", "{out}");
    assert_eq!(
        part(&out, "agent"),
        format!(
            "{home}
authorized_keys
text
onecli-a-old 700
"
        ),
        "{out}"
    );
    assert!(part(&out, "healed").starts_with("OK"), "{out}");
}

/// A user who can replace the home while root moves it could make root move another directory and change its owner.
#[test]
fn homes_that_others_can_replace_are_not_moved() {
    let script = r#"
        groupadd --system --force onecli-agents; open=$dir/upper/open; mkdir "$open"; chmod 777 "$open"
        for name in direct linked; do
            useradd --system --groups onecli-agents --home-dir "$open/$name" --shell /bin/sh onecli-t-$name
        done
        mkdir "$open/direct" "$open/target"; chown onecli-t-direct "$open/direct"; ln -s target "$open/linked"
        chown onecli-t-linked "$open/target"
        for name in direct linked; do
            mark $name; onecli agent convert-user onecli-t-$name 2>&1 && echo moved || echo refused
            getent passwd onecli-t-$name | cut -d: -f7
        done
        mark left; ls "$open""#;
    let Some(out) = on_a_copy(script) else { return };
    for (name, why) in [("direct", "can be changed by users other than root"), ("linked", "is a link")] {
        let said = part(&out, name);
        assert!(said.contains(why) && said.ends_with("refused\n/bin/sh\n"), "{out}");
    }
    assert_eq!(part(&out, "left"), "direct\nlinked\ntarget\n", "{out}");
}
