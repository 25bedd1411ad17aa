//! HTTP/1.1 on the node's one address: the seed's API, the REST API, health, and the way in for
//! peers. `conn`, `head`, `body` and `response` are the protocol; `app` decides what a request is;
//! `seed`, `kv` and `status` answer it.
//!
//! Never executes anything of a request that it refuses.

mod app;
mod body;
mod conn;
mod date;
mod head;
mod kv;
mod limits;
mod response;
mod seed;
mod status;

#[cfg(test)]
mod tests;

pub use app::{Api, ApiSettings, PeerUpgrade};
pub use conn::{Admission, App, End, serve};
pub use head::{Head, Refusal};
pub use limits::Limits;
pub use response::Response;
pub(crate) use status::uuid;
