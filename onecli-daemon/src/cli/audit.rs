//! `onecli audit ...`

use serde::Deserialize;

use super::CliError;
use super::client::Client;
use super::output::{Output, or_dash};
use crate::admin::api::{AuditQuery, routes};
use crate::model::AgentName;

const HEADING: [&str; 10] =
    ["TIME", "EVENT", "AGENT", "VERDICT", "STATUS", "METHOD", "HOST", "PATH", "SECRET", "CODE"];
/// For records that come in one by one. Longer cells push the rest of their line.
const WIDTHS: [usize; 10] = [27, 8, 12, 7, 6, 7, 24, 24, 12, 0];

/// What is shown of a record. A newer daemon may send more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    time: Option<String>,
    event: Option<String>,
    agent: Option<String>,
    verdict: Option<String>,
    status: Option<u16>,
    method: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<String>,
    secret: Option<String>,
    secret_version: Option<u32>,
    code: Option<String>,
    count: Option<u64>,
}

impl Record {
    fn cells(self) -> [String; 10] {
        let host = match (self.host, self.port) {
            (Some(host), Some(port)) if port != 443 => Some(format!("{host}:{port}")),
            (host, _) => host,
        };
        let secret = match (self.secret, self.secret_version) {
            (Some(secret), Some(version)) => Some(format!("{secret} v{version}")),
            (secret, _) => secret,
        };
        let code = match (self.code, self.count) {
            (Some(code), Some(count)) if count > 1 => Some(format!("{code} (x{count})")),
            (code, _) => code,
        };
        [
            or_dash(self.time),
            or_dash(self.event),
            or_dash(self.agent),
            or_dash(self.verdict),
            or_dash(self.status),
            or_dash(self.method),
            or_dash(host),
            or_dash(self.path),
            or_dash(secret),
            or_dash(code),
        ]
    }
}

pub(super) fn list(
    client: &Client,
    agent: Option<AgentName>,
    limit: u32,
    output: &mut Output,
) -> Result<(), CliError> {
    let path = path(agent, limit, false);
    if output.is_json() {
        return client.lines(&path, |line| Ok(output.raw_line(line)?));
    }
    let mut rows = Vec::new();
    client.lines(&path, |line| {
        rows.push(serde_json::from_slice::<Record>(line)?.cells());
        Ok::<_, CliError>(())
    })?;
    Ok(output.table(HEADING, &rows)?)
}

pub(super) fn tail(
    client: &Client,
    agent: Option<AgentName>,
    lines: u32,
    follow: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    if !output.is_json() {
        output.cells(&HEADING.map(str::to_owned), &WIDTHS)?;
        output.finish()?;
    }
    client.lines(&path(agent, lines, follow), |line| {
        if output.is_json() {
            output.raw_line(line)?;
        } else {
            output.cells(&serde_json::from_slice::<Record>(line)?.cells(), &WIDTHS)?;
        }
        // Whoever watches wants each record as it comes.
        Ok(output.finish()?)
    })
}

fn path(agent: Option<AgentName>, limit: u32, follow: bool) -> String {
    format!("{}?{}", routes::AUDIT, AuditQuery { agent, limit, follow }.to_query())
}
