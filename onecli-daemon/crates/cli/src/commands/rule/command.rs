//! `onecli rule ...` and `onecli agent learn`.

use clap::{Args as ClapArgs, Subcommand};
use onecli_api::{LearnedRule, RuleAdd, RuleView, routes};
use onecli_model::{Action, AgentName, RuleId, RuleSpec, RuleText};

use super::why::{self, WhyArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, joined, or_dash};

#[derive(Debug, Subcommand)]
pub(crate) enum RuleCommand {
    /// Add a rule, which applies from the next request.
    Add(Box<RuleAddArgs>),
    /// List all rules, by number.
    List,
    /// Remove a rule.
    Remove {
        /// The rule's number.
        id: RuleId,
    },
    /// Explain the decision about a request without sending it, like 'onecli why'.
    Test(WhyArgs),
}

/// Add a rule.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The daemon evaluates rules in this order, regardless of their numbers: deny, approve, limit, allow. Then it evaluates
grants, then the agent's egress setting.
  deny     refuses requests, even those with a grant. Paths match in every spelling that a server may accept for them.
  approve  delays a request until 'onecli approval allow|deny'. An approved request needs no other rule.
  limit    refuses requests that exceed a rate, over all connections of an agent. Allows nothing by itself.
  allow    allows a request, with the credentials granted for it or with none.

Without methods and paths, 'allow' passes TLS uninspected, unless a secret is stored for the host. In that case OneCLI
inspects the requests of every agent, and scrubs the responses. A client that pins the host's certificate then needs
'allow --tunnel'. With methods or paths, OneCLI inspects the requests to that host.
The default port is 443, and for 'deny' all ports; '*' is all ports.
--address names a network. With --host, 'allow' permits that host to have private addresses of the network; without
--host, it permits connections to these addresses. A cloud's metadata service must be named alone, as /32 or /128.
Protocols other than TLS and HTTP (SSH, databases) need an 'allow' without methods and paths for the host and port.

Examples:
  onecli rule add allow --agent coder --host docs.example --host www.example
  onecli rule add allow --agent coder --host api.github.com --method GET --path '/repos/acme/**'
  onecli rule add deny --host '**.pastebin.com'
  onecli rule add deny --agent coder --host api.github.com --method DELETE
  onecli rule add limit --host api.openai.com --rate 60/m
  onecli rule add approve --agent coder --host api.stripe.com --method POST --path '/v1/refunds'
  onecli rule add allow --agent coder --host db.internal --port 5432 --address 10.0.0.0/24")]
pub(crate) struct RuleAddArgs {
    /// The action: allow, deny, limit or approve.
    pub(crate) action: Action,
    /// Apply the rule only to this agent.
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Option<AgentName>,
    /// The host: 'api.x.com', '*.x.com' (one label), '**.x.com' (any depth), '*' (all). May be given again, which
    /// creates several rules.
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// The port; '*' for all. Default: 443; for deny, all ports.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<String>,
    /// The HTTP method; may be given again. Default: all.
    #[arg(long = "method", value_name = "METHOD")]
    pub(crate) methods: Vec<String>,
    /// The path pattern; may be given again. '*' matches any text within a segment, '**' any number of segments.
    /// Default: all.
    #[arg(long = "path", value_name = "PATTERN")]
    pub(crate) paths: Vec<String>,
    /// The network of the destination address.
    #[arg(long, value_name = "CIDR")]
    pub(crate) address: Option<String>,
    /// The largest number of requests per second, minute, hour or day: 10/s, 60/m, 500/h, 1000/d.
    #[arg(long, value_name = "N/UNIT")]
    pub(crate) rate: Option<String>,
    /// With 'allow': pass TLS uninspected even if a secret is stored for the host, for clients that pin its
    /// certificate. Responses are then not scrubbed.
    #[arg(long)]
    pub(crate) tunnel: bool,
}

