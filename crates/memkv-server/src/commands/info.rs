//! `INFO`: a node's state and counters, in Redis's sections and one of memkv's own. A field that
//! memkv does not count has no line; a section that does not exist is empty.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use memkv_node::Role;

use super::connection::REDIS_VERSION;
use super::{Call, ErrorReply};
use crate::backend::Introspection;
use crate::http::uuid;
use crate::process::resident_bytes;
use crate::resp::{Kind, Server};

type Section = fn(&mut String, &Server, Option<&Introspection>);

/// Sections in their order, and whether one is shown without being asked for. `everything` shows no more than
/// `all`: what it adds in Redis are the sections of modules.
const SECTIONS: &[(&str, bool, Section)] = &[
    ("Server", true, about_server),
    ("Clients", true, about_clients),
    ("Memory", true, about_memory),
    ("Persistence", true, about_persistence),
    ("Stats", true, about_stats),
    ("Replication", true, about_replication),
    ("Commandstats", false, about_commands),
    ("Errorstats", true, about_errors),
    ("Latencystats", false, about_latency),
    ("Cluster", true, about_cluster),
    ("Keyspace", true, about_keyspace),
    ("Raft", true, about_raft),
    ("Peers", false, about_peers),
];

pub(super) fn info(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let named = |name: &str| (1..args.len()).any(|at| args.is(at, name));
    let wants_all = named("all") || named("everything");
    let wants_default = args.len() == 1 || named("default");
    let wants = |(name, is_default, _): &&(&str, bool, Section)| {
        wants_all || (*is_default && wants_default) || named(name)
    };
    let node = call.server.introspect();
    let mut text = String::new();
    for (name, _, section) in SECTIONS.iter().filter(wants) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        line(&mut text, format_args!("# {name}"));
        section(&mut text, call.server, node.as_ref());
    }
    call.reply().verbatim(b"txt", text.as_bytes());
    Ok(())
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{line}\r\n");
}

/// Lines `name:value`.
fn lines<const N: usize>(text: &mut String, values: [(&str, &dyn std::fmt::Display); N]) {
    for (name, value) in values {
        line(text, format_args!("{name}:{value}"));
    }
}

fn about_server(text: &mut String, server: &Server, node: Option<&Introspection>) {
    let uptime = server.started.elapsed().as_secs();
    lines(
        text,
        [
            ("redis_version", &REDIS_VERSION),
            ("memkv_version", &env!("CARGO_PKG_VERSION")),
            ("redis_mode", &"standalone"),
            ("os", &std::env::consts::OS),
            ("arch_bits", &usize::BITS),
            ("process_id", &std::process::id()),
            ("run_id", &server.run_id),
            ("tcp_port", &server.settings.port),
            (
                "server_time_usec",
                &(node.map_or(0, |node| node.now_ms) * 1000),
            ),
            ("uptime_in_seconds", &uptime),
            ("uptime_in_days", &(uptime / (24 * 60 * 60))),
        ],
    );
}

fn about_clients(text: &mut String, server: &Server, _: Option<&Introspection>) {
    lines(
        text,
        [
            ("connected_clients", &server.clients.len()),
            ("maxclients", &server.settings.max_connections),
            ("blocked_clients", &0),
            ("tracking_clients", &0),
        ],
    );
}

fn about_memory(text: &mut String, server: &Server, node: Option<&Introspection>) {
    let used = node.map_or(0, |node| node.memory_bytes);
    let resident = resident_bytes().unwrap_or(0);
    let memory = node.map(|node| node.memory).unwrap_or_default();
    let cap = memory.cap.unwrap_or(0);
    let ratio = match used {
        0 => 0.0,
        used => resident as f64 / used as f64,
    };
    lines(
        text,
        [
            ("used_memory", &used),
            ("used_memory_human", &human(used)),
            ("used_memory_rss", &resident),
            ("used_memory_dataset", &memory.cost),
            ("mem_clients_normal", &server.ledger.used_in_all()),
            ("maxmemory", &cap),
            ("maxmemory_human", &human(cap)),
            ("maxmemory_policy", &memory.policy.name()),
            ("mem_fragmentation_ratio", &format!("{ratio:.2}")),
        ],
    );
}

