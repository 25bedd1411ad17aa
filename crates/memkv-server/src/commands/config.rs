//! `CONFIG`: settings under the names that Redis has for them, for clients and tools that look
//! before they work. Three can be set here, for the whole cluster: which events of keys are announced, the
//! memory cap, and what makes room at it. Three more, about what is slow, hold for this node until its process ends.
//! All others are in the configuration file.

use std::ops::RangeInclusive;

use memkv_resp::Pattern;
use memkv_store::{Command, DATABASES, EvictionPolicy, KeyEventClasses};

use super::{Args, Call, ErrorReply, Op, ReplyFormat};
use crate::report;
use crate::resp::{Server, most_waiting};

/// Most patterns of one CONFIG GET: more than there are settings, and all of them the slowest that
/// there are take some hundredths of a second.
const MAX_PATTERNS: usize = 64;

/// The settings that can be set.
const MAXMEMORY: &str = "maxmemory";
const POLICY: &str = "maxmemory-policy";
const ANNOUNCE: &str = "notify-keyspace-events";

/// The settings of this node alone, which are forgotten with its process.
const SLOW_MICROS: &str = "slowlog-log-slower-than";
const SLOW_LEN: &str = "slowlog-max-len";
const SPIKE_MS: &str = "latency-monitor-threshold";
const OF_NODE: [&str; 3] = [SLOW_MICROS, SLOW_LEN, SPIKE_MS];

/// What an acknowledgement means.
const APPEND_FSYNC: &str = "appendfsync";

/// Settings that are the same on every node.
const FIXED: [(&str, &str); 20] = [
    ("activedefrag", "no"),
    ("appendonly", "yes"),
    ("bind", ""),
    ("cluster-enabled", "no"),
    ("daemonize", "no"),
    ("dir", ""),
    ("hash-max-listpack-entries", "512"),
    ("latency-tracking", "yes"),
    ("latency-tracking-info-percentiles", "50 99 99.9"),
    ("lazyfree-lazy-user-flush", "yes"),
    ("list-max-listpack-size", "-2"),
    ("protected-mode", "no"),
    ("replica-read-only", "no"),
    ("replica-serve-stale-data", "yes"),
    ("requirepass", ""),
    ("save", ""),
    ("set-max-intset-entries", "512"),
    ("slave-read-only", "no"),
    ("tcp-keepalive", "60"),
    ("zset-max-listpack-entries", "128"),
];

/// Settings that the node must be asked for.
const ASKED: [&str; 14] = [
    APPEND_FSYNC,
    "client-output-buffer-limit",
    "databases",
    SPIKE_MS,
    SLOW_MICROS,
    SLOW_LEN,
    "maxclients",
    "maxmemory-clients",
    MAXMEMORY,
    POLICY,
    ANNOUNCE,
    "port",
    "proto-max-bulk-len",
    "timeout",
];

/// Names and values, in the order of the names.
fn values(server: &Server) -> Vec<(&'static str, String)> {
    let settings = &server.settings;
    let mut values: Vec<_> = FIXED
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    let node = server.introspect();
    let memory = node.as_ref().map(|node| node.memory).unwrap_or_default();
    values.push((MAXMEMORY, memory.cap.unwrap_or(0).to_string()));
    values.push((POLICY, memory.policy.name().to_owned()));
    let announced = node.and_then(|node| node.announced);
    let announced = announced.unwrap_or(settings.announce);
    values.push((ANNOUNCE, announced.letters()));
    // Without fsync the operating system decides, which Redis calls `no`.
    let fsync = if settings.sync { "always" } else { "no" };
    values.push((APPEND_FSYNC, fsync.to_owned()));
    let outbox = most_waiting(&server.ledger, 1);
    let limits = format!("normal 0 0 0 slave 0 0 0 pubsub {outbox} 0 0");
    values.push(("client-output-buffer-limit", limits));
    let clients = server.ledger.total().to_string();
    values.push(("maxmemory-clients", clients));
    let timeout = settings.idle_time.map_or(0, |time| time.as_secs());
    values.push(("timeout", timeout.to_string()));
    values.push(("databases", DATABASES.to_string()));
    let (slow_log, spikes) = (&server.slow_log, &server.spikes);
    values.push((SLOW_MICROS, slow_log.least_micros().to_string()));
    values.push((SLOW_LEN, slow_log.max_len().to_string()));
    values.push((SPIKE_MS, spikes.least_ms().to_string()));
    values.push(("maxclients", settings.max_connections.to_string()));
    values.push(("port", settings.port.to_string()));
    values.push(("proto-max-bulk-len", settings.max_value_bytes.to_string()));
    values.sort_unstable();
    values
}

