//! The one table of metrics: names, types, meanings, and where each is read. A name is never
//! reused for another meaning; units are seconds and bytes.

use std::sync::atomic::{AtomicU64, Ordering};

use memkv_metrics::Counted;
use memkv_node::{Phase, Role};

use super::Seen;
use crate::ledger::Class;
use crate::{audit, panics, tls};

/// A metric's type, in Prometheus's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// One sentence.
    pub(super) help: &'static str,
    pub(super) read: fn(&Seen<'_>) -> Samples,
}

/// A metric's value now.
pub(super) enum Samples {
    /// One number.
    One(f64),
    /// One number, or no sample.
    Maybe(Option<f64>),
    /// A number for each value of a label. No value: no sample.
    Each(&'static str, Vec<(String, f64)>),
    /// Durations, counted in nanoseconds.
    Seconds(Counted),
    /// The same for each value of a label.
    EachSeconds(&'static str, Vec<(&'static str, Counted)>),
    /// Numbers of things.
    Sizes(Counted),
}

/// `kind name help => how to read it`, one metric per entry.
macro_rules! metrics {
    ($($kind:ident $name:literal $help:literal => $read:expr;)*) => {
        /// All metrics, in the order of the page.
        pub(super) const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            help: $help,
            read: $read,
        },)*];
    };
}

