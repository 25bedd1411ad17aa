//! The parts of `COMMAND INFO` beyond flags and positions: the use of each key, and tips for proxies,
//! as Redis answers them. Never changes what a command does.

use super::spec::{Spec, flag};

/// Words that say what happens to a key.
pub(super) type Use = &'static [&'static str];

/// What is in a key's place and is a channel.
pub(super) const NOT_KEYS: Use = &["not_key"];

/// What happens to the keys: one entry for all of them, or one for each. Nothing for a command
/// without keys.
pub(super) fn key_uses(spec: &Spec) -> &'static [Use] {
    match spec.name {
        "set" => &[&["RW", "access", "update", "variable_flags"]],
        "setnx" | "msetnx" => &[&["OW", "insert"]],
        "setex" | "psetex" | "mset" => &[&["OW", "update"]],
        "getdel" => &[&["RW", "access", "delete"]],
        "append" => &[&["RW", "insert"]],
        "setrange" | "expire" | "pexpire" | "expireat" | "pexpireat" | "persist" => {
            &[&["RW", "update"]]
        }
        "del" | "unlink" => &[&["RM", "delete"]],
        "rename" => &[&["RW", "access", "delete"], &["OW", "update"]],
        "renamenx" => &[&["RW", "access", "delete"], &["OW", "insert"]],
        "copy" => &[&["RO", "access"], &["OW", "update"]],
        "strlen" | "exists" | "touch" | "type" | "watch" | "object|encoding" | "object|freq"
        | "object|idletime" | "object|refcount" | "memory|usage" => &[&["RO"]],
        "ssubscribe" | "sunsubscribe" | "spublish" => &[NOT_KEYS],
        _ if spec.keys.first == 0 && !spec.has(flag::MOVABLEKEYS) => &[],
        _ if spec.has(flag::READONLY) => &[&["RO", "access"]],
        _ => &[&["RW", "access", "update"]],
    }
}

/// What happens to the keys of one call: without GET, SET reads nothing.
pub(super) fn key_uses_of(spec: &Spec, arguments: &[&[u8]]) -> &'static [Use] {
    // A condition on the value tells whether it is the one that was guessed.
    let shows = |word: &&[u8]| {
        let options: [&[u8]; 3] = [b"get", b"ifeq", b"ifne"];
        options
            .iter()
            .any(|option| word.eq_ignore_ascii_case(option))
    };
    match spec.name {
        "set" if arguments.iter().any(shows) => &[&["RW", "access", "update"]],
        "set" => &[&["OW", "update"]],
        _ => key_uses(spec),
    }
}

/// What a proxy that spreads keys over several servers would have to know, and how far replies are
/// reproducible.
pub(super) fn tips(spec: &Spec) -> &'static [&'static str] {
    match spec.name {
        "mget" => &["request_policy:multi_shard"],
        "mset" => &[
            "request_policy:multi_shard",
            "response_policy:all_succeeded",
        ],
        "msetnx" => &["request_policy:multi_shard", "response_policy:agg_min"],
        "del" | "unlink" | "exists" | "touch" => {
            &["request_policy:multi_shard", "response_policy:agg_sum"]
        }
        "ttl" | "pttl" | "time" | "lastsave" | "object|encoding" | "object|freq"
        | "object|idletime" | "object|refcount" | "client|info" | "client|list" => {
            &["nondeterministic_output"]
        }
        "scan" => &["nondeterministic_output", "request_policy:special"],
        "keys" => &["request_policy:all_shards", "nondeterministic_output_order"],
        "randomkey" => &["request_policy:all_shards", "nondeterministic_output"],
        "wait" => &["request_policy:all_shards", "response_policy:agg_min"],
        "dbsize" => &["request_policy:all_shards", "response_policy:agg_sum"],
        "ping" | "flushdb" | "flushall" => {
            &["request_policy:all_shards", "response_policy:all_succeeded"]
        }
        "info" | "memory|doctor" => &[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ],
        "latency|latest" | "latency|history" | "latency|doctor" | "latency|graph"
        | "latency|histogram" => &[
            "nondeterministic_output",
            "request_policy:all_nodes",
            "response_policy:special",
        ],
        "latency|reset" | "slowlog|reset" | "config|set" | "script|load" | "script|flush" => {
            &["request_policy:all_nodes", "response_policy:all_succeeded"]
        }
        "slowlog|get" => &["request_policy:all_nodes", "nondeterministic_output"],
        "slowlog|len" => &[
            "request_policy:all_nodes",
            "response_policy:agg_sum",
            "nondeterministic_output",
        ],
        "script|exists" => &[
            "request_policy:all_shards",
            "response_policy:agg_logical_and",
        ],
        "command" | "command|info" | "command|docs" | "command|list" | "module|list"
        | "function|list" => &["nondeterministic_output_order"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Handler, find};
    use super::super::table::TABLE;
    use super::*;

    #[test]
    fn every_command_with_keys_says_what_happens_to_them() {
        for spec in TABLE {
            let uses = key_uses(spec);
            let has_keys = spec.keys.first > 0 || spec.has(flag::MOVABLEKEYS);
            assert_eq!(has_keys, !uses.is_empty(), "{}", spec.name);
            let writes = uses.iter().flat_map(|words| words.iter());
            let writes = writes
                .copied()
                .any(|word| matches!(word, "RW" | "OW" | "RM"));
            let is_data = matches!(spec.handler, Handler::Data(_)) && has_keys;
            if is_data && !spec.has(flag::MOVABLEKEYS) {
                assert_eq!(writes, spec.has(flag::WRITE), "{}", spec.name);
            }
        }
    }

    #[test]
    fn set_reads_only_with_get() {
        let set = find(b"set").unwrap();
        let uses = |words: &[&[u8]]| key_uses_of(set, words)[0];
        assert_eq!(uses(&[b"a", b"1", b"EX", b"9"]), ["OW", "update"]);
        assert_eq!(uses(&[b"a", b"1", b"get"]), ["RW", "access", "update"]);
    }
}
