//! TLS for tests: certificates, connections, and proxies that add TLS or look at it.

mod ca;
mod client;
mod tunnel;
mod wiretap;

pub use ca::Ca;
pub use client::{TlsClient, tls_config};
pub use tunnel::Tunnel;
pub use wiretap::Wiretap;
