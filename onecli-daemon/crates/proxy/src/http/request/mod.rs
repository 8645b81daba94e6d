//! A request: its head, its outgoing form, and its permission.

pub(crate) mod assemble;
pub(crate) mod head;
pub(crate) mod revoked;

#[cfg(test)]
mod tests;