/// A size as Redis prints it: `1.50M`.
fn human(bytes: u64) -> String {
    let units = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    match units.into_iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.2}{unit}", bytes as f64 / size as f64),
        None => format!("{bytes}B"),
    }
}

fn about_persistence(text: &mut String, server: &Server, node: Option<&Introspection>) {
    let status = node.map(|node| &node.status);
    let is_building = status.is_some_and(|status| status.building_snapshot);
    // A write that the disk does not take ends the process; one that would not fit is refused first.
    let is_low = status.is_some_and(|status| status.disk_low);
    lines(
        text,
        [
            ("loading", &u8::from(node.is_none())),
            ("async_loading", &0),
            ("rdb_changes_since_last_save", &0),
            ("rdb_bgsave_in_progress", &u8::from(is_building)),
            ("rdb_last_bgsave_status", &"ok"),
            ("aof_enabled", &1),
            ("aof_rewrite_in_progress", &0),
            ("aof_last_write_status", &if is_low { "err" } else { "ok" }),
        ],
    );
    let Some(stats) = server.measured() else {
        return;
    };
    let fsync = stats.fsync;
    lines(
        text,
        [
            ("fsyncs", &fsync.at_most.last().copied().unwrap_or(0)),
            ("fsync_p50_usec", &(fsync.quantile(500) / 1_000)),
            ("fsync_p99_usec", &(fsync.quantile(990) / 1_000)),
        ],
    );
}

fn about_stats(text: &mut String, server: &Server, node: Option<&Introspection>) {
    let stats = &server.stats;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    lines(
        text,
        [
            ("total_connections_received", &server.clients.total()),
            ("total_commands_processed", &count(&stats.commands)),
            ("total_net_input_bytes", &count(&stats.input_bytes)),
            ("total_net_output_bytes", &count(&stats.output_bytes)),
            ("rejected_connections", &count(&stats.rejected)),
            ("expired_keys", &node.map_or(0, |node| node.expired)),
            ("evicted_keys", &node.map_or(0, |node| node.memory.evicted)),
            ("total_error_replies", &count(&stats.errors)),
            ("pubsub_channels", &server.subscriptions.len(Kind::Channel)),
            ("pubsub_patterns", &server.subscriptions.len(Kind::Pattern)),
        ],
    );
}

fn about_replication(text: &mut String, _: &Server, node: Option<&Introspection>) {
    let index = node.map_or(0, |node| node.status.applied_index);
    lines(
        text,
        [
            ("role", &"master"),
            ("connected_slaves", &0),
            ("master_repl_offset", &index),
        ],
    );
}

fn about_commands(text: &mut String, server: &Server, _: Option<&Introspection>) {
    for seen in server.calls.seen() {
        let (calls, micros) = (seen.took.total, seen.took.nanos / 1_000);
        let per_call = match calls {
            0 => 0.0,
            calls => micros as f64 / calls as f64,
        };
        line(
            text,
            format_args!(
                "cmdstat_{}:calls={calls},usec={micros},usec_per_call={per_call:.2},\
                 rejected_calls={},failed_calls={}",
                seen.spec.name, seen.rejected, seen.failed
            ),
        );
    }
}

fn about_errors(text: &mut String, server: &Server, _: Option<&Introspection>) {
    for (kind, count) in server.errors.counted() {
        line(text, format_args!("errorstat_{kind}:count={count}"));
    }
}

fn about_latency(text: &mut String, server: &Server, _: Option<&Introspection>) {
    for seen in server.calls.seen().filter(|seen| seen.took.total > 0) {
        let micros = |permille| seen.took.quantile(permille) as f64 / 1_000.0;
        line(
            text,
            format_args!(
                "latency_percentiles_usec_{}:p50={:.3},p99={:.3},p99.9={:.3}",
                seen.spec.name,
                micros(500),
                micros(990),
                micros(999)
            ),
        );
    }
}

