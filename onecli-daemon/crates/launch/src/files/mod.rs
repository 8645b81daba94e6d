//! Files that an agent may change while the launcher works on them.

pub(crate) mod mount;
pub(crate) mod set_id;
pub(crate) mod start_time;
pub(crate) mod tree;
