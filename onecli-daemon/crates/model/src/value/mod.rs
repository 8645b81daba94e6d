//! A secret value and its properties: its class, its strength and its encodings.

pub mod aws;
pub mod coding;
pub(crate) mod secret_value;
pub mod strength;
pub mod value_class;
