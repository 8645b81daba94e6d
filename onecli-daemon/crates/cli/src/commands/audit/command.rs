//! `onecli audit ...`

use onecli_api::{AuditQuery, routes};
use serde::Deserialize;

use super::args::AuditCommand;
use super::export::Export;
use super::verify;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, Progress, Unit, or_dash};

const HEADING: [&str; 10] =
    ["TIME", "EVENT", "AGENT", "VERDICT", "STATUS", "METHOD", "HOST", "PATH", "SECRET", "CODE"];
/// Column widths for records that arrive one at a time. A longer cell shifts the rest of its line.
const WIDTHS: [usize; 10] = [27, 8, 12, 7, 6, 7, 24, 24, 12, 0];

/// The displayed fields of a record. A newer daemon may send more.
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
    backend: Option<String>,
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
        let secret = match (secret, self.backend) {
            (Some(secret), Some(backend)) => Some(format!("{secret} ({backend})")),
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

/// Runs the command.
pub(crate) fn run(client: &Client, command: AuditCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        AuditCommand::List { filter, limit, all } => {
            let filter = (*filter).into();
            list(client, &AuditQuery { filter, limit, every_run: all, ..AuditQuery::default() }, output)
        }
        AuditCommand::Tail { filter, lines, follow } => {
            let filter = (*filter).into();
            tail(client, &AuditQuery { filter, limit: lines, follow, ..AuditQuery::default() }, output)
        }
        AuditCommand::Export { filter, format } => {
            let query = AuditQuery { filter: (*filter).into(), all: true, ..AuditQuery::default() };
            let mut export = Export::new(format);
            if let Some(header) = export.header()? {
                output.record(&header)?;
            }
            // On a terminal, the printed lines already show progress.
            if output.is_terminal() {
                return client.lines(&path(&query), |line| Ok(output.record(&export.line(line)?)?));
            }
            Progress::during("exporting", Unit::Items("records"), |progress| {
                let mut count = 0;
                client.lines(&path(&query), |line| {
                    count += 1;
                    progress.at(count, None);
                    Ok(output.record(&export.line(line)?)?)
                })
            })
        }
        AuditCommand::Verify(args) => verify::run(args, output),
    }
}

fn list(client: &Client, query: &AuditQuery, output: &mut Output) -> Result<(), CliError> {
    let path = path(query);
    if output.is_json() {
        return client.lines(&path, |line| Ok(output.record(line)?));
    }
    let mut rows = Vec::new();
    client.lines(&path, |line| {
        let mut cells = serde_json::from_slice::<Record>(line)?.cells();
        // A file keeps the exact time, because it is read later.
        if let (true, Ok(time)) = (output.is_terminal(), cells[0].parse()) {
            cells[0] = output.time(time);
        }
        rows.push(cells);
        Ok::<_, CliError>(())
    })?;
    Ok(output.table(HEADING, &rows)?)
}

fn tail(client: &Client, query: &AuditQuery, output: &mut Output) -> Result<(), CliError> {
    if !output.is_json() {
        output.cells(&HEADING.map(str::to_owned), &WIDTHS)?;
        output.finish()?;
    }
    client.lines(&path(query), |line| {
        if output.is_json() {
            output.record(line)?;
        } else {
            output.cells(&serde_json::from_slice::<Record>(line)?.cells(), &WIDTHS)?;
        }
        // A follower wants each record immediately.
        Ok(output.finish()?)
    })
}

fn path(query: &AuditQuery) -> String {
    format!("{}?{}", routes::AUDIT, query.to_query())
}
