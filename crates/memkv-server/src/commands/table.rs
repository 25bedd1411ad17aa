//! The one table of commands. Everything that is documented or checked about a command, except its
//! effect, comes from its line here; [`super::spec`] explains the columns.

use super::spec::Handler::Container;
use super::spec::{Group, Handler, Judged, Keys, Spec, flag::*};
use super::{
    Account, Members, TransactionControl, acl, client, command, config, connection, counters,
    expiry, info, keys, latency, memkv, pubsub, scan, script, server, slowlog, strings, stubs,
};

const NONE: (i32, i32, i32) = (0, 0, 0);
const KEY: (i32, i32, i32) = (1, 1, 1);
const EACH: (i32, i32, i32) = (1, -1, 1);
const TWO: (i32, i32, i32) = (1, 2, 1);
const PAIRS: (i32, i32, i32) = (1, -1, 2);
/// The key of a subcommand.
const SUBKEY: (i32, i32, i32) = (2, 2, 1);

/// Connection commands that answer always.
const LOCAL: u32 = NOSCRIPT | LOADING | STALE;
const OPS: u32 = ADMIN | LOCAL;
const PUB: u32 = PUBSUB | LOADING | STALE;
const SUB: u32 = PUB | NOSCRIPT;
const EVAL: u32 = NOSCRIPT | STALE | SKIP_MONITOR | NO_MANDATORY_KEYS | MOVABLEKEYS;

/// `name arity flags keys since complexity judged handler summary`, one command per entry. An entry without
/// any of them does not compile.
macro_rules! table {
    ($($group:ident { $($name:literal $arity:literal ($flags:expr) $keys:ident $since:literal
        $complexity:literal $judged:ident $kind:ident$(($handler:expr))?, $summary:literal;)* })*) => {
        /// All commands and subcommands.
        pub(crate) static TABLE: &[Spec] = &[$($(Spec {
            name: $name,
            arity: $arity,
            flags: $flags,
            keys: Keys { first: $keys.0, last: $keys.1, step: $keys.2 },
            group: Group::$group,
            since: $since,
            complexity: $complexity,
            judged: Judged::$judged,
            handler: table!(@ $kind $($handler)?),
            summary: $summary,
        },)*)*];
    };
    (@ Container) => { Container };
    (@ $kind:ident $handler:expr) => { Handler::$kind($handler) };
}

