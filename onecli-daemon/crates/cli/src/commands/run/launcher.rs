//! `onecli launcher`: starts agents for users other than root. Run by the service manager.

use jiff::Timestamp;
use onecli_api::{Refusals, Session, SessionRequest, routes};
use onecli_launch::{AgentEnvironment, Caller, LaunchIdentity, LauncherSocket, Permission, Rules, worker};
use onecli_model::recipe::{RecipeName, RecipeNameError};
use onecli_model::{AgentName, printable};

use super::args::LauncherArgs;
use crate::client::Client;
use crate::host::user::agents_dir;
use crate::output::print_error;

/// The number of characters of a host to show. The longest DNS name has 253.
const LONGEST_HOST: usize = 100;

/// Serves until the process is stopped.
pub(crate) fn run(client: &Client, args: LauncherArgs) -> u8 {
    let path = args.listen.unwrap_or_else(|| onecli_launch::beside(client.socket()));
    let rules = Rules { users: args.users, agents: agents_dir() };
    let listener = match onecli_launch::listener(&path) {
        Ok(listener) => listener,
        Err(error) => {
            print_error(&error);
            return 1;
        }
    };
    for line in onecli_launch::clean_up(&rules.agents) {
        print_error(&line);
    }
    let work = |socket: &LauncherSocket, caller: &Caller, authorised: onecli_launch::Authorised<'_>| {
        serve_client(client, &rules, socket, caller, authorised);
    };
    match onecli_launch::serve(&listener, &work) {
        Ok(never) => match never {},
        Err(error) => {
            print_error(&format!("the launcher's socket failed: {error}"));
            1
        }
    }
}

/// Serves one client.
pub(crate) fn serve_client(
    client: &Client,
    rules: &Rules,
    socket: &LauncherSocket,
    caller: &Caller,
    authorised: onecli_launch::Authorised<'_>,
) {
    let ask = |subject: &LaunchIdentity, caller: &Caller| ask(client, subject, caller);
    let refused = |agent: &str, since: Timestamp| refused(client, agent, since, caller.uid);
    worker::serve(socket, caller, rules, (&ask, &refused), authorised);
}

/// Returns the agent's refusals since the given time; `None` if the daemon does not respond. The command has already
/// ended, so a failure here has no other effect.
fn refused(client: &Client, agent: &str, since: Timestamp, uid: u32) -> Option<String> {
    let agent: AgentName = agent.parse().ok()?;
    let since = Timestamp::from_millisecond(since.as_millisecond()).ok()?;
    let refusals: Refusals = client.get(&routes::refusals(&agent, since, uid)).ok()?;
    (!refusals.targets.is_empty()).then(|| summary(&agent, since, &refusals))
}

/// Formats the refusals. The agent chose the hosts, so they are escaped, shortened, and never part of a command to
/// paste.
fn summary(agent: &AgentName, since: Timestamp, refusals: &Refusals) -> String {
    let mut lines = vec![format!("agent '{agent}' was refused:")];
    lines.extend(refusals.targets.iter().map(|target| {
        let host: String = printable(&target.host).chars().take(LONGEST_HOST).collect();
        let port = target.port.map_or_else(String::new, |port| format!(":{port}"));
        format!("  {host}{port} ({})", printable(&target.code))
    }));
    if refusals.others > 0 {
        lines.push(format!("  and {} more", refusals.others));
    }
    lines.push(format!("details: onecli audit list --agent {agent} --verdict deny --since {since}"));
    lines.push(format!("to allow it: onecli agent learn {agent}"));
    lines.join("\n")
}

/// Asks the daemon whether `caller` may run the agent.
fn ask(client: &Client, subject: &LaunchIdentity, caller: &Caller) -> Result<Permission, String> {
    let agent: AgentName = subject.agent.parse().map_err(|error| format!("{error}"))?;
    let Caller { uid, gid, cgroup } = caller.clone();
    let recipe = subject.recipe.as_deref().map(str::parse).transpose();
    let wanted = SessionRequest {
        user: subject.user.clone(),
        caller: Some(onecli_api::Caller { uid, gid, cgroup }),
        recipe: recipe.map_err(|error: RecipeNameError| error.to_string())?,
    };
    let session: Session =
        client.post(&routes::agent_action(&agent, "session"), &wanted).map_err(|error| error.to_string())?;
    Ok(permission(session, wanted.recipe))
}

fn permission(session: Session, recipe: Option<RecipeName>) -> Permission {
    let mut notes = Vec::new();
    if session.cgroup.is_none() {
        notes.push(format!(
            "connections are not redirected on this host; only proxy variables lead agent '{}' to OneCLI",
            session.agent
        ));
    }
    if session.allow_git_config {
        notes.push(format!(
            "agent '{}' may change the configuration and hooks of git repositories; git runs what they name as you",
            session.agent
        ));
    }
    if let (Some(recipe), true) = (recipe, session.lacks_rules) {
        notes.push(format!(
            "agent '{0}' may not make all requests of recipe '{1}'; an administrator can allow them with: \
             onecli agent set {0} --recipe {1}",
            session.agent, recipe
        ));
    }
    Permission {
        agent: session.id,
        user: session.user,
        cgroup: session.cgroup,
        environment: AgentEnvironment {
            ca_bundle: session.ca_bundle,
            placeholders: session.placeholders,
            own_view: false,
            proxy: session.proxy,
        },
        hidden: session.hidden,
        allow_git_config: session.allow_git_config,
        notes,
    }
}

#[cfg(test)]
mod tests {
    use onecli_api::RefusedTarget;

    use super::*;

    #[test]
    fn summary_is_escaped_and_bounded() {
        let target = |host: String| RefusedTarget { host, port: Some(443), code: "egress_denied".to_owned() };
        let forged = "evil\nonecli: note: all is well\u{1b}[2J".to_owned();
        let refusals = Refusals { targets: vec![target(forged), target("x".repeat(2_000))], others: 7 };
        let text = summary(&"coder".parse().unwrap(), Timestamp::UNIX_EPOCH, &refusals);
        let lines: Vec<_> = text.lines().collect();
        let long = format!("  {}:443 (egress_denied)", "x".repeat(LONGEST_HOST));
        let command = "onecli audit list --agent coder --verdict deny --since 1970-01-01T00:00:00Z";
        assert_eq!(
            lines,
            [
                "agent 'coder' was refused:",
                r"  evil\nonecli: note: all is well\u{1b}[2J:443 (egress_denied)",
                &long,
                "  and 7 more",
                &format!("details: {command}"),
                "to allow it: onecli agent learn coder",
            ]
        );
    }
}
