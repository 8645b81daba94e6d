//! The command line of `onecli audit ...`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use onecli_api::{AuditFilter, AuditQuery};
use onecli_audit::{Event, Verdict, Verifier};
use onecli_model::{AgentName, Clock, Host, RequestId};
use onecli_sys::SystemClock;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List the newest records, oldest first.
    #[command(after_help = "\
Examples:
  onecli audit list --agent coder --since 1h
  onecli audit list --verdict deny --host api.github.com
  onecli audit list --event alert --since 2026-01-02 --until 2026-01-03")]
    List {
        #[command(flatten)]
        filter: Box<FilterArgs>,
        /// The largest number of records.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(AuditQuery::MAX_LIMIT)))]
        limit: u32,
        /// Include every run of the agent. Administrators always see every run. A permitted runner sees only their own
        /// runs, and needs 'agent allow-run --see-all yes' for this option.
        #[arg(long)]
        all: bool,
    },
    /// Print the newest records, and with -f new ones as they arrive.
    Tail {
        #[command(flatten)]
        filter: Box<FilterArgs>,
        /// The number of earlier records to print.
        #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=i64::from(AuditQuery::MAX_LIMIT)))]
        lines: u32,
        /// Continue with new records until interrupted.
        #[arg(short, long)]
        follow: bool,
    },
    /// Export all records for other programs.
    #[command(after_help = "\
Formats:
  jsonl  the stored records, one object per line
  csv    a header, and one column per field; cells that a spreadsheet would treat as formulas begin with an apostrophe
  ocsf   Open Cybersecurity Schema Framework 1.6, one object per line: class 4002 (HTTP Activity), and class 0 (Base
         Event) for records that do not belong to a request

Examples:
  onecli audit export --since 7d > audit.jsonl
  onecli audit export --format csv --agent coder > coder.csv")]
    Export {
        #[command(flatten)]
        filter: Box<FilterArgs>,
        /// The format: jsonl, csv or ocsf.
        #[arg(long, value_enum, default_value = "jsonl")]
        format: ExportFormat,
    },
    /// Verify that the log is unchanged; does not require the daemon.
    #[command(after_help = "\
Reads the log's files, checks the hash links between records, and compares them with the signed checkpoints in the same
directory. It detects records that were edited, removed, inserted or reordered, files of another log, and an end that was
truncated or appended to. If it detects a change, it prints the first bad record of each segment, in order, up to a
hundred, and the exit code is 1.

A daemon that detects a change in its log continues after it, in a new segment or with a new log. The first record there
reports the change: audit_damaged, audit_truncated, audit_contradicted, audit_appended. The files stay unchanged, so this
command reports the change each time. Investigate it, copy the directory, and note where the change ends. Then verify the
later records with --from SEGMENT, which skips everything before that segment.

It cannot detect records that were removed at the end together with the checkpoint that covers them, if an older
checkpoint was restored. To detect that, store checkpoints elsewhere (audit.witnesses in the configuration) and pass them
with --witness. An attacker who can replace all files can also replace the key in the same directory. Note the key that
this command prints, and pass it with --public-key.

Examples:
  sudo onecli audit verify
  sudo onecli audit verify --from 7
  onecli audit verify --dir ./copy-of-audit --public-key 'onecli/audit/0198...+c0ffee01+AZ...' --witness checkpoints.txt")]
    Verify(VerifyArgs),
}

/// Verify that the log is unchanged.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The directory of the log.
    #[arg(long, default_value = "/var/lib/onecli/audit", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The log's public key, as printed by this command. Default: the file 'public-key' in the directory.
    #[arg(long, value_name = "KEY")]
    pub(super) public_key: Option<Verifier>,
    /// The first segment to verify, by the number in its file's name. Use it to skip known damage.
    #[arg(long, value_name = "SEGMENT", value_parser = parse_segment)]
    pub(crate) from: Option<u64>,
    /// A file of checkpoints stored elsewhere, or of syslog lines with checkpoints; may be given again.
    #[arg(long, value_name = "FILE")]
    pub(crate) witness: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    Jsonl,
    Csv,
    Ocsf,
}

/// Selects the records that match every given condition.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilterArgs {
    /// Only records of this agent.
    #[arg(long)]
    pub(crate) agent: Option<AgentName>,
    /// Only records of this host.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Only records with this decision: inject, forward, tunnel, deny.
    #[arg(long, visible_alias = "decision", value_name = "VERDICT")]
    pub(crate) verdict: Option<Verdict>,
    /// Only records of this kind: decision, outcome, alert, approval.
    #[arg(long)]
    pub(crate) event: Option<Event>,
    /// Only records with this reason code, such as `egress_denied`.
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Only records of this request: the id in an error message.
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<RequestId>,
    /// Only records since this time: 2026-01-02, 2026-01-02T03:04:05Z, or 1h for an hour ago (s, m, h, d, w).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) since: Option<Timestamp>,
    /// Only records before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) until: Option<Timestamp>,
}

impl From<FilterArgs> for AuditFilter {
    fn from(args: FilterArgs) -> AuditFilter {
        // Records contain hosts in canonical form. Other text is compared unchanged.
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

/// Parses a segment number, with or without the zeros and the suffix of the file name.
fn parse_segment(text: &str) -> Result<u64, String> {
    let digits = text.strip_suffix(".jsonl").unwrap_or(text);
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "use the number of a segment: 7 for 00000007.jsonl".to_owned())
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    time_before(SystemClock.now(), text)
}

/// Parses a time, or a duration before `now`. A date without a time is midnight UTC.
pub(super) fn time_before(now: Timestamp, text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = format!("{text}T00:00:00Z").parse::<Timestamp>() {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| SignedDuration::try_from(ago).ok());
    ago.and_then(|ago| now.checked_sub(ago).ok()).ok_or_else(|| {
        format!("'{text}' is not a time: use 2026-01-02, 2026-01-02T03:04:05Z, or 1h for an hour ago")
    })
}
