//! Talk between nodes: `transport` is what carries a request, `message` what is in it, `client` sends it
//! and `server` answers it.
//!
//! Opens no socket: `memkv-server` and the simulator do.

pub(crate) mod addresses;
pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod contacts;
pub(crate) mod encoding;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod message;
pub(crate) mod server;
pub(crate) mod transport;
