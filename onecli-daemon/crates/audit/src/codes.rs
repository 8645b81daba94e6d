//! Codes of the records that the log writes about itself.

/// Code of the record that reports an unfinished write cut off at start. Its count is in bytes.
pub(super) const CODE_TORN: &str = "audit_torn";
/// Code of the record which reports that records covered by a checkpoint are missing or changed. Its count is in
/// records, if known.
pub(super) const CODE_DAMAGED: &str = "audit_damaged";
/// Code of the record which reports that the files end before the store's last record. Its count is in records. A
/// new log begins with it.
pub(super) const CODE_TRUNCATED: &str = "audit_truncated";
/// Code of the record that reports bytes behind the end of a log that a daemon had ended. Its count is in bytes.
/// The bytes were moved aside.
pub(super) const CODE_APPENDED: &str = "audit_appended";
/// Code of the record which reports that the end of the files contradicts the store's last row. Its count is that
/// row's number. A new log begins with it.
pub(super) const CODE_CONTRADICTED: &str = "audit_contradicted";
/// Code of the record that follows records which a killed daemon had not yet signed. Its count is the number of
/// records before it that only links protect.
pub(super) const CODE_UNSIGNED: &str = "audit_unsigned";
/// Code of the record that reports removed segments. Its count is the number of the last removed record.
pub(super) const CODE_PRUNED: &str = "audit_pruned";
/// Code of the record which reports that a segment differs from what was signed. Neither it nor any later segment
/// is removed for age or size. Its count is the segment's number.
pub(super) const CODE_SEGMENT_DIFFERS: &str = "audit_kept";
/// Code of the record that reports outcomes lost while the disk failed. Its count is in records.
pub(super) const CODE_LOST: &str = "audit_lost";
/// Code of the record that reports decisions refused while the disk failed. Its count is in records.
pub(super) const CODE_REFUSED: &str = "audit_refused";
/// Code of the record that reports unsynced records: a relaxed log acknowledged them, then the disk failed to sync
/// them. A power failure may have lost them. Its count is in records.
pub(super) const CODE_UNSYNCED: &str = "audit_unsynced";
