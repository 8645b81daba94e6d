//! What a command reads: values, confirmations and .env files.

pub(crate) mod confirm;
pub(crate) mod dotenv;
pub(crate) mod value;
pub(crate) mod value_args;
