//! `onecli secret add`: destinations, placement and kind of a credential.

use clap::{ArgGroup, Args as ClapArgs};
use onecli_api::EnvNames;
use onecli_model::template::Template;
use onecli_model::{
    CookieMode, FlushAfter, HostPattern, HostSet, MaskIssued, MethodSet, Mint, PathPattern, Placement,
    Profile, SecretName, Shape, Source, SourceCommand, SourceFile, TemplateChoice, TokenUrl, VaultReference,
};

use super::placement_args::{GROUP, PlacementArgs, words};
use crate::input::value_args::ValueArgs;

/// The options that determine the placement. At least one is required.
fn how() -> ArgGroup {
    let mints = ["oauth2_client", "oauth2_refresh", "github_app", "gcp"];
    let all = ["template"].into_iter().chain(words()).chain(mints);
    ArgGroup::new("how").required(true).multiple(true).args(all)
}

/// Store a credential.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new(GROUP), group = ArgGroup::new("mint"), group = how(), after_help = "\
The command reads the value from standard input, a file, or a prompt, never from the command line. It removes one line
break at the end. A value that does not look like the expected credential needs confirmation; a script needs --force.
With --vault, --file or --exec, no value is read: the daemon fetches it from there at each use.

Paths are exact unless they contain a wildcard: '*' matches any text within a segment, '**' any number of segments.
Hosts: 'api.x.com', '*.x.com' (one label), '**.x.com' (any depth).

A template defines the hosts, the placement, the variables and the form of a key ('onecli template list').

Examples:
  onecli secret add openai --template openai
  onecli secret add openai2 --host api.openai.com --bearer --env OPENAI_API_KEY
  onecli secret add github --host api.github.com --header 'Authorization: token {secret}' \\
      --method GET --path '/repos/acme/**' --env GH_TOKEN --value-file token.txt
  pass show npm | onecli secret add npm --host npm.acme.internal --bearer
  onecli secret add git --host git.acme.internal:8443 --basic deploy
  onecli secret add maps --host maps.googleapis.com --query key
  onecli secret add search --host api.search.test --replace json:/api_key --env SEARCH_KEY
  onecli secret add s3 --template aws --host '**.s3.eu-central-1.amazonaws.com' --value-file aws-key.json
  onecli secret add crm --host api.crm.test --oauth2-client https://login.crm.test/token --client-id 42 --value-stdin
  onecli secret add openai --template openai --vault 'secret/openai#api_key'
  onecli secret add npm --template npm --exec '/usr/local/bin/fetch-token npm'
  onecli secret add db-api --host db.acme.internal --basic app --vault 'database/creds/readonly#password'")]