metrics! {
    Gauge "memkv_build_info" "Always 1; the label says which version runs."
        => |_| Samples::Each("version", vec![(env!("CARGO_PKG_VERSION").to_owned(), 1.0)]);
    Gauge "memkv_uptime_seconds" "Age of the process."
        => |seen| Samples::One(seen.server.started.elapsed().as_secs_f64());
    Counter "memkv_panics_total" "Connections of clients that a defect of memkv has closed; the log says where, and it is worth a report. Any other panic ends the process."
        => |_| whole(panics::contained());
    Counter "memkv_audit_refused_total" "Refused events for the audit log: wrong credentials, missing rights, unproven peers."
        => |_| whole(audit::refused());
    Counter "memkv_audit_lines_lost_total" "Lines of the audit log that were lost, because the file could not be written or not fast enough."
        => |_| whole(audit::lost());
    Gauge "memkv_node_serving" "1 if the node is a member of a cluster and serves, 0 while it waits or after it has stopped."
        => |seen| flag(seen.node.status.phase == Phase::Serving);
    Gauge "memkv_durability" "Always 1; the label says what an acknowledged write has survived: sync or os."
        => |seen| {
            let mode = if seen.node.status.sync { "sync" } else { "os" };
            Samples::Each("mode", vec![(mode.to_owned(), 1.0)])
        };
    Gauge "memkv_raft_term" "Raft term."
        => |seen| whole(seen.node.status.term);
    Gauge "memkv_raft_leader" "1 if this node leads."
        => |seen| flag(seen.node.status.role == Role::Leader);
    Gauge "memkv_raft_has_leader" "1 if this node leads or follows a leader."
        => |seen| flag(seen.node.status.leader.is_some());
    Gauge "memkv_raft_members" "Members of the cluster as this node knows them, newcomers among them."
        => |seen| whole(seen.node.status.members.len() as u64);
    Gauge "memkv_raft_voters" "Members that vote, as this node knows them; replicas and newcomers do not."
        => |seen| whole(seen.node.status.voters as u64);
    Gauge "memkv_raft_voters_answering" "Voters that have answered the leader lately, itself included, at the leader; a node that knows no leader counts itself only, and a follower has no sample."
        => |seen| Samples::Maybe(seen.node.status.voters_answering.map(|voters| voters as f64));
    Gauge "memkv_feature_level" "The cluster's feature level, as far as this node uses it."
        => |seen| whole(u64::from(seen.node.status.level));
    Gauge "memkv_feature_level_announced" "The highest feature level that a member announces; no sample before it has announced one."
        => |seen| {
            let members = seen.node.status.members.iter();
            let announced = members.filter(|member| member.highest_level > 0);
            let level = announced.map(|member| (member.name.clone(), f64::from(member.highest_level)));
            Samples::Each("member", level.collect())
        };
    Gauge "memkv_raft_commit_index" "Last log entry that is known to be committed."
        => |seen| whole(seen.node.status.commit_index);
    Gauge "memkv_raft_applied_index" "Last log entry that was applied here."
        => |seen| whole(seen.node.status.applied_index);
    Counter "memkv_raft_leader_changes_total" "Changes of leader that this node has seen, itself as leader included."
        => |seen| whole(seen.stats.leader_changes);
    Gauge "memkv_raft_proposals_pending" "Groups of commands that wait, at the leader, for the next log entry."
        => |seen| whole(seen.stats.proposals_pending);
    Counter "memkv_raft_proposals_failed_total" "Groups of commands of this node that came back without having been applied; most are sent again."
        => |seen| whole(seen.stats.proposals_failed);
    Gauge "memkv_peer_lag_entries" "Log entries that another member lacks, at the leader only."
        => |seen| {
            let lag = seen.stats.peer_lag.iter();
            Samples::Each("peer", lag.map(|(name, lag)| (name.clone(), *lag as f64)).collect())
        };
    Counter "memkv_forwarded_total" "Commands that this node has sent to the leader, those that were sent again counted again."
        => |seen| whole(seen.stats.forwarded);
    Histogram "memkv_wal_fsync_duration_seconds" "Time to make the log durable."
        => |seen| Samples::Seconds(seen.stats.fsync.clone());
    Histogram "memkv_apply_duration_seconds" "Time to apply a run of log entries."
        => |seen| Samples::Seconds(seen.stats.apply.clone());
    Histogram "memkv_readindex_batch_size" "Linearizable reads that shared one confirmation by the leader."
        => |seen| Samples::Sizes(seen.stats.read_batch.clone());
    Histogram "memkv_command_duration_seconds" "Time from a command's arrival to its answer, reads and writes of all protocols; a pipeline's commands take as long as those executed with them."
        => |seen| Samples::EachSeconds("class", vec![
            ("read", seen.latency.reads.counted()),
            ("write", seen.latency.writes.counted()),
        ]);
    Counter "memkv_commands_total" "Commands of Redis clients."
        => |seen| count(&seen.server.stats.commands);
    Counter "memkv_command_errors_total" "Errors among the replies to Redis clients."
        => |seen| count(&seen.server.stats.errors);
    Gauge "memkv_connections" "Open connections of Redis clients."
        => |seen| whole(seen.server.clients.len() as u64);
    Counter "memkv_connections_total" "Connections of Redis clients that were accepted."
        => |seen| whole(seen.server.clients.total());
    Counter "memkv_connections_rejected_total" "Connections of Redis clients that were rejected, because max_connections were open."
        => |seen| count(&seen.server.stats.rejected);
    Gauge "memkv_connections_unproven" "Open connections of clients and peers that have not authenticated."
        => |seen| whole(seen.server.admission.unproven.load(Ordering::Relaxed) as u64);
    Counter "memkv_connections_expelled_total" "Connections that were closed because they did not authenticate in time, or because others needed their places."
        => |seen| count(&seen.server.admission.expelled);
    Gauge "memkv_peer_connections" "Open connections that peers have opened."
        => |seen| whole(seen.server.admission.peers.load(Ordering::Relaxed) as u64);
    Counter "memkv_connections_slow_total" "Connections of Redis clients that were closed because they sent a request or read their replies at less than 1 KiB/s."
        => |seen| count(&seen.server.stats.slow);
    Gauge "memkv_client_memory_bytes" "Memory that clients cause on this node, by what it is for."
        => |seen| each_class(|class| Some(seen.server.ledger.used(class) as f64));
    Gauge "memkv_client_memory_cap_bytes" "The most that clients' memory may be, by what it is for; connections are bounded by max_connections."
        => |seen| each_class(|class| seen.server.ledger.cap(class).map(|bytes| bytes as f64));
    Gauge "memkv_client_memory_limit_bytes" "The most that clients' memory may be in all, without that of connections."
        => |seen| whole(seen.server.ledger.total() as u64);
    Counter "memkv_client_memory_refused_total" "Requests and subscriptions that were refused because clients' memory was used up, by what it is for."
        => |seen| each_class(|class| Some(seen.server.ledger.refused(class) as f64));
    Counter "memkv_authentication_failures_total" "Attempts of clients to authenticate that failed: guesses, or an application with an old password."
        => |seen| whole(seen.server.rights.counted()[0]);
    Counter "memkv_denied_total" "Commands that a user may not run, or not with these keys or channels; ACL LOG has the last ones."
        => |seen| whole(seen.server.rights.counted()[1]);
    Counter "memkv_network_input_bytes_total" "Bytes read from Redis clients."
        => |seen| count(&seen.server.stats.input_bytes);
    Counter "memkv_network_output_bytes_total" "Bytes written to Redis clients."
        => |seen| count(&seen.server.stats.output_bytes);
    Gauge "memkv_subscriptions" "Subscriptions to channels and patterns on this node."
        => |seen| whole(seen.server.subscriptions.total() as u64);
    Counter "memkv_publications_unconfirmed_total" "Published messages that another node did not confirm: it does not answer or reads too slowly."
        => |seen| whole(seen.stats.publications_unconfirmed);
    Counter "memkv_notices_dropped_total" "Keyspace notifications that were not delivered, because too many waited."
        => |seen| count(&seen.server.stats.dropped_key_events);
    Gauge "memkv_keys" "Keys of each database that has any."
        => |seen| {
            let databases = seen.node.databases.iter();
            Samples::Each("db", databases.map(|db| (db.index.to_string(), db.keys as f64)).collect())
        };
    Gauge "memkv_keys_with_deadline" "Keys that will expire, of each database that has any keys."
        => |seen| {
            let databases = seen.node.databases.iter();
            Samples::Each("db", databases.map(|db| (db.index.to_string(), db.expires as f64)).collect())
        };
    Counter "memkv_expired_total" "Keys that their deadlines have removed since the cluster was formed; the same on every node."
        => |seen| whole(seen.node.expired);
    Gauge "memkv_revision" "Write operations that the cluster has executed, as far as they are applied here."
        => |seen| whole(seen.node.status.revision);
    Gauge "memkv_memory_bytes" "Memory of the process in RAM; no sample where the system does not tell."
        => |seen| Samples::Maybe(seen.resident_bytes.map(|bytes| bytes as f64));
    Gauge "memkv_dataset_bytes" "Estimated memory of keys, values, their bookkeeping and cached replies."
        => |seen| whole(seen.node.memory_bytes);
    Gauge "memkv_keys_cost_bytes" "What the keys cost, as the memory cap counts: their bytes and 96 for each key; the same on every node."
        => |seen| whole(seen.node.memory.cost);
    Gauge "memkv_maxmemory_bytes" "The memory cap: while the keys cost as much, commands that may grow them are refused, or keys are evicted; no sample without a cap."
        => |seen| Samples::Maybe(seen.node.memory.cap.map(|bytes| bytes as f64));
    Gauge "memkv_maxmemory_alarm" "95 or 80 while the keys cost at least so many percent of the memory cap, else 0."
        => |seen| whole([95, 80].into_iter().find(|share| seen.node.memory.share_percent() >= *share).unwrap_or(0));
    Gauge "memkv_memory_limit_bytes" "The most memory that the process may take; no sample if it is not known."
        => |seen| Samples::Maybe(seen.stats.memory_limit.map(|bytes| bytes as f64));
    Gauge "memkv_memory_low" "1 while the process is near the limit of its memory: growth stops for 30 s, or while a majority is."
        => |seen| flag(seen.node.status.memory_low);
    Counter "memkv_refused_for_memory_total" "Commands of this node that were refused at the memory cap."
        => |seen| whole(seen.stats.growth_refused);
    Counter "memkv_evicted_total" "Keys that were evicted since the cluster was formed; the same on every node."
        => |seen| whole(seen.node.memory.evicted);
    Gauge "memkv_log_segments" "Segment files of the log."
        => |seen| whole(seen.node.status.log_segments as u64);
    Gauge "memkv_snapshot_index" "Last log entry that the newest snapshot here covers; 0 for none."
        => |seen| whole(seen.node.status.snapshot.as_ref().map_or(0, |last| last.index));
    Counter "memkv_snapshots_built_total" "Snapshots that were built here."
        => |seen| whole(seen.stats.snapshots_built);
    Counter "memkv_snapshots_installed_total" "Snapshots of a leader that replaced this node's data."
        => |seen| whole(seen.stats.snapshots_installed);
    Gauge "memkv_disk_free_bytes" "Free bytes of the fuller one of the log's and the snapshots' disks, without the reserve; no sample before they were measured."
        => |seen| Samples::Maybe(seen.stats.disk_free.map(|bytes| bytes as f64));
    Gauge "memkv_disk_low" "1 if the disk has too little space for another snapshot; while it is 1 on a majority, writes are refused."
        => |seen| flag(seen.stats.disk_low);
    Counter "memkv_divergence_checks_total" "Rounds in which this node compared its data with that of other nodes; none while nothing is written."
        => |seen| whole(seen.stats.divergence_checks);
    Gauge "memkv_divergence_alarm" "1 if the nodes' data differ and none of the values has a majority, so that it is not known which node is right; a node of a minority is replaced instead."
        => |seen| flag(seen.stats.divergence_alarm);
    Counter "memkv_tls_handshakes_total" "Connections of clients and peers that were taken over TLS."
        => |_| whole(tls::counts().done);
    Counter "memkv_tls_handshake_failures_total" "Connections that were closed because no TLS came about, by reason."
        => |_| {
            let failed = tls::counts().failed.into_iter();
            Samples::Each("reason", failed.map(|(why, count)| (why.to_owned(), count as f64)).collect())
        };
    Gauge "memkv_tls_certificate_not_after_seconds" "When this node's certificate ends, in seconds since the Unix epoch; no sample without TLS."
        => |_| Samples::Maybe(tls::counts().not_after.map(|end| end as f64));
    Gauge "memkv_tls_files_broken" "1 if the files of TLS were changed and cannot be used; those before stay in force, and the log says why."
        => |_| flag(tls::counts().is_broken);
    Counter "memkv_clock_steps_total" "Jumps of this machine's wall clock by more than half a second."
        => |seen| whole(seen.stats.clock_steps);
    Gauge "memkv_clock_skew_seconds" "Log time minus this machine's wall clock."
        => |seen| Samples::One((seen.node.now_ms as f64 - seen.wall_ms as f64) / 1000.0);
}

fn each_class(read: impl Fn(Class) -> Option<f64>) -> Samples {
    let classes = Class::ALL.into_iter();
    let each = classes.filter_map(|class| Some((class.name().to_owned(), read(class)?)));
    Samples::Each("class", each.collect())
}

fn whole(number: u64) -> Samples {
    Samples::One(number as f64)
}

fn flag(is: bool) -> Samples {
    Samples::One(f64::from(u8::from(is)))
}

fn count(counter: &AtomicU64) -> Samples {
    whole(counter.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_meanings_keep_to_the_conventions() {
        for (at, metric) in METRICS.iter().enumerate() {
            let name = metric.name;
            let is_known = METRICS[..at].iter().any(|other| other.name == name);
            assert!(!is_known && name.starts_with("memkv_"), "{name}");
            let word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(name.bytes().all(word), "{name}");
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
            assert!(!metric.help.contains(['\\', '\n', '|']), "{name}");
        }
    }
}
