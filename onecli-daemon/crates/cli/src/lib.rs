//! The `onecli` command: communicates with the daemon over its admin socket, and starts agents.
//!
//! [`main`] parses the command line and runs the command. `commands` contains a room for each noun.

#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod dispatch;
mod entry;
mod error;
mod host;
mod input;
mod output;
mod unparsed;

#[cfg(test)]
mod tests;

pub use args::definition;
pub use entry::main;