pub(crate) struct SecretAddArgs {
    /// The secret's name: a-z, 0-9, '-', '_', '.'.
    pub(crate) name: SecretName,
    /// A host that the credential may be sent to, also as a URL; default port 443. May be given again, with the same
    /// port. Replaces the hosts of a template.
    #[arg(long = "host", value_name = "HOST[:PORT]", value_parser = parse_host, required_unless_present = "template")]
    pub(crate) hosts: Vec<(HostPattern, u16)>,
    /// The template of a common service, or a profile of it: github, github:read-repos.
    #[arg(long, group = "placement", value_name = "NAME[:PROFILE]")]
    pub(crate) template: Option<TemplateChoice>,
    /// A path pattern that the credential is limited to; may be given again. Default: /**.
    #[arg(long = "path", value_name = "PATTERN")]
    pub(crate) paths: Vec<PathPattern>,
    /// A method that the credential is limited to; may be given again. Default: all.
    #[arg(long = "method", value_name = "METHOD", value_parser = parse_method)]
    pub(crate) methods: Vec<String>,
    #[command(flatten)]
    pub(crate) placement: PlacementArgs<false>,
    /// The environment variables from which the agent's programs read it, separated by commas. They will contain the
    /// placeholder.
    #[arg(long, value_name = "VAR,...")]
    pub(crate) env: Option<EnvNames>,
    /// The prefix of the placeholder, for programs that check it: sk-, ghp_.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<Shape>,
    /// Treat '%2F' in this service's paths as part of a name, not as a separator.
    #[arg(long)]
    pub(crate) encoded_slash: bool,
    /// The treatment of credentials that the service issues in a response. listed: members and fields that the template
    /// lists are masked; others that look like credentials pass; both raise an alert. all: both are masked. none: both
    /// pass, with an alert. Default: listed.
    #[arg(long, value_name = "none|listed|all", requires = "template")]
    pub(crate) mask_issued: Option<MaskIssued>,
    /// The treatment of cookies that the service sets for a request with this secret. wrap: the agent gets sealed
    /// substitutes, which work only through OneCLI and only while the grant exists. strip: it gets none. pass: it gets
    /// the cookies themselves, which work anywhere, even after the grant ends. Default: the template's, or wrap.
    #[arg(long, value_name = "wrap|strip|pass")]
    pub(crate) cookies: Option<CookieMode>,
    /// Obtain tokens from this URL with OAuth 2.0 client credentials. The value is the client's secret.
    #[arg(long, group = "mint", value_name = "URL", requires = "client_id")]
    pub(super) oauth2_client: Option<TokenUrl>,
    /// Obtain tokens from this URL with a refresh token. The value is the refresh token, or JSON with `refresh_token`
    /// and `client_secret`.
    #[arg(long, group = "mint", value_name = "URL", requires = "client_id")]
    pub(super) oauth2_refresh: Option<TokenUrl>,
    /// Obtain tokens of a GitHub App's installation. The value is the app's private key (PEM).
    #[arg(long, group = "mint", value_name = "APP:INSTALLATION", value_parser = parse_app)]
    pub(super) github_app: Option<(String, u64)>,
    /// Obtain tokens of a Google service account for these scopes. The value is its key file.
    #[arg(long, group = "mint", value_name = "SCOPES")]
    pub(super) gcp: Option<String>,
    /// The id of the OAuth 2.0 client.
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    /// The scopes to request from the token server.
    #[arg(long, value_name = "SCOPES")]
    pub(crate) scope: Option<String>,
    /// The API to request a token for, if the token server requires one.
    #[arg(long, value_name = "API", requires = "oauth2_client")]
    pub(super) audience: Option<String>,
    /// The URL of GitHub's API, for an enterprise server.
    #[arg(long, value_name = "URL", requires = "github_app", default_value = "https://api.github.com/")]
    pub(super) github_api: TokenUrl,
    /// Release response bytes that may be the beginning of the value after a pause of this length, such as 250ms. By
    /// default they wait for the next bytes. A value sent in two parts around such a pause is not masked. If several
    /// secrets have the same host, all must set this option, and the longest pause applies.
    #[arg(long, value_name = "DURATION")]
    pub(super) flush_after: Option<FlushAfter>,
    /// Also allow plain HTTP, which is readable by everyone on the network path.
    #[arg(long)]
    pub(crate) allow_plaintext: bool,
    /// Fetch the value from HashiCorp Vault or OpenBao for each use, from this field: 'secret/openai#key', or
    /// 'secret/openai?version=3#key'. The path has the form that 'vault kv get' accepts. If the path returns a lease,
    /// each agent gets its own.
    #[arg(long, value_name = "PATH#FIELD", group = "source", conflicts_with_all = ["value_stdin", "value_file"])]
    pub(crate) vault: Option<VaultReference>,
    /// Read the value from this file on the daemon's host, at each use. Root only.
    #[arg(long, value_name = "FILE", group = "source", conflicts_with_all = ["value_stdin", "value_file"])]
    pub(crate) file: Option<SourceFile>,
    /// Obtain the value from the output of this command, which runs on the daemon's host without a shell. Root only.
    /// The program and each directory on its path must belong to root and be writable only by root. It runs as the user
    /// onecli-executor, for at most 10 s. It prints the value, or JSON: `{"value": "...", "expires_in": SECONDS}`, or
    /// `expires` with an RFC 3339 time. A value without an expiry time is used for 30 s.
    #[arg(long, value_name = "COMMAND", group = "source", conflicts_with_all = ["value_stdin", "value_file"])]
    pub(crate) exec: Option<SourceCommand>,
    #[command(flatten)]
    pub(crate) value: ValueArgs,
}

/// The destinations and properties of a secret, in the form that the daemon accepts.
pub(crate) struct ResolvedSecret {
    pub(crate) host: HostSet,
    pub(crate) port: u16,
    pub(crate) methods: MethodSet,
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) placement: Placement,
    pub(crate) profile: Profile,
    pub(crate) env: Option<EnvNames>,
}

impl SecretAddArgs {
    /// Combines template and options. Options take precedence.
    ///
    /// # Errors
    /// A sentence about missing or conflicting options.
    pub(crate) fn resolve(&self) -> Result<ResolvedSecret, String> {
        let template = self.template.map(|choice| choice.template.template());
        let narrow = self.template.and_then(|choice| choice.narrow);
        if narrow.is_some() && !(self.paths.is_empty() && self.methods.is_empty()) {
            return Err("a profile has its own methods and paths: omit --method and --path".to_owned());
        }
        let port = self.hosts.first().map_or(443, |(_, port)| *port);
        if self.hosts.iter().any(|(_, other)| *other != port) {
            return Err("a secret has one port: store another secret for the other port".to_owned());
        }
        let hosts = self.hosts.iter().map(|(host, _)| host.clone()).collect::<Vec<_>>();
        let hosts = match template {
            Some(template) if hosts.is_empty() => match narrow {
                Some(narrow) if narrow.wants_host => {
                    return Err(format!(
                        "the profile '{}' is for one host: name it with --host",
                        narrow.name
                    ));
                }
                Some(narrow) if !narrow.hosts.is_empty() => narrow.hosts.clone(),
                _ => template.hosts.clone(),
            },
            _ => hosts,
        };
        if hosts.is_empty() {
            return Err("the template has no host of its own: name it with --host".to_owned());
        }
        let mint = self.mint(template)?;
        let placement = match (self.placement.selected(), template) {
            (Some(placement), _) => placement.clone(),
            (None, Some(template)) => template.placement.clone(),
            // A token, whether minted or not.
            (None, None) => Placement::bearer(),
        };
        let env = match (&self.env, template) {
            (Some(env), _) => Some(env.clone()),
            (None, Some(template)) if !template.env.is_empty() => {
                Some(template.env.join(",").parse().map_err(|error| format!("{error}"))?)
            }
            _ => None,
        };
        let shape = self.prefix.clone().or_else(|| template.map(|template| template.shape.clone()));
        let profile = Profile {
            template: self.template.map(|choice| choice.template),
            shape: shape.unwrap_or_default(),
            encoded_slash: self.encoded_slash || template.is_some_and(|template| template.encoded_slash),
            mint,
            source: self.source(),
            mask_issued: self.mask_issued.unwrap_or_default(),
            flush_after: self.flush_after,
            cookies: self.cookies,
        };
        let (methods, paths) = if let Some(narrow) = narrow {
            (narrow.methods.clone(), narrow.paths.clone())
        } else {
            let methods = MethodSet::try_from(self.methods.clone()).map_err(|error| error.to_string())?;
            (methods, self.paths.clone())
        };
        Ok(ResolvedSecret {
            host: hosts.into_iter().collect(),
            port,
            methods,
            paths,
            placement,
            profile,
            env,
        })
    }