pub(crate) fn run(client: &Client, command: RuleCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        RuleCommand::Add(args) => add(client, *args, output),
        RuleCommand::List => list(client, output),
        RuleCommand::Remove { id } => remove(client, id, output),
        RuleCommand::Test(args) => why::why(client, args, output),
    }
}

fn add(client: &Client, args: RuleAddArgs, output: &mut Output) -> Result<(), CliError> {
    let hosts: Vec<Option<String>> =
        if args.hosts.is_empty() { vec![None] } else { args.hosts.into_iter().map(Some).collect() };
    let text = |host| RuleText {
        action: args.action,
        host,
        port: args.port.clone(),
        methods: args.methods.clone(),
        paths: args.paths.clone(),
        address: args.address.clone(),
        rate: args.rate.clone(),
        tunnel: args.tunnel,
    };
    // Check all rules before storing the first one.
    let terms: Vec<RuleSpec> = hosts
        .into_iter()
        .map(|host| RuleSpec::try_from(text(host)).map_err(|error| CliError::Usage(error.to_string())))
        .collect::<Result<_, _>>()?;
    let several = terms.len() > 1;
    let mut added = Vec::new();
    for terms in terms {
        let request = RuleAdd { agent: args.agent.clone(), terms };
        added.push(client.post::<RuleView>(routes::RULES, &request)?);
    }
    if output.is_json() {
        match &added[..] {
            [one] if !several => output.document(one)?,
            all => output.document(&all)?,
        }
        return Ok(());
    }
    for rule in added {
        output.line(&format!("added rule {}: {}", rule.id, sentence(&rule)))?;
        rule.warnings.iter().try_for_each(|warning| output.warning(warning))?;
    }
    Ok(())
}

fn list(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let rules: Vec<RuleView> = client.get(routes::RULES)?;
    if output.is_json() {
        return Ok(output.document(&rules)?);
    }
    let rows: Vec<_> = rules
        .iter()
        .map(|rule| {
            [
                rule.id.to_string(),
                rule.action.to_string(),
                rule.agent.as_ref().map_or("all".to_owned(), ToString::to_string),
                or_dash(rule.host.as_ref()),
                port(rule),
                joined(&rule.methods, "all"),
                if rule.tunnel { "unread".to_owned() } else { joined(&rule.paths, "all") },
                or_dash(rule.address.as_ref()),
                or_dash(rule.rate.as_ref()),
            ]
        })
        .collect();
    Ok(output
        .table(["ID", "ACTION", "AGENT", "HOST", "PORT", "METHODS", "PATHS", "ADDRESS", "RATE"], &rows)?)
}

fn remove(client: &Client, id: RuleId, output: &mut Output) -> Result<(), CliError> {
    let removed: RuleView = client.delete(&routes::rule(id))?;
    if output.is_json() {
        return Ok(output.document(&removed)?);
    }
    Ok(output.line(&format!("removed rule {id}: {}", sentence(&removed)))?)
}

/// Formats the port as `rule add --port` accepts it.
fn port(rule: &RuleView) -> String {
    rule.port.map_or_else(|| "*".to_owned(), |port| port.to_string())
}

pub(crate) fn sentence(rule: &RuleView) -> String {
    let agent = rule.agent.as_ref().map_or("all agents".to_owned(), |agent| format!("agent '{agent}'"));
    let place = match (&rule.host, &rule.address) {
        (Some(host), Some(address)) => format!("{host} at {address}"),
        (Some(host), None) => host.clone(),
        (None, address) => or_dash(address.as_ref()),
    };
    let rate = rule.rate.as_ref().map(|rate| format!(", at most {rate}")).unwrap_or_default();
    format!(
        "{} {agent}: {} {place} port {} {}{rate}",
        rule.action,
        joined(&rule.methods, "all methods"),
        port(rule),
        if rule.tunnel { "unread".to_owned() } else { joined(&rule.paths, "all paths") }
    )
}

