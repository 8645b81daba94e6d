//! Set-ups that several programs and tests run: a daemon that is killed under load, and scripts with their hosts.

pub mod chaos;
pub mod scripts;
