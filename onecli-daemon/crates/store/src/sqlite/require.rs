//! Checks of the rows that a statement found or changed.

use crate::StoreError;

pub(super) fn require_row(what: &'static str, id: String, rows: u64) -> Result<(), StoreError> {
    if rows == 0 { Err(StoreError::NotFound { what, id }) } else { Ok(()) }
}

pub(super) fn require_next(
    what: &'static str,
    id: String,
    column: &'static str,
    stored: Option<u32>,
    offered: u32,
) -> Result<(), StoreError> {
    match stored {
        None => Err(StoreError::NotFound { what, id }),
        Some(stored) if stored.checked_add(1) == Some(offered) => Ok(()),
        Some(stored) => Err(StoreError::Conflict { what, id, column, stored, offered }),
    }
}
