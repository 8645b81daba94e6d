//! The command line of `onecli audit ...`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use onecli_api::{AuditFilter, AuditQuery};
use onecli_audit::{Event, Verdict, Verifier};
use onecli_model::{AgentName, Clock, Host, RequestId};
use onecli_sys::SystemClock;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// The newest records, oldest first.
    #[command(after_help = "\
Examples:
  onecli audit list --agent coder --since 1h
  onecli audit list --verdict deny --host api.github.com
  onecli audit list --event alert --since 2026-01-02 --until 2026-01-03")]
    List {
        #[command(flatten)]
        filter: Box<FilterArgs>,
        /// At most so many.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(AuditQuery::MAX_LIMIT)))]
        limit: u32,
        /// Records of every run of the agent. Administrators always see every run; a permitted runner sees the own ones, and needs
        /// 'agent allow-run --see-all yes' for this.
        #[arg(long)]
        all: bool,
    },
    /// The last records, and with -f those to come.
    Tail {
        #[command(flatten)]
        filter: Box<FilterArgs>,
        /// Begin with so many.
        #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=i64::from(AuditQuery::MAX_LIMIT)))]
        lines: u32,
        /// Go on until interrupted.
        #[arg(short, long)]
        follow: bool,
    },
    /// All records, for other programs.
    #[command(after_help = "\
jsonl: the records as they are; csv: a column for each field, with a header; cells that a spreadsheet would take for a
formula begin with an apostrophe; ocsf: Open Cybersecurity Schema Framework 1.6, class 4002 (HTTP Activity), and class
0 (Base Event) for what is told of no request, one object per line.

Examples:
  onecli audit export --since 7d > audit.jsonl
  onecli audit export --format csv --agent coder > coder.csv")]
    Export {
        #[command(flatten)]
        filter: Box<FilterArgs>,
        /// jsonl, csv or ocsf.
        #[arg(long, value_enum, default_value = "jsonl")]
        format: ExportFormat,
    },
    /// Find out whether the log is as it was written; needs no daemon.
    #[command(after_help = "\
Reads the log's files, follows the links between records, and holds them against the signed checkpoints beside them. It
finds records that were edited, cut out, put in or reordered, files taken from elsewhere, an end that was cut off and one
that was added to. It names the first record that is wrong in each segment, in order, up to a hundred. Exit code 1 then.

A daemon that finds its log changed goes on behind it, in a new segment or with a new log, and the first record there says
so: audit_damaged, audit_truncated, audit_contradicted, audit_appended. The files stay as they were found, so this command
tells of them again each time. Look into it, keep a copy of the directory, note where it ends, and verify what comes after
with --from SEGMENT; what comes before is then not looked at.

What it cannot see: records that were cut off at the end together with the checkpoint that covers them, where an older
checkpoint was put back. For that, have checkpoints kept elsewhere (audit.witnesses in the configuration) and give them
with --witness. And whoever can replace all files can replace the key that lies beside them: note the key that this
command prints, and give it with --public-key.

Examples:
  sudo onecli audit verify
  sudo onecli audit verify --from 7
  onecli audit verify --dir ./copy-of-audit --public-key 'onecli/audit/0198...+c0ffee01+AZ...' --witness checkpoints.txt")]
    Verify(VerifyArgs),
}

/// Find out whether the log is as it was written.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The log's directory.
    #[arg(long, default_value = "/var/lib/onecli/audit", value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// The log's public key, as this command prints it. Default: the file 'public-key' in the directory.
    #[arg(long, value_name = "KEY")]
    pub(super) public_key: Option<Verifier>,
    /// The first segment to look at, by the number in its file's name: behind damage that is known.
    #[arg(long, value_name = "SEGMENT", value_parser = parse_segment)]
    pub(super) from: Option<u64>,
    /// A file with checkpoints that somebody else kept, or lines of a syslog with them; may be given again.
    #[arg(long, value_name = "FILE")]
    pub(super) witness: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    Jsonl,
    Csv,
    Ocsf,
}

/// Which records: those that fit all of these.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct FilterArgs {
    /// Of this agent.
    #[arg(long)]
    pub(super) agent: Option<AgentName>,
    /// Of this host.
    #[arg(long)]
    pub(super) host: Option<String>,
    /// With this decision: inject, forward, tunnel, deny.
    #[arg(long, visible_alias = "decision", value_name = "VERDICT")]
    pub(super) verdict: Option<Verdict>,
    /// decision, outcome, alert, approval.
    #[arg(long)]
    pub(super) event: Option<Event>,
    /// With this code, such as `egress_denied`.
    #[arg(long)]
    pub(super) code: Option<String>,
    /// Of this request: the id that an error names.
    #[arg(long, value_name = "ID")]
    pub(super) request: Option<RequestId>,
    /// Since then: 2026-01-02, 2026-01-02T03:04:05Z, or 1h for an hour ago (s, m, h, d, w).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) since: Option<Timestamp>,
    /// Before then.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) until: Option<Timestamp>,
}

impl From<FilterArgs> for AuditFilter {
    fn from(args: FilterArgs) -> AuditFilter {
        // As records have it; what is no host is looked for as it is.
        let host = args.host.map(|host| host.parse::<Host>().map_or(host, |host| host.to_string()));
        AuditFilter {
            agent: args.agent,
            host,
            verdict: args.verdict,
            event: args.event,
            code: args.code,
            request: args.request,
            since: args.since,
            until: args.until,
        }
    }
}

/// A segment's number, with or without the zeros and the suffix of its file's name.
fn parse_segment(text: &str) -> Result<u64, String> {
    let digits = text.strip_suffix(".jsonl").unwrap_or(text);
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it is a segment's number, as in 00000007.jsonl: 7".to_owned())
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    time_before(SystemClock.now(), text)
}

/// A time, or how long before `now`. A day without a time begins at midnight UTC.
pub(super) fn time_before(now: Timestamp, text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = format!("{text}T00:00:00Z").parse::<Timestamp>() {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| SignedDuration::try_from(ago).ok());
    ago.and_then(|ago| now.checked_sub(ago).ok()).ok_or_else(|| {
        format!("'{text}' is no time: write 2026-01-02, 2026-01-02T03:04:05Z, or 1h for an hour ago")
    })
}