    /// Returns the external source of the value, if the value is not given.
    fn source(&self) -> Option<Source> {
        let file = || self.file.clone().map(Source::File);
        let exec = || self.exec.clone().map(Source::Exec);
        self.vault.clone().map(Source::Vault).or_else(file).or_else(exec)
    }

    fn mint(&self, template: Option<&Template>) -> Result<Option<Mint>, String> {
        let client_id = || self.client_id.clone().unwrap_or_default();
        if let Some(url) = &self.oauth2_client {
            return Ok(Some(Mint::ClientCredentials {
                token_url: url.clone(),
                client_id: client_id(),
                scope: self.scope.clone(),
                audience: self.audience.clone(),
            }));
        }
        if let Some(url) = &self.oauth2_refresh {
            let (token_url, scope) = (url.clone(), self.scope.clone());
            return Ok(Some(Mint::RefreshToken { token_url, client_id: client_id(), scope }));
        }
        if let Some((app, installation)) = &self.github_app {
            let api = self.github_api.clone();
            return Ok(Some(Mint::GithubApp { api, app: app.clone(), installation: *installation }));
        }
        if self.client_id.is_some() {
            return Err("--client-id requires --oauth2-client or --oauth2-refresh".to_owned());
        }
        let of_template = template.and_then(|template| template.mint.as_deref());
        let of_template = of_template.and_then(|mint| mint.strip_prefix("gcp ")).map(str::to_owned);
        let scope = self.gcp.clone().or_else(|| of_template.map(|own| self.scope.clone().unwrap_or(own)));
        Ok(scope.map(|scope| Mint::GcpServiceAccount { scope }))
    }
}

/// Parses `APP:INSTALLATION`.
fn parse_app(text: &str) -> Result<(String, u64), String> {
    let bad = || {
        format!("'{text}': enter APP:INSTALLATION, the app's id or client id and the installation's number")
    };
    let (app, installation) = text.split_once(':').ok_or_else(bad)?;
    let plain =
        !app.is_empty() && app.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    match (plain, installation.parse()) {
        (true, Ok(installation)) => Ok((app.to_owned(), installation)),
        _ => Err(bad()),
    }
}

/// Parses like [`parse_host_and_port`], with default port 443.
pub(super) fn parse_host(text: &str) -> Result<(HostPattern, u16), String> {
    let (host, port) = parse_host_and_port(text)?;
    Ok((host, port.unwrap_or(443)))
}

/// Parses `HOST[:PORT]` or a URL, whose scheme implies a port. The host may be a pattern.
pub(super) fn parse_host_and_port(text: &str) -> Result<(HostPattern, Option<u16>), String> {
    let (text, default_port) = authority_in(text)?;
    let (host, port) = match text.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, rest)) => match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(format!("'{text}' is not a valid host and port")),
        },
        None => match text.split_once(':') {
            // More than one colon: an IPv6 address without brackets has no port.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port.map(str::parse::<u16>) {
        None => default_port,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return Err(format!("'{text}': the port must be a number from 1 to 65535")),
    };
    Ok((host.parse().map_err(|error| format!("{error}"))?, port))
}

/// Splits a URL into host with port, and the port that its scheme implies. Other text has no scheme.
fn authority_in(text: &str) -> Result<(&str, Option<u16>), String> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok((text, None)) };
    let port = match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => 443,
        "http" | "ws" => 80,
        _ => return Err(format!("'{text}': a secret can be sent only to https:// or http://")),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match path {
        "" | "/" => Ok((authority, Some(port))),
        path => {
            let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
            Err(format!(
                "'{text}' has a path: use --host {authority}, and add --path '{path}/**' to limit the secret \
                 to that path"
            ))
        }
    }
}

pub(super) fn parse_method(text: &str) -> Result<String, String> {
    MethodSet::try_from(vec![text.to_owned()]).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
