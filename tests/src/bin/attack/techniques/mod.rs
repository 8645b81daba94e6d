//! The techniques, one file per family. `table` lists their rows.

pub(crate) mod agents;
pub(crate) mod certificate;
pub(crate) mod confirm;
pub(crate) mod cost;
pub(crate) mod credential;
pub(crate) mod dns;
pub(crate) mod echo;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod host;
pub(crate) mod identity;
pub(crate) mod issue;
pub(crate) mod memory;
pub(crate) mod oracle;
pub(crate) mod output;
pub(crate) mod path;
pub(crate) mod placeholder;
pub(crate) mod project;
pub(crate) mod request;
pub(crate) mod session;
pub(crate) mod table;
pub(crate) mod timing;
