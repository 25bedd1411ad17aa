//! `CONFIG`: settings under the names that Redis has for them, for clients and tools that look
//! before they work. Nothing can be set here: memkv's settings are in its configuration file.

use memkv_resp::glob_match;

use super::connection::DATABASES;
use super::{Call, Failure};
use crate::resp::RespSettings;

/// Names and values, in the order of the names.
fn values(settings: &RespSettings) -> Vec<(&'static str, String)> {
    let fixed = |(name, value): (&'static str, &str)| (name, value.to_owned());
    let mut values: Vec<_> = [
        ("activedefrag", "no"),
        ("appendfsync", "always"),
        ("appendonly", "yes"),
        ("bind", ""),
        (
            "client-output-buffer-limit",
            "normal 0 0 0 slave 0 0 0 pubsub 33554432 0 0",
        ),
        ("cluster-enabled", "no"),
        ("daemonize", "no"),
        ("dir", ""),
        ("hash-max-listpack-entries", "512"),
        ("lazyfree-lazy-user-flush", "yes"),
        ("list-max-listpack-size", "-2"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("notify-keyspace-events", ""),
        ("protected-mode", "no"),
        ("replica-read-only", "no"),
        ("replica-serve-stale-data", "yes"),
        ("requirepass", ""),
        ("save", ""),
        ("set-max-intset-entries", "512"),
        ("slave-read-only", "no"),
        ("slowlog-log-slower-than", "-1"),
        ("slowlog-max-len", "0"),
        ("tcp-keepalive", "0"),
        ("timeout", "0"),
        ("zset-max-listpack-entries", "128"),
    ]
    .into_iter()
    .map(fixed)
    .collect();
    values.push(("databases", DATABASES.to_string()));
    values.push(("maxclients", settings.max_connections.to_string()));
    values.push(("port", settings.port.to_string()));
    values.push(("proto-max-bulk-len", settings.max_value_bytes.to_string()));
    values.sort_unstable();
    values
}

pub(super) fn get(call: &mut Call<'_>) -> Result<(), Failure> {
    let args = call.args;
    let mut values = values(&call.server.settings);
    values.retain(|(name, _)| {
        (2..args.len()).any(|at| glob_match(args.get(at), name.as_bytes(), true))
    });
    let mut reply = call.reply();
    reply.map(values.len());
    for (name, value) in values {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(())
}

pub(super) fn set(call: &mut Call<'_>) -> Result<(), Failure> {
    let args = call.args;
    if !args.len().is_multiple_of(2) {
        return Err(Failure::SYNTAX);
    }
    let values = values(&call.server.settings);
    let is_known = |name: &[u8]| values.iter().any(|(known, _)| known.as_bytes() == name);
    let names: Vec<_> = (2..args.len())
        .step_by(2)
        .map(|at| args.get(at).to_ascii_lowercase())
        .collect();
    if let Some(unknown) = names.iter().position(|name| !is_known(name)) {
        let text = b"ERR Unknown option or number of arguments for CONFIG SET - '";
        return Err(Failure::with(
            [text, args.get(2 + 2 * unknown), b"'"].concat(),
        ));
    }
    let is_twice = |(at, name)| names[..at].contains(name);
    let (name, why) = match names.iter().enumerate().find(|at| is_twice(*at)) {
        Some((_, name)) => (name, "duplicate parameter"),
        None => (&names[0], "can't set immutable config"),
    };
    let text = b"ERR CONFIG SET failed (possibly related to argument '";
    Err(Failure::with(
        [text, &name[..], b"') - ", why.as_bytes()].concat(),
    ))
}

pub(super) fn resetstat(call: &mut Call<'_>) -> Result<(), Failure> {
    call.server.stats.reset();
    call.reply().ok();
    Ok(())
}

pub(super) fn rewrite(_: &mut Call<'_>) -> Result<(), Failure> {
    // There is one, but nothing that could have changed since it was read.
    let text = "ERR The server is running without a config file";
    Err(Failure::new(text))
}