table! {
String {
    "get" 2 (READONLY | FAST) KEY "1.0.0" "O(1)" Touches Data(strings::get),
        "Returns the value of a key.";
    "set" -3 (WRITE | DENYOOM) KEY "1.0.0" "O(1)" Touches Data(strings::set),
        "Sets a key, if a condition holds, and its expiry.";
    "setnx" 3 (WRITE | DENYOOM | FAST) KEY "1.0.0" "O(1)" Touches Data(strings::setnx),
        "Sets a key that is absent.";
    "setex" 4 (WRITE | DENYOOM) KEY "2.0.0" "O(1)" Touches Data(strings::setex),
        "Sets a key that expires after some seconds.";
    "psetex" 4 (WRITE | DENYOOM) KEY "2.6.0" "O(1)" Touches Data(strings::psetex),
        "Sets a key that expires after some milliseconds.";
    "getset" 3 (WRITE | DENYOOM | FAST) KEY "1.0.0" "O(1)" Touches Data(strings::getset),
        "Sets a key and returns the value that it had.";
    "getdel" 2 (WRITE | FAST) KEY "6.2.0" "O(1)" Touches Data(strings::getdel),
        "Deletes a key and returns the value that it had.";
    "getex" -2 (WRITE | FAST) KEY "6.2.0" "O(1)" Touches Data(strings::getex),
        "Returns the value of a key and changes its expiry.";
    "mget" -2 (READONLY | FAST) EACH "1.0.0" "O(N) with N keys" Touches Data(strings::mget),
        "Returns the values of several keys, all at one moment.";
    "mset" -3 (WRITE | DENYOOM) PAIRS "1.0.1" "O(N) with N keys" Touches Data(strings::mset),
        "Sets several keys at once.";
    "msetnx" -3 (WRITE | DENYOOM) PAIRS "1.0.1" "O(N) with N keys" Touches Data(strings::msetnx),
        "Sets several keys at once if all of them are absent.";
    "append" 3 (WRITE | DENYOOM | FAST) KEY "2.0.0" "O(N) with N bytes of the new value" Touches Data(strings::append),
        "Appends to the value of a key, which is created if it is absent.";
    "strlen" 2 (READONLY | FAST) KEY "2.2.0" "O(1)" Touches Data(strings::strlen),
        "Returns the length of a value in bytes.";
    "getrange" 4 (READONLY) KEY "2.4.0" "O(N) with N bytes returned" Touches Data(strings::getrange),
        "Returns a part of a value.";
    "substr" 4 (READONLY) KEY "1.0.0" "O(N) with N bytes returned" Touches Data(strings::getrange),
        "Returns a part of a value; the old name of GETRANGE.";
    "setrange" 4 (WRITE | DENYOOM) KEY "2.2.0" "O(N) with N bytes of the new value" Touches Data(strings::setrange),
        "Overwrites a part of a value, padded with zero bytes where it was shorter.";
    "incr" 2 (WRITE | DENYOOM | FAST) KEY "1.0.0" "O(1)" Touches Data(counters::incr),
        "Adds one to an integer.";
    "decr" 2 (WRITE | DENYOOM | FAST) KEY "1.0.0" "O(1)" Touches Data(counters::decr),
        "Subtracts one from an integer.";
    "incrby" 3 (WRITE | DENYOOM | FAST) KEY "1.0.0" "O(1)" Touches Data(counters::incrby),
        "Adds to an integer.";
    "decrby" 3 (WRITE | DENYOOM | FAST) KEY "1.0.0" "O(1)" Touches Data(counters::decrby),
        "Subtracts from an integer.";
    "incrbyfloat" 3 (WRITE | DENYOOM | FAST) KEY "2.6.0" "O(1)" Touches Data(counters::incrbyfloat),
        "Adds to a decimal number.";
    "delifeq" 3 (WRITE | FAST) KEY "0.1.0" "O(1)" Touches Data(strings::delifeq),
        "Deletes a key that has this value, as in Valkey 9.";
    "delex" -2 (WRITE | FAST) KEY "0.1.0" "O(1)" Touches Data(strings::delex),
        "Deletes a key if its value is, or is not, this one, as in Redis 8.4.";
}
Generic {
    "del" -2 (WRITE) EACH "1.0.0" "O(N) with N keys" Touches Data(keys::del),
        "Deletes keys.";
    "unlink" -2 (WRITE | FAST) EACH "4.0.0" "O(N) with N keys" Touches Data(keys::del),
        "Deletes keys; the same as DEL.";
    "exists" -2 (READONLY | FAST) EACH "1.0.0" "O(N) with N keys" Touches Data(keys::exists),
        "Counts how many of the keys are there, each as often as it is named.";
    "touch" -2 (READONLY | FAST) EACH "3.2.1" "O(N) with N keys" Touches Data(keys::exists),
        "Counts how many of the keys are there; memkv keeps no access times.";
    "expire" -3 (WRITE | FAST) KEY "1.0.0" "O(1)" Touches Data(expiry::expire),
        "Lets a key expire after some seconds.";
    "pexpire" -3 (WRITE | FAST) KEY "2.6.0" "O(1)" Touches Data(expiry::pexpire),
        "Lets a key expire after some milliseconds.";
    "expireat" -3 (WRITE | FAST) KEY "1.2.0" "O(1)" Touches Data(expiry::expireat),
        "Lets a key expire at a time in seconds of log time.";
    "pexpireat" -3 (WRITE | FAST) KEY "2.6.0" "O(1)" Touches Data(expiry::pexpireat),
        "Lets a key expire at a time in milliseconds of log time.";
    "ttl" 2 (READONLY | FAST) KEY "1.0.0" "O(1)" Touches Data(expiry::ttl),
        "Returns how many seconds a key has left.";
    "pttl" 2 (READONLY | FAST) KEY "2.6.0" "O(1)" Touches Data(expiry::pttl),
        "Returns how many milliseconds a key has left.";
    "expiretime" 2 (READONLY | FAST) KEY "7.0.0" "O(1)" Touches Data(expiry::expiretime),
        "Returns when a key expires, in seconds of log time.";
    "pexpiretime" 2 (READONLY | FAST) KEY "7.0.0" "O(1)" Touches Data(expiry::pexpiretime),
        "Returns when a key expires, in milliseconds of log time.";
    "persist" 2 (WRITE | FAST) KEY "2.2.0" "O(1)" Touches Data(expiry::persist),
        "Removes the expiry of a key.";
    "type" 2 (READONLY | FAST) KEY "1.0.0" "O(1)" Touches Data(keys::type_of),
        "Returns the type of a value: string or none.";
    "rename" 3 (WRITE) TWO "1.0.0" "O(N) with N bytes of the value" Touches Data(keys::rename),
        "Renames a key, over another if that is there.";
    "renamenx" 3 (WRITE | FAST) TWO "1.0.0" "O(N) with N bytes of the value" Touches Data(keys::renamenx),
        "Renames a key if no other has the new name.";
    "copy" -3 (WRITE | DENYOOM) TWO "6.2.0" "O(N) with N bytes of the value" Touches Data(keys::copy),
        "Copies a key and its expiry.";
    "scan" -2 (READONLY) NONE "2.8.0" "O(N) with N keys of the shards walked" Nothing Data(scan::scan),
        "Walks over the keys step by step; a cursor is valid on every node.";
    "keys" 2 (READONLY) NONE "1.0.0" "O(N) with N keys" Nothing Data(scan::keys),
        "Returns the keys that match a pattern.";
    "randomkey" 1 (READONLY) NONE "1.0.0" "O(1)" Nothing Data(scan::randomkey),
        "Returns some key.";
    "object" -2 (0) NONE "2.2.3" "of the subcommand" Nothing Container,
        "Tells how a value is kept.";
    "object|encoding" 3 (READONLY) SUBKEY "2.2.3" "O(N) with N bytes of the value" Touches Data(keys::encoding),
        "Returns the encoding that Redis would use: int, embstr or raw.";
    "object|freq" 3 (READONLY) SUBKEY "4.0.0" "O(1)" Touches Data(keys::freq),
        "Fails as without an LFU policy: memkv evicts nothing.";
    "object|idletime" 3 (READONLY) SUBKEY "2.2.3" "O(1)" Touches Data(keys::idletime),
        "Returns 0 for a key that is there: memkv keeps no access times.";
    "object|refcount" 3 (READONLY) SUBKEY "2.2.3" "O(1)" Touches Data(keys::refcount),
        "Returns 1 for a key that is there.";
    "object|help" 2 (LOADING | STALE) NONE "6.2.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "wait" 3 (NOSCRIPT) NONE "3.0.0" "O(N) with N nodes" Nothing Wait(server::wait),
        "Waits until so many other nodes have the writes that were acknowledged before; returns how many do.";
    "waitaof" 4 (NOSCRIPT) NONE "7.2.0" "O(N) with N nodes" Nothing Wait(server::waitaof),
        "The same of disks, this node's and others'; none where durability is left to the system.";
}
Transactions {
    "multi" 1 (LOCAL | FAST | ALLOW_BUSY) NONE "1.2.0" "O(1)" Nothing TransactionControl(TransactionControl::Multi),
        "Starts a transaction: commands are queued until EXEC.";
    "exec" 1 (LOCAL | SKIP_SLOWLOG) NONE "1.2.0" "of the queued commands" Nothing TransactionControl(TransactionControl::Exec),
        "Executes the queued commands as one.";
    "discard" 1 (LOCAL | FAST | ALLOW_BUSY) NONE "2.0.0" "O(N) with N commands" Nothing TransactionControl(TransactionControl::Discard),
        "Forgets the queued commands.";
    "watch" -2 (LOCAL | FAST | ALLOW_BUSY) EACH "2.2.0" "O(N) with N keys" Keys TransactionControl(TransactionControl::Watch),
        "Lets EXEC fail if one of the keys changes until then.";
    "unwatch" 1 (LOCAL | FAST | ALLOW_BUSY) NONE "2.2.0" "O(1)" Nothing Local(connection::unwatch),
        "Forgets the watched keys.";
}
Scripting {
    "eval" -3 (EVAL) NONE "2.6.0" "O(N) with N keys" Script Data(script::eval),
        "Executes a script that memkv recognises.";
    "evalsha" -3 (EVAL) NONE "2.6.0" "O(N) with N keys" Script Data(script::evalsha),
        "Executes a script that memkv recognises, named by its hash.";
    "eval_ro" -3 (EVAL | READONLY) NONE "7.0.0" "O(N) with N keys" Script Data(script::eval),
        "Executes a script that memkv recognises.";
    "evalsha_ro" -3 (EVAL | READONLY) NONE "7.0.0" "O(N) with N keys" Script Data(script::evalsha),
        "Executes a script that memkv recognises, named by its hash.";
    "script" -2 (0) NONE "2.6.0" "of the subcommand" Nothing Container,
        "Tells which scripts are known.";
    "script|load" 3 (NOSCRIPT | STALE) NONE "2.6.0" "O(N) with N bytes" Nothing Local(script::load),
        "Returns the hash of a script that memkv recognises.";
    "script|exists" -3 (NOSCRIPT) NONE "2.6.0" "O(N) with N scripts" Nothing Local(script::exists),
        "Tells which scripts memkv recognises by hash.";
    "script|flush" -2 (NOSCRIPT) NONE "2.6.0" "O(1)" Nothing Local(script::flush),
        "Does nothing: known scripts stay known.";
    "script|help" 2 (LOADING | STALE) NONE "5.0.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "function" -2 (0) NONE "7.0.0" "of the subcommand" Nothing Container,
        "Tells that there are no functions.";
    "function|list" -2 (NOSCRIPT) NONE "7.0.0" "O(1)" Nothing Local(stubs::empty_array),
        "Returns nothing: there are no functions.";
    "function|help" 2 (LOADING | STALE) NONE "7.0.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
}
Pubsub {
    "subscribe" -2 (SUB) NONE "2.0.0" "O(N) with N channels" Channels Local(pubsub::subscribe),
        "Subscribes to channels; messages come from every node.";
    "unsubscribe" -1 (SUB) NONE "2.0.0" "O(N) with N channels" Nothing Local(pubsub::unsubscribe),
        "Unsubscribes from channels.";
    "psubscribe" -2 (SUB) NONE "2.0.0" "O(N) with N patterns" Patterns Local(pubsub::psubscribe),
        "Subscribes to channels that match patterns; messages come from every node.";
    "punsubscribe" -1 (SUB) NONE "2.0.0" "O(N) with N patterns" Nothing Local(pubsub::punsubscribe),
        "Unsubscribes from patterns.";
    "ssubscribe" -2 (SUB) EACH "7.0.0" "O(N) with N channels" Channels Local(pubsub::ssubscribe),
        "Subscribes to shard channels; there is one shard.";
    "sunsubscribe" -1 (SUB) EACH "7.0.0" "O(N) with N channels" Nothing Local(pubsub::sunsubscribe),
        "Unsubscribes from shard channels.";
    "publish" 3 (PUB | FAST) NONE "2.0.0" "O(N+M) with N listeners and M patterns" Channel Publish(pubsub::publish),
        "Sends a message to the subscribers of a channel, on every node.";
    "spublish" 3 (PUB | FAST) KEY "7.0.0" "O(N) with N listeners" Channel Publish(pubsub::spublish),
        "Sends a message to the subscribers of a shard channel, on every node.";
    "pubsub" -2 (0) NONE "2.8.0" "of the subcommand" Nothing Container,
        "Describes the subscriptions on this node.";
    "pubsub|channels" -2 (PUB) NONE "2.8.0" "O(N) with N channels" Nothing Local(pubsub::channels),
        "Lists the channels with subscribers on this node.";
    "pubsub|numsub" -2 (PUB) NONE "2.8.0" "O(N) with N channels asked" Nothing Local(pubsub::numsub),
        "Counts the subscribers of channels on this node.";
    "pubsub|numpat" 2 (PUB) NONE "2.8.0" "O(1)" Nothing Local(pubsub::numpat),
        "Counts the patterns with subscribers on this node.";
    "pubsub|shardchannels" -2 (PUB) NONE "7.0.0" "O(N) with N channels" Nothing Local(pubsub::shardchannels),
        "Lists the shard channels with subscribers on this node.";
    "pubsub|shardnumsub" -2 (PUB) NONE "7.0.0" "O(N) with N channels asked" Nothing Local(pubsub::shardnumsub),
        "Counts the subscribers of shard channels on this node.";
    "pubsub|help" 2 (LOADING | STALE) NONE "6.2.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
}
Connection {
    "hello" -1 (LOCAL | FAST | NO_AUTH | ALLOW_BUSY) NONE "6.0.0" "O(1)" Nothing Account(Account::Hello),
        "Chooses RESP2 or RESP3 and tells what the server is.";
    "auth" -2 (LOCAL | FAST | NO_AUTH | ALLOW_BUSY) NONE "1.0.0" "O(1)" Nothing Account(Account::Auth),
        "Authenticates the connection.";
    "ping" -1 (FAST) NONE "1.0.0" "O(1)" Nothing Local(connection::ping),
        "Answers PONG, or its argument.";
    "echo" 2 (LOADING | STALE | FAST) NONE "1.0.0" "O(1)" Nothing Local(connection::echo),
        "Answers its argument.";
    "quit" -1 (LOCAL | FAST | NO_AUTH | ALLOW_BUSY) NONE "1.0.0" "O(1)" Nothing Local(connection::quit),
        "Closes the connection.";
    "reset" 1 (LOCAL | FAST | NO_AUTH | ALLOW_BUSY) NONE "6.2.0" "O(1)" Nothing Local(connection::reset),
        "Puts the connection into the state in which it began.";
    "select" 2 (LOADING | STALE | FAST) NONE "1.0.0" "O(1)" Nothing Local(connection::select),
        "Chooses one of the 16 databases.";
    "client" -2 (0) NONE "2.4.0" "of the subcommand" Nothing Container,
        "Tells about connections and changes them.";
    "client|id" 2 (LOCAL) NONE "5.0.0" "O(1)" Nothing Local(client::id),
        "Returns the connection's number.";
    "client|info" 2 (LOCAL) NONE "6.2.0" "O(1)" Nothing Local(client::info),
        "Describes the connection.";
    "client|list" -2 (OPS) NONE "2.4.0" "O(N) with N connections" Nothing Local(client::list),
        "Describes the connections of this node.";
    "client|kill" -3 (OPS) NONE "2.4.0" "O(N) with N connections" Nothing Local(client::kill),
        "Closes connections of this node.";
    "client|getname" 2 (LOCAL) NONE "2.6.9" "O(1)" Nothing Local(client::getname),
        "Returns the connection's name.";
    "client|setname" 3 (LOCAL) NONE "2.6.9" "O(1)" Nothing Local(client::setname),
        "Names the connection.";
    "client|setinfo" 4 (LOCAL) NONE "7.2.0" "O(1)" Nothing Local(client::setinfo),
        "Names the client's library and its version.";
    "client|reply" 3 (LOCAL) NONE "3.2.0" "O(1)" Nothing Local(client::reply),
        "Turns replies off, on, or off for the next command.";
    "client|no-evict" 3 (OPS) NONE "7.0.0" "O(1)" Nothing Local(client::on_off),
        "Does nothing: connections are not evicted.";
    "client|no-touch" 3 (LOCAL) NONE "7.2.0" "O(1)" Nothing Local(client::on_off),
        "Does nothing: memkv keeps no access times.";
    "client|capa" -3 (LOCAL) NONE "0.1.0" "O(1)" Nothing Local(stubs::ok),
        "Accepts what the client says it can do, as in Valkey 8.";
    "client|unblock" -3 (OPS) NONE "5.0.0" "O(1)" Nothing Local(client::unblock),
        "Returns 0: no command blocks.";
    "client|tracking" -3 (LOCAL) NONE "6.0.0" "O(1)" Nothing Local(client::tracking),
        "Fails: there is no client-side caching yet.";
    "client|trackinginfo" 2 (LOCAL) NONE "6.2.0" "O(1)" Nothing Local(client::trackinginfo),
        "Tells that client-side caching is off.";
    "client|getredir" 2 (LOCAL) NONE "6.0.0" "O(1)" Nothing Local(client::getredir),
        "Returns -1: client-side caching is off.";
    "client|help" 2 (LOADING | STALE) NONE "5.0.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
}
Server {
    "dbsize" 1 (READONLY | FAST) NONE "1.0.0" "O(1)" Touches Data(keys::dbsize),
        "Counts the keys of the database.";
    "flushdb" -1 (WRITE) NONE "1.0.0" "O(1)" Touches Data(keys::flushdb),
        "Deletes all keys of the database.";
    "flushall" -1 (WRITE) NONE "1.0.0" "O(1)" Touches Data(keys::flushall),
        "Deletes all keys of all databases.";
    "time" 1 (LOADING | STALE | FAST) NONE "2.6.0" "O(1)" Nothing Local(server::time),
        "Returns log time in seconds and microseconds.";
    "lolwut" -1 (READONLY | FAST) NONE "5.0.0" "O(1)" Nothing Local(server::lolwut),
        "Says what this really is.";
    "info" -1 (LOADING | STALE) NONE "1.0.0" "O(1)" Nothing Local(info::info),
        "Describes the node, section by section.";
    "role" 1 (LOCAL | FAST) NONE "2.8.12" "O(1)" Nothing Local(server::role),
        "Returns master: any node executes any command.";
    "command" -1 (LOADING | STALE) NONE "2.8.13" "O(N) with N commands" Nothing ContainerOr(command::all),
        "Describes the commands.";
    "command|count" 2 (LOADING | STALE) NONE "2.8.13" "O(1)" Nothing Local(command::count),
        "Counts the commands.";
    "command|info" -2 (LOADING | STALE) NONE "2.8.13" "O(N) with N commands" Nothing Local(command::info),
        "Describes commands.";
    "command|docs" -2 (LOADING | STALE) NONE "7.0.0" "O(N) with N commands" Nothing Local(command::docs),
        "Explains commands.";
    "command|list" -2 (LOADING | STALE) NONE "7.0.0" "O(N) with N commands" Nothing Local(command::list),
        "Lists names of commands.";
    "command|getkeys" -4 (LOADING | STALE) NONE "2.8.13" "O(N) with N arguments" Nothing Local(command::getkeys),
        "Returns the keys in a command line.";
    "command|getkeysandflags" -4 (LOADING | STALE) NONE "7.0.0" "O(N) with N arguments" Nothing Local(command::getkeysandflags),
        "Returns the keys in a command line and what happens to them.";
    "command|help" 2 (LOADING | STALE) NONE "5.0.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "config" -2 (0) NONE "2.0.0" "of the subcommand" Nothing Container,
        "Tells settings.";
    "config|get" -3 (OPS) NONE "2.0.0" "O(N) with N settings" Nothing Local(config::get),
        "Returns settings by pattern, under the names that Redis has for them.";
    "config|set" -4 (OPS) NONE "2.0.0" "O(N) with N settings" Touches Data(config::set),
        "Sets maxmemory, maxmemory-policy or notify-keyspace-events for the whole cluster, or slowlog-log-slower-than, slowlog-max-len or latency-monitor-threshold for this node; other settings are in the configuration file.";
    "config|resetstat" 2 (OPS) NONE "2.0.0" "O(1)" Nothing Local(config::resetstat),
        "Sets the counters of INFO to zero.";
    "config|rewrite" 2 (OPS) NONE "2.8.0" "O(1)" Nothing Local(config::rewrite),
        "Fails: settings cannot have changed.";
    "config|help" 2 (LOADING | STALE) NONE "5.0.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "memory" -2 (0) NONE "4.0.0" "of the subcommand" Nothing Container,
        "Tells what memory is used for.";
    "memory|usage" -3 (READONLY) SUBKEY "4.0.0" "O(1)" Touches Data(keys::memory_usage),
        "Estimates the memory that a key takes, in bytes.";
    "memory|doctor" 2 (0) NONE "4.0.0" "O(1)" Nothing Local(stubs::doctor),
        "Says that nothing is known to be wrong.";
    "memory|help" 2 (LOADING | STALE) NONE "4.0.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "slowlog" -2 (0) NONE "2.2.12" "of the subcommand" Nothing Container,
        "Tells which commands were slow on this node.";
    "slowlog|get" -2 (ADMIN | LOADING | STALE) NONE "2.2.12" "O(N) with N entries" Nothing Local(slowlog::get),
        "Returns the last slow commands, without secrets.";
    "slowlog|len" 2 (ADMIN | LOADING | STALE) NONE "2.2.12" "O(1)" Nothing Local(slowlog::len),
        "Counts the slow commands that are kept.";
    "slowlog|reset" 2 (ADMIN | LOADING | STALE) NONE "2.2.12" "O(N) with N entries" Nothing Local(slowlog::reset),
        "Forgets the slow commands.";
    "slowlog|help" 2 (LOADING | STALE) NONE "6.2.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "latency" -2 (0) NONE "2.8.13" "of the subcommand" Nothing Container,
        "Tells how long commands take on this node, and when something took long.";
    "latency|histogram" -2 (OPS) NONE "7.0.0" "O(N) with N commands" Nothing Local(latency::histogram),
        "Returns how long the calls of commands took.";
    "latency|latest" 2 (OPS) NONE "2.8.13" "O(1)" Nothing Local(latency::latest),
        "Returns the last spike of each event: command, fast-command, fsync, apply, election.";
    "latency|history" 3 (OPS) NONE "2.8.13" "O(1)" Nothing Local(latency::history),
        "Returns the spikes of an event.";
    "latency|graph" 3 (OPS) NONE "2.8.13" "O(1)" Nothing Local(latency::graph),
        "Draws the spikes of an event.";
    "latency|reset" -2 (OPS) NONE "2.8.13" "O(1)" Nothing Local(latency::reset),
        "Forgets the spikes, of these events or of all.";
    "latency|doctor" 2 (OPS) NONE "2.8.13" "O(N) with N commands" Nothing Local(latency::doctor),
        "Says in sentences what was measured, and what to do next.";
    "latency|help" 2 (LOADING | STALE) NONE "2.8.13" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "module" -2 (0) NONE "4.0.0" "of the subcommand" Nothing Container,
        "Tells that there are no modules.";
    "module|list" 2 (ADMIN | NOSCRIPT) NONE "4.0.0" "O(1)" Nothing Local(stubs::empty_array),
        "Returns nothing: there are no modules.";
    "module|help" 2 (LOADING | STALE) NONE "5.0.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "acl" -2 (0) NONE "6.0.0" "of the subcommand" Nothing Container,
        "Tells about users and changes them.";
    "acl|cat" -2 (LOCAL) NONE "6.0.0" "O(1)" Nothing Local(acl::cat),
        "Lists the categories of commands, or the commands of one.";
    "acl|deluser" -3 (OPS) NONE "6.0.0" "O(N) with N users" Nothing Account(Account::DelUser),
        "Removes users, and ends their connections on all nodes.";
    "acl|dryrun" -4 (OPS) NONE "7.0.0" "O(N) with N keys" Nothing Local(acl::dryrun),
        "Tells whether a user may execute a command.";
    "acl|genpass" -2 (LOCAL) NONE "6.0.0" "O(1)" Nothing Local(acl::genpass),
        "Returns a random password.";
    "acl|getuser" 3 (OPS) NONE "6.0.0" "O(N) with N rules" Nothing Local(acl::getuser),
        "Describes a user.";
    "acl|list" 2 (OPS) NONE "6.0.0" "O(N) with N users" Nothing Local(acl::list),
        "Describes the users, as ACL SETUSER takes them.";
    "acl|load" 2 (OPS) NONE "6.0.0" "O(1)" Nothing Local(acl::no_file),
        "Fails: users are replicated, and there is no file.";
    "acl|log" -2 (OPS) NONE "6.0.0" "O(N) with N entries" Nothing Local(acl::log),
        "Returns what this node has refused lately.";
    "acl|save" 2 (OPS) NONE "6.0.0" "O(1)" Nothing Local(acl::no_file),
        "Fails: users are replicated, and there is no file.";
    "acl|setuser" -3 (OPS) NONE "6.0.0" "O(N) with N rules" Nothing Account(Account::SetUser),
        "Makes or changes a user, on all nodes.";
    "acl|users" 2 (OPS) NONE "6.0.0" "O(N) with N users" Nothing Local(acl::users),
        "Lists the names of the users.";
    "acl|whoami" 2 (LOCAL) NONE "6.0.0" "O(1)" Nothing Local(acl::whoami),
        "Returns the user of the connection.";
    "acl|help" 2 (LOADING | STALE) NONE "6.0.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "lastsave" 1 (LOADING | STALE | FAST) NONE "1.0.0" "O(1)" Nothing Local(server::lastsave),
        "Returns log time in seconds: every acknowledged write is durable.";
    "debug" -2 (OPS) NONE "1.0.0" "O(1)" Nothing Forbidden(stubs::NO_DEBUG),
        "Fails: debugging commands are off.";
    "shutdown" -1 (OPS | NO_MULTI | ALLOW_BUSY) NONE "1.0.0" "O(1)" Nothing Local(server::shutdown),
        "Stops this node after handing over leadership.";
}
Cluster {
    "readonly" 1 (LOADING | STALE | FAST) NONE "3.0.0" "O(1)" Nothing Local(connection::readonly),
        "Allows this connection to read what this node has, however old.";
    "readwrite" 1 (LOADING | STALE | FAST) NONE "3.0.0" "O(1)" Nothing Local(connection::readwrite),
        "Makes reads linearizable again.";
}
Memkv {
    "memkv.meta" 2 (READONLY | FAST) KEY "0.1.0" "O(1)" Touches Data(memkv::meta),
        "Returns the revisions and the expiry of a key.";
    "memkv.cas" -4 (WRITE | DENYOOM | FAST) KEY "0.1.0" "O(1)" Touches Data(memkv::cas),
        "Sets a key whose revision is this one; 0 stands for an absent key.";
    "memkv.delrev" 3 (WRITE | FAST) KEY "0.1.0" "O(1)" Touches Data(memkv::delrev),
        "Deletes a key whose revision is this one.";
    "memkv.range" -2 (READONLY) NONE "0.1.0" "O(log N + M) with M keys returned" Touches Data(memkv::range),
        "Returns keys in order, by prefix.";
    "memkv.backup" 1 (OPS) NONE "0.1.0" "O(1)" Nothing Local(memkv::backup),
        "Its right is the right to GET /v1/backup, which memkv_client backup save reads.";
    "memkv.events" 1 (OPS) NONE "0.1.0" "O(1)" Nothing Local(memkv::events),
        "Its right is the right to GET /v1/events.";
    "memkv.slowlog" -1 (ADMIN | LOADING | STALE) NONE "0.1.0" "O(N) with N entries" Nothing Local(slowlog::by_stages),
        "Returns the last slow commands, each with the time that it spent in every stage.";
    "memkv.cluster" -2 (0) NONE "0.1.0" "of the subcommand" Nothing Container,
        "Shows and changes the members of the cluster.";
    "memkv.cluster|members" 2 (OPS) NONE "0.1.0" "O(N) with N members" Nothing Account(Account::Members(Members::List)),
        "Returns a line for each member, as the leader sees it.";
    "memkv.cluster|checkstop" -2 (OPS) NONE "0.1.0" "O(N) with N members" Nothing Account(Account::Members(Members::CheckStop)),
        "Says whether the cluster can spare a node now, and why; without a name, for each one.";
    "memkv.cluster|wait" 3 (OPS) NONE "0.1.0" "O(N) with N members" Nothing Account(Account::Members(Members::Wait)),
        "Says within so many seconds, at most 60, whether nothing of what was asked for is left to do.";
    "memkv.cluster|add" -3 (OPS) NONE "0.1.0" "O(1)" Nothing Account(Account::Members(Members::Add)),
        "Expects a node of this name, as VOTER or REPLICA; lets a removed one come back.";
    "memkv.cluster|remove" -3 (OPS) NONE "0.1.0" "O(1)" Nothing Account(Account::Members(Members::Remove)),
        "Lets a node leave, unless a majority of the voters would not answer then.";
    "memkv.cluster|replace" -4 (OPS) NONE "0.1.0" "O(1)" Nothing Account(Account::Members(Members::Replace)),
        "Gives the place of the first node to the second, which has joined already; the first one leaves.";
    "memkv.cluster|promote" -3 (OPS) NONE "0.1.0" "O(1)" Nothing Account(Account::Members(Members::Promote)),
        "Lets a replica vote, as soon as the number of voters stays odd with it.";
    "memkv.cluster|demote" -3 (OPS) NONE "0.1.0" "O(1)" Nothing Account(Account::Members(Members::Demote)),
        "Takes the vote of a node, which stays as a replica.";
    "memkv.cluster|transfer" -2 (OPS) NONE "0.1.0" "O(1)" Nothing Account(Account::Members(Members::Transfer)),
        "Has another node lead: this one, or any that has the whole log.";
    "memkv.cluster|help" 2 (LOADING | STALE) NONE "0.1.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
    "memkv.users" -2 (0) NONE "0.1.0" "of the subcommand" Nothing Container,
        "Begins with users, and makes their tokens.";
    "memkv.users|init" 2 (OPS) NONE "0.1.0" "O(1)" Nothing Account(Account::Init),
        "Makes the table of users in a cluster that has none: the user default, as it is.";
    "memkv.users|token" -3 (OPS) NONE "0.1.0" "O(1)" Nothing Account(Account::Token),
        "Makes a token of a user that expires after some seconds, by default 90 days, and returns it once.";
    "memkv.users|help" 2 (LOADING | STALE) NONE "0.1.0" "O(1)" Nothing Local(command::help),
        "Lists the subcommands.";
}
}
