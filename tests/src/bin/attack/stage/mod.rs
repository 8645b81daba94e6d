//! What every technique uses: rows of the table, the world that they attack, statistics.

pub(crate) mod row;
pub(crate) mod stats;
pub(crate) mod world;
