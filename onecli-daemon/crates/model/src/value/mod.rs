//! Properties of a secret value: its class, its strength and its encodings.

pub mod aws;
pub mod coding;
pub mod strength;
pub mod value_class;