fn about_cluster(text: &mut String, _: &Server, _: Option<&Introspection>) {
    lines(text, [("cluster_enabled", &0)]);
}

fn about_keyspace(text: &mut String, _: &Server, node: Option<&Introspection>) {
    for database in node.into_iter().flat_map(|node| &node.databases) {
        line(
            text,
            format_args!(
                "db{}:keys={},expires={},avg_ttl=0",
                database.index, database.keys, database.expires
            ),
        );
    }
}

fn about_raft(text: &mut String, _: &Server, node: Option<&Introspection>) {
    let Some(node) = node else { return };
    let status = &node.status;
    let leader = status
        .members
        .iter()
        .find(|member| Some(&member.name) == status.leader.as_ref());
    let is_voter = |role| matches!(role, Role::Leader | Role::Follower | Role::Candidate);
    let voters = status
        .members
        .iter()
        .filter(|member| is_voter(member.role))
        .count();
    lines(
        text,
        [
            ("node_name", &status.name),
            ("node_id", &status.node_id),
            ("cluster_id", &status.cluster.map(uuid).unwrap_or_default()),
            ("raft_role", &role_name(status.role)),
            ("leader_id", &leader.map_or(0, |leader| leader.id)),
            ("leader_name", &status.leader.as_deref().unwrap_or_default()),
            ("leader_addr", &leader.map_or("", |leader| &leader.addr)),
            ("term", &status.term),
            ("commit_index", &status.commit_index),
            ("applied_index", &status.applied_index),
            (
                "lag",
                &status.commit_index.saturating_sub(status.applied_index),
            ),
            ("revision", &status.revision),
            ("voters", &voters),
            ("learners", &(status.members.len() - voters)),
            ("feature_level", &status.level),
            ("durability", &if status.sync { "sync" } else { "os" }),
            (
                "snapshot_index",
                &status.snapshot.as_ref().map_or(0, |last| last.index),
            ),
            ("log_segments", &status.log_segments),
            ("read_mode", &"linearizable"),
        ],
    );
    for (at, member) in status.members.iter().enumerate() {
        let role = role_name(member.role);
        line(
            text,
            format_args!(
                "peer{at}:id={},name={},addr={},role={role},highest_feature_level={}",
                member.id, member.name, member.addr, member.highest_level
            ),
        );
    }
}

/// A line for each other member, as this node has heard it; its lag where this node leads.
fn about_peers(text: &mut String, server: &Server, _: Option<&Introspection>) {
    let peers = server.measured().map_or_else(Vec::new, |stats| stats.peers);
    for (at, peer) in peers.into_iter().enumerate() {
        let state = match (peer.fails, peer.last_contact) {
            (true, _) => "failing",
            (false, Some(_)) => "up",
            (false, None) => "unknown",
        };
        let number = |number: Option<u128>| number.map_or("-".to_owned(), |it| it.to_string());
        let entries = number(peer.lag.map(|(entries, _)| entries.into()));
        let lag_ms = number(peer.lag.map(|(_, since)| since.as_millis()));
        let contact = number(peer.last_contact.map(|ago| ago.as_millis()));
        let round_trip = number(peer.round_trip.map(|took| took.as_micros()));
        line(
            text,
            format_args!(
                "peer{at}:id={},name={},addr={},state={state},round_trip_usec={round_trip},\
                 last_contact_ms={contact},lag_entries={entries},lag_ms={lag_ms},\
                 sent_bytes={},received_bytes={}",
                peer.id, peer.name, peer.addr, peer.sent, peer.received
            ),
        );
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(human(1023), "1023B");
        assert_eq!(human(1024), "1.00K");
        assert_eq!(human(3 << 29), "1.50G");
    }
}
