//! The Rust client of memkv: reads and writes keys through any node of a cluster.
//!
//! Speaks the REST API (`/v1/kv/{key}`, raw bytes) over kept-alive HTTP/1.1 connections, inside TLS where it
//! is told so. Every node
//! answers everything, so the client stays with the node that works and goes on to the next one
//! when it does not. One deadline covers all that a call tries.
//!
//! Never sends a write a second time unless the first one certainly was not executed; where that is
//! open, the call fails with [`Error::Unknown`] and says so.
//!
//! ```no_run
//! # async fn example() -> Result<(), memkv_client::Error> {
//! use memkv_client::{Client, Endpoints};
//!
//! let client = Client::connect(Endpoints::parse("127.0.0.1:11081,127.0.0.1:11082")?).await?;
//! client.set(b"name", "value").await?;
//! let entry = client.get(b"name").await?;
//! assert_eq!(entry.unwrap().value, "value");
//! # Ok(())
//! # }
//! ```

mod answer;
mod backup;
mod client;
mod cluster;
mod connection;
mod endpoints;
mod error;
mod listing;
mod options;
mod routing;
mod tls;
mod txn;

pub use backup::Download;
pub use client::{Client, DEFAULT_TIMEOUT, Entry, Sum};
pub use cluster::{ClusterView, Health, NodeView, Silence};
pub use endpoints::{DEFAULT_ENDPOINT, Endpoints};
pub use error::{Attempt, Error, Operation};
pub use listing::{Item, Page};
pub use options::{Condition, ListOptions, SetOptions};
pub use tls::{Tls, TlsFiles, server_name, tls_failure};
pub use txn::{Guard, Step, StepResult, Txn, TxnAnswer};
