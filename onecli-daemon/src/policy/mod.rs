//! Who may do what: identities, decisions and grants. Pure functions over a snapshot; no I/O.

mod grant;

pub use grant::Grant;
