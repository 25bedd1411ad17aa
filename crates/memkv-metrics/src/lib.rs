//! memkv-metrics: the measuring tools of the other crates.
//! Never exports a number by itself and never does I/O: `memkv-server` prints the metrics.
//! Invariant: measuring takes no lock and allocates nothing.

#![forbid(unsafe_code)]

mod fine;
mod histogram;

pub use fine::{FineCounted, FineHistogram};
pub use histogram::{Counted, Histogram};
