//! What a service does with credentials: the sessions, tokens and other credentials that it issues.

pub mod cookies;
pub mod issued;
pub mod mint;
