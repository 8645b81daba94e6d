//! Git in an agent, with a remote repository over HTTPS that requires a credential.

use std::time::Duration;

use onecli_tests::need;
use onecli_tests::upstream::{Upstream, git};

use super::people;
use super::{PERSON, Stage};
use crate::scene::{API, Scene, VALUE};

#[test]
fn git_clones_commits_and_pushes_with_an_injected_password() {
    if !Stage::is_possible() || !need::program("git", "git", "git") {
        return;
    }
    let upstream = Upstream::builder(&[API]).git(git::Repo::new("deploy", VALUE)).start();
    let stage = Stage::of(Scene::with(upstream, &["--basic", "deploy"]));
    let project = stage.scene.daemon.home().dir().join("project");
    people::dir(&project, 2);
    let script = r#"
        set -e
        export HOME=$XDG_RUNTIME_DIR GIT_TERMINAL_PROMPT=0
        git config --global user.name robot
        git config --global user.email robot@example.com
        git config --global credential.helper '!f() { echo username=deploy; echo "password=$API_KEY"; }; f'
        git clone --quiet "$1" work
        cd work
        cat hello.txt
        echo from the agent > new.txt
        git add new.txt
        git commit --quiet --message 'Add a file'
        git push --quiet origin HEAD
        git fetch --quiet
        git clone --quiet "$1" ../again
        exec cat ../again/new.txt"#;
    let command = ["sh", "-c", script, "sh", &stage.scene.url("/git/demo.git")];
    let run = stage.run_as(PERSON, &["--dir", project.to_str().unwrap()], &command);
    let outcome = run.timeout(Duration::from_mins(2)).outcome();
    assert_eq!(outcome.ok("git"), format!("{}from the agent\n", git::CONTENT), "{outcome:?}");
    let seen = stage.scene.upstream.requests();
    let pushes =
        seen.iter().filter(|r| r.path.ends_with("/git-receive-pack") && r.header("authorization").is_some());
    assert_eq!(pushes.count(), 1, "{seen:#?}");
}
