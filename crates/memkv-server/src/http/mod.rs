//! HTTP/1.1 on the node's one address: the original's API, the REST API, health, and the way in for
//! peers. `conn`, `end`, `head`, `body` and `response` are the protocol; `app` routes
//! requests, `site` rejects those that a browser was made to send; `compat`, `kv`, `listing`, `txn`
//! (with `txn_body`), `backup` and `status` answer them; `json` is what JSON costs.
//!
//! Never executes any part of a request that it refuses.

mod access;
mod app;
mod backup;
mod body;
mod cluster;
mod compat;
mod condition;
mod conn;
mod date;
mod end;
mod events;
mod head;
mod health;
mod json;
mod kv;
mod limits;
mod listing;
mod query;
mod response;
mod site;
mod status;
mod txn;
mod txn_body;

#[cfg(test)]
mod tests;

pub use app::{Api, ApiSettings, PeerUpgrade};
pub(crate) use conn::serve_through;
pub use conn::{Admission, App, End, serve};
pub(crate) use date::rfc3339;
pub(crate) use head::trimmed;
pub use head::{Head, Refusal};
pub use limits::Limits;
pub use response::{Answer, Pieces, Response};
pub(crate) use status::uuid;
