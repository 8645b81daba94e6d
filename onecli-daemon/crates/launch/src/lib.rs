//! Starts a command as an agent: in its cgroup, as its user, without privileges, with a view of the files without the
//! host's services, and with an environment without secrets.
//!
//! [`run`] is the client side, which the user starts. [`worker::serve`] is the launcher side, which runs as root: it
//! asks the daemon whether the user may start the command, and forks. The child becomes the command (`worker::launch`).
//! Between the two sides is a [`LauncherSocket`]: to the launcher's socket or, if the user is root, within one program.

mod client;
mod confine;
mod directories;
mod error;
mod executed;
mod files;
mod host;
mod process;
mod protocol;
mod running;
mod server;
mod text;
mod view;
pub mod worker;

pub use client::session::{CallerFiles, CommandOutcome, run};
pub use error::{EXIT_NOT_STARTED, LaunchError};
pub use executed::configs_of_environment;
pub use host::agents_dir::{AGENTS_DIR, AgentsDir};
pub use host::clients::{Trust, installed_clients};
pub use host::homes::{Homes, is_system};
pub use host::program::find as find_program;
pub use host::user::{LaunchUser, is_no_login};
pub use process::terminal::size as terminal_size;
pub use protocol::wire::{LaunchIdentity, LauncherSocket, MAX_SHARES, Project, Request};
pub use running::records::clean_up;
pub use server::socket::{DEFAULT_SOCKET, ServerError, beside, in_process, listener, serve};
pub use text::shown;
pub use view::mounts::View;
pub use view::place::{BUNDLE, JAVA_TRUST_STORE};
pub use view::truststore::java_trust_store;
pub use worker::env::{AgentEnvironment, CA_VARIABLES, environment, proxy_environment, taken_over};
pub use worker::launch::Launch;
pub use worker::{Authorised, Caller, Permission, PermissionQuery, Rules, default_action};

#[cfg(test)]
mod tests;