/// Prints the rules that an agent would need, as commands that can be run.
pub(crate) fn learn(
    client: &Client,
    name: &AgentName,
    all: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut path = routes::learn(name);
    if all {
        path = format!("{path}?{}", routes::EVERY_RUN);
    }
    let learned: Vec<LearnedRule> = client.get(&path)?;
    if output.is_json() {
        return Ok(output.document(&learned)?);
    }
    if learned.is_empty() {
        return Ok(output.line(&format!(
            "# agent '{name}' has no refused requests that a rule would allow; run it, then repeat this command"
        ))?);
    }
    output.line(&format!(
        "# Refused requests of agent '{name}'. Review each command before you run it: an agent may request anything."
    ))?;
    for learned in &learned {
        for line in lines(name, learned) {
            output.line(&line)?;
        }
    }
    Ok(())
}

/// Returns a comment with the reason, and the command. The command is commented out if it is doubtful.
fn lines(agent: &AgentName, learned: &LearnedRule) -> [String; 2] {
    let LearnedRule { count, code, doubt, rule } = learned;
    let (times, command) = (if *count == 1 { "once" } else { "times" }, command(agent, rule));
    let count = if *count == 1 { String::new() } else { format!("{count} ") };
    match doubt {
        Some(doubt) => {
            [format!("# refused {count}{times} ({code}); not active: {doubt}"), format!("# {command}")]
        }
        None if rule.port.is_none() => {
            [format!("# refused {count}{times} ({code}) as a name; this allows port 443"), command]
        }
        None => [format!("# refused {count}{times} ({code})"), command],
    }
}

/// Returns the command that adds a rule. All parts except patterns consist of letters, digits, `.`, `-`, `:` and `/`.
pub(crate) fn command(agent: &AgentName, rule: &RuleText) -> String {
    let mut words = format!("onecli rule add {} --agent {agent}", rule.action);
    let mut put = |option: &str, value: &str| {
        words.push_str(" --");
        words.push_str(option);
        words.push(' ');
        words.push_str(&quoted(value));
    };
    if let Some(host) = &rule.host {
        put("host", host);
    }
    if let Some(port) = rule.port.as_ref().filter(|port| *port != "443") {
        put("port", port);
    }
    rule.methods.iter().for_each(|method| put("method", method));
    rule.paths.iter().for_each(|path| put("path", path));
    if let Some(address) = &rule.address {
        put("address", address);
    }
    words
}

/// Quotes text as one shell word.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'/' | b'_');
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubtful_commands_are_comments() {
        let rule = RuleText {
            action: Action::Allow,
            host: Some("api.test".to_owned()),
            port: None,
            methods: Vec::new(),
            paths: Vec::new(),
            address: None,
            rate: None,
            tunnel: false,
        };
        let learned = |doubt: Option<&str>| LearnedRule {
            count: 2,
            code: "egress_denied".to_owned(),
            doubt: doubt.map(str::to_owned),
            rule: rule.clone(),
        };
        let agent = "coder".parse().unwrap();
        let [_, active] = lines(&agent, &learned(None));
        assert_eq!(active, "onecli rule add allow --agent coder --host api.test");
        let doubtful = lines(&agent, &learned(Some("of a reason")));
        assert!(doubtful.iter().all(|line| line.starts_with("# ")), "{doubtful:?}");
        assert!(doubtful[0].contains("of a reason"), "{doubtful:?}");
    }

    /// The line to paste contains text from an agent, which must remain one word.
    #[test]
    fn commands_can_be_pasted() {
        let rule = RuleText {
            action: Action::Allow,
            host: Some("api.test".to_owned()),
            port: Some("8443".to_owned()),
            methods: vec!["GET".to_owned()],
            paths: vec!["/a/*".to_owned(), "/it's$(rm)`x`".to_owned()],
            address: None,
            rate: None,
            tunnel: false,
        };
        assert_eq!(
            command(&"coder".parse().unwrap(), &rule),
            r"onecli rule add allow --agent coder --host api.test --port 8443 --method GET --path '/a/*' --path '/it'\''s$(rm)`x`'"
        );
    }
}
