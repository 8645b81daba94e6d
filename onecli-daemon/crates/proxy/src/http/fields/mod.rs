//! Header and trailer fields: names, sizes, and which of them are forwarded.

pub(crate) mod head_size;
pub(crate) mod names;
pub(crate) mod trailers;
