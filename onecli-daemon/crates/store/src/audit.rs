//! Audit rows and queries of them.

use jiff::Timestamp;
use onecli_model::{LogId, RequestId};

/// An audit record in the store: the searchable columns and the whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The order of arrival. The store assigns it; inserted rows have 0.
    pub id: u64,
    /// The log that the record belongs to: several hosts may share a store.
    pub log: LogId,
    /// The position in that log, from 1; unique there. At most `i64::MAX`.
    pub seq: u64,
    /// The time of writing, to the microsecond.
    pub time: Timestamp,
    /// The request; absent in records of the log about itself.
    pub request_id: Option<RequestId>,
    /// `decision`, `outcome` or `alert`.
    pub event: String,
    /// The name of the agent, if known. The column is no foreign key: the rows of a removed agent stay.
    pub agent: Option<String>,
    /// The host of the request.
    pub host: Option<String>,
    /// `inject`, `forward`, `tunnel` or `deny`.
    pub verdict: Option<String>,
    /// The code of a refusal.
    pub code: Option<String>,
    /// The uid of the user whose `onecli run` started the command that made the request.
    pub launched_by: Option<u32>,
    /// The record as in the log file, without the line end.
    pub json: String,
}

/// A query of audit rows. `Default` lists the first hundred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this agent.
    pub agent: Option<String>,
    /// Only of this host, in canonical form.
    pub host: Option<String>,
    /// Only with this verdict.
    pub verdict: Option<String>,
    /// Only with this code.
    pub code: Option<String>,
    /// Only with this event.
    pub event: Option<String>,
    /// Only of this request.
    pub request_id: Option<RequestId>,
    /// Only rows that arrived after the one with this id.
    pub after_id: Option<u64>,
    /// Only at or after this time.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only of commands that this uid launched.
    pub launched_by: Option<u32>,
    /// Excludes rows of commands that another uid launched. Rows without a uid are included.
    pub not_by_others: Option<u32>,
    /// Limits the search to this many of the newest rows of [`agent`](Self::agent) and
    /// [`launched_by`](Self::launched_by); all other conditions apply to these rows only. It bounds the work,
    /// however many rows there are.
    pub max_rows_read: Option<u32>,
    /// The most rows to return.
    pub limit: u32,
    /// If true, returns the newest rows, newest first; otherwise the oldest, oldest first.
    pub newest_first: bool,
}

impl Default for AuditQuery {
    fn default() -> AuditQuery {
        AuditQuery {
            agent: None,
            host: None,
            verdict: None,
            code: None,
            event: None,
            request_id: None,
            after_id: None,
            since: None,
            until: None,
            launched_by: None,
            not_by_others: None,
            max_rows_read: None,
            limit: 100,
            newest_first: false,
        }
    }
}