pub(super) fn get(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    if args.len() > 2 + MAX_PATTERNS {
        return Err(ErrorReply::with(format!(
            "ERR CONFIG GET takes at most {MAX_PATTERNS} patterns"
        )));
    }
    let patterns: Result<Vec<_>, _> = (2..args.len()).map(|at| args.pattern(at)).collect();
    let patterns = patterns?;
    let mut values = values(call.server);
    values.retain(|(name, _)| {
        let matches = |pattern: &Pattern| pattern.matches_any_case(name.as_bytes());
        patterns.iter().any(matches)
    });
    let mut reply = call.reply();
    reply.map(values.len());
    for (name, value) in values {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(())
}

pub(super) fn set(args: &Args<'_>) -> Result<Op, ErrorReply> {
    if !args.len().is_multiple_of(2) {
        return Err(ErrorReply::SYNTAX);
    }
    let known = FIXED.iter().map(|(name, _)| *name).chain(ASKED);
    let is_known = |name: &[u8]| known.clone().any(|known| known.as_bytes() == name);
    let names: Vec<_> = (2..args.len())
        .step_by(2)
        .map(|at| args.get(at).to_ascii_lowercase())
        .collect();
    if let Some(unknown) = names.iter().position(|name| !is_known(name)) {
        let text = b"ERR Unknown option or number of arguments for CONFIG SET - '";
        return Err(ErrorReply::with(
            [text, args.get(2 + 2 * unknown), b"'"].concat(),
        ));
    }
    let is_twice = |(at, name)| names[..at].contains(name);
    if let Some((_, name)) = names.iter().enumerate().find(|at| is_twice(*at)) {
        return Err(refused(name, "duplicate parameter"));
    }
    let is_of_node = |name: &Vec<u8>| OF_NODE.map(str::as_bytes).contains(&&name[..]);
    if names.iter().all(is_of_node) {
        return Ok(Op::Here(set_of_node));
    }
    if let Some(name) = names.iter().find(|name| is_of_node(name)) {
        let why = "it is a setting of this node alone; set it in a command of its own";
        return Err(refused(name, why));
    }
    let is_settable = |name: &&Vec<u8>| {
        [MAXMEMORY, POLICY, ANNOUNCE]
            .map(str::as_bytes)
            .contains(&&name[..])
    };
    if let Some(name) = names.iter().find(|name| !is_settable(name)) {
        return Err(refused(name, "can't set immutable config"));
    }
    let is_announce = |name: &Vec<u8>| name[..] == *ANNOUNCE.as_bytes();
    if !names.iter().any(is_announce) {
        return set_memory(args, &names);
    }
    if names.len() > 1 {
        let why = "set it in a command of its own";
        return Err(refused(ANNOUNCE.as_bytes(), why));
    }
    let classes = KeyEventClasses::parse(args.get(3)).ok_or_else(|| {
        let why = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
        refused(ANNOUNCE.as_bytes(), why)
    })?;
    Ok(Op::Write(Command::Announce { classes }, ReplyFormat::Plain))
}

/// Sets what holds for this node alone: all of it, or nothing.
fn set_of_node(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let value = |at: usize, name: &str, range: RangeInclusive<i64>| {
        let refused = |why: &str| refused(name.as_bytes(), why);
        let value = args.int(at).map_err(|_| {
            let why = "argument couldn't be parsed into an integer";
            refused(why)
        })?;
        match range.contains(&value) {
            true => Ok(value),
            false => Err(refused(&format!(
                "argument must be between {} and {} inclusive",
                range.start(),
                range.end()
            ))),
        }
    };
    let most = i64::try_from(report::MAX_LEN).unwrap_or(i64::MAX);
    let (mut micros, mut len, mut spike) = (None, None, None);
    for at in (2..args.len()).step_by(2) {
        if args.is(at, SLOW_MICROS) {
            micros = Some(value(at + 1, SLOW_MICROS, -1..=i64::MAX)?);
        } else if args.is(at, SLOW_LEN) {
            len = Some(value(at + 1, SLOW_LEN, 0..=most)?);
        } else {
            spike = Some(value(at + 1, SPIKE_MS, 0..=i64::MAX)?);
        }
    }
    let server = call.server;
    if let Some(micros) = micros {
        server.slow_log.set_least_micros(micros);
    }
    if let Some(len) = len.and_then(|len| usize::try_from(len).ok()) {
        server.slow_log.set_max_len(len);
    }
    if let Some(ms) = spike {
        server.spikes.set_least_ms(ms.unsigned_abs());
    }
    call.reply().ok();
    Ok(())
}

/// Sets the memory cap, what makes room at it, or both.
fn set_memory(args: &Args<'_>, names: &[Vec<u8>]) -> Result<Op, ErrorReply> {
    let (mut cap, mut policy) = (None, None);
    for (at, name) in names.iter().enumerate() {
        let value = args.get(3 + 2 * at);
        if name[..] == *MAXMEMORY.as_bytes() {
            let bytes = memory_bytes(value);
            cap = Some(bytes.ok_or_else(|| refused(name, "argument must be a memory value"))?);
        } else {
            let parsed = EvictionPolicy::parse(value);
            let why = "argument(s) must be one of the following: noeviction, volatile-ttl";
            policy = Some(parsed.ok_or_else(|| refused(name, why))?);
        }
    }
    Ok(Op::Write(
        Command::SetMemory { cap, policy },
        ReplyFormat::Plain,
    ))
}

/// A number of bytes with a unit, as Redis reads it: `1k` is 1000, `1kb` is 1024.
fn memory_bytes(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let units = text.find(|digit: char| !digit.is_ascii_digit());
    let (digits, unit) = text.split_at(units.unwrap_or(text.len()));
    let unit = match unit {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn refused(name: &[u8], why: &str) -> ErrorReply {
    let text = b"ERR CONFIG SET failed (possibly related to argument '";
    ErrorReply::with([text, name, b"') - ", why.as_bytes()].concat())
}

pub(super) fn resetstat(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.server.reset_stats();
    call.reply().ok();
    Ok(())
}

pub(super) fn rewrite(_: &mut Call<'_>) -> Result<(), ErrorReply> {
    let text = "ERR memkv never writes its configuration file, and need not: what CONFIG SET sets is \
                kept by the cluster; change other settings in the file and restart the node";
    Err(ErrorReply::new(text))
}

#[cfg(test)]
mod tests {
    use super::memory_bytes;

    #[test]
    fn sizes_are_read_as_redis_reads_them() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("2b", Some(2)),
            ("1k", Some(1_000)),
            ("1KB", Some(1_024)),
            ("3m", Some(3_000_000)),
            ("3mb", Some(3 << 20)),
            ("1Gb", Some(1 << 30)),
            ("", None),
            ("mb", None),
            ("-1", None),
            ("1.5gb", None),
            ("1 mb", None),
            ("1tb", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999gb", None),
        ] {
            assert_eq!(memory_bytes(text.as_bytes()), bytes, "{text}");
        }
    }
}
