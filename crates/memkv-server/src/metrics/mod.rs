//! `GET /metrics`: a node's state and counters in Prometheus's text format. `table` lists the metrics
//! and is the source of the documentation's page; `text` writes them.
//!
//! Nothing is counted here but how long clients' commands take, without a lock and without an
//! allocation; everything else is read where it is counted anyway, and as INFO reads it.

mod table;
mod text;

use std::time::Duration;

use memkv_metrics::Histogram;
use memkv_node::NodeStats;

use crate::backend::Introspection;
use crate::process;
use crate::resp::Server;

/// How long commands took from their arrival to their answer. A pipeline's commands that are
/// executed together took as long as all of them.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) reads: Histogram,
    pub(crate) writes: Histogram,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            reads: Histogram::of_durations(),
            writes: Histogram::of_durations(),
        }
    }
}

impl Latency {
    pub(crate) fn read(&self, took: Duration, times: usize) {
        self.reads.count_duration(took, times as u64);
    }

    pub(crate) fn wrote(&self, took: Duration, times: usize) {
        self.writes.count_duration(took, times as u64);
    }
}

/// The sources of the metrics.
pub(crate) struct Seen<'a> {
    pub(crate) server: &'a Server,
    pub(crate) node: &'a Introspection,
    pub(crate) stats: &'a NodeStats,
    pub(crate) latency: &'a Latency,
    /// Milliseconds since the Unix epoch, by the wall clock.
    pub(crate) wall_ms: u64,
    /// Memory of the process in RAM, if the system tells.
    pub(crate) resident_bytes: Option<u64>,
}

/// All metrics as they are now.
pub(crate) fn show(
    server: &Server,
    node: &Introspection,
    stats: &NodeStats,
    latency: &Latency,
) -> String {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seen = Seen {
        server,
        node,
        stats,
        latency,
        wall_ms: wall.map_or(0, |wall| {
            u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
        }),
        resident_bytes: process::resident_bytes(),
    };
    text::write(table::METRICS, &seen)
}

/// The page of the documentation, `docs/metrics.md`.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         `GET /metrics` on a node's address answers in Prometheus's text format, without asking any \
         other node. Where the\ncluster has a password it is wanted here too: Prometheus sends it \
         with `basic_auth` (user `default`) or as a bearer\ntoken. While a node loads its data the \
         answer is 503. Counters begin at zero with the process; those of Redis\nclients also with \
         `CONFIG RESETSTAT`. `INFO` tells the same numbers.\n\n\
         | Metric | Type | Meaning |\n|---|---|---|\n",
    );
    for metric in table::METRICS {
        let kind = metric.kind.name();
        page.push_str(&format!(
            "| `{}` | {kind} | {} |\n",
            metric.name, metric.help
        ));
    }
    page.push_str(
        "\nWorth an alert: `memkv_raft_has_leader` is 0 for a minute; `memkv_raft_leader_changes_total` \
         rises by more than three in\na quarter of an hour; `memkv_disk_low`, `memkv_memory_low` or `memkv_divergence_alarm` is 1; \
         `memkv_maxmemory_alarm` is above 0; \
         `memkv_tls_files_broken` is 1 or `memkv_tls_certificate_not_after_seconds` is less than 14 days away; \
         `memkv_peer_lag_entries` grows; the 99th percentile of\n`memkv_wal_fsync_duration_seconds` \
         is above 10 ms; `memkv_node_serving` is 0.\n\n\
         This page is printed by `cargo run -p memkv-server --example metrics`, and a test compares \
         the two.\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_describes_these_metrics() {
        let written = include_str!("../../../../docs/metrics.md");
        assert!(
            written == page(),
            "docs/metrics.md is out of date; write it again with \
             `cargo run -p memkv-server --example metrics > docs/metrics.md`"
        );
    }
}
