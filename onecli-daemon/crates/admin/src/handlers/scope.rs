//! Limits on the records that a query reads.

use jiff::Timestamp;

/// Limits the records of an agent that a query reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecordScope {
    /// Only records of commands that this uid launched.
    pub(crate) launched_by: Option<u32>,
    /// Only records from this time on.
    pub(crate) since: Option<Timestamp>,
    /// [`onecli_store::AuditQuery::max_rows_read`].
    pub(crate) max_rows_read: Option<u32>,
}
