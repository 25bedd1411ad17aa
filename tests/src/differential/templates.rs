//! The commands that are sent, with their weights: the commands of the contract (`P0`, and the `P1` ones that Redis 7.0
//! has), as templates with placeholders for arguments.
//!
//! | placeholder | stands for |
//! |---|---|
//! | `$k`, `$k+` | a key; one to four keys |
//! | `$v`, `$kv+` | a value; one to three keys with values |
//! | `$i`, `$f` | an integer, a float |
//! | `$n`, `$o` | an index, which may be negative; an offset |
//! | `$s`, `$m` | seconds, milliseconds from now: far away, or not positive |
//! | `$S`, `$M` | the same as points in time |
//! | `$p`, `$d` | a pattern, a database |
//! | `$c` | the name of a command |
//!
//! A template that opens with `!` is sent as it stands, never spoilt. Left out on purpose:
//! commands whose replies cannot be compared in a pipeline (the generator has steps for these), and
//! `DBSIZE` alone, which in Redis counts expired keys that no command has touched.

/// Weight and template.
pub(crate) const TEMPLATES: &[(usize, &str)] = &[
    // Strings.
    (30, "GET $k"),
    (30, "SET $k $v"),
    (10, "SET $k $i"),
    (6, "SET $k $v NX"),
    (6, "SET $k $v XX"),
    (4, "SET $k $v GET"),
    (3, "SET $k $v NX GET"),
    (3, "SET $k $v XX GET"),
    (4, "SET $k $v EX $s"),
    (4, "SET $k $v PX $m"),
    (3, "SET $k $v EXAT $S"),
    (3, "SET $k $v PXAT $M"),
    (4, "SET $k $v KEEPTTL"),
    (3, "SET $k $v XX KEEPTTL GET"),
    (3, "SET $k $v NX PX $m"),
    (1, "SET $k $v NX XX"),
    (1, "SET $k $v EX $s PX $m"),
    (1, "SET $k $v KEEPTTL EX $s"),
    (1, "SET $k $v EX"),
    (1, "SET $k $v px $m xx get"),
    (6, "SETNX $k $v"),
    (5, "SETEX $k $s $v"),
    (5, "PSETEX $k $m $v"),
    (6, "GETSET $k $v"),
    (6, "GETDEL $k"),
    (4, "GETEX $k"),
    (3, "GETEX $k EX $s"),
    (3, "GETEX $k PX $m"),
    (2, "GETEX $k EXAT $S"),
    (2, "GETEX $k PXAT $M"),
    (3, "GETEX $k PERSIST"),
    (1, "GETEX $k PERSIST EX $s"),
    (8, "MGET $k+"),
    (6, "MSET $kv+"),
    (6, "MSETNX $kv+"),
    (8, "DEL $k+"),
    (5, "UNLINK $k+"),
    (7, "EXISTS $k+"),
    (4, "TOUCH $k+"),
    (10, "INCR $k"),
    (6, "DECR $k"),
    (8, "INCRBY $k $i"),
    (6, "DECRBY $k $i"),
    (12, "INCRBYFLOAT $k $f"),
    (8, "APPEND $k $v"),
    (6, "STRLEN $k"),
    (6, "GETRANGE $k $n $n"),
    (3, "SUBSTR $k $n $n"),
    (6, "SETRANGE $k $o $v"),
    // Keys.
    (5, "RENAME $k $k"),
    (4, "RENAMENX $k $k"),
    (4, "COPY $k $k"),
    (4, "COPY $k $k REPLACE"),
    (3, "COPY $k $k DB $d"),
    (2, "COPY $k $k DB $d REPLACE"),
    (5, "TYPE $k"),
    (5, "OBJECT ENCODING $k"),
    (1, "OBJECT FREQ $k"),
    (1, "OBJECT REFCOUNT $k"),
    (1, "OBJECT NOSUCH $k"),
    (3, "MEMORY USAGE $k"),
    (1, "MEMORY USAGE $k SAMPLES 5"),
    (4, "KEYS $p"),
    (2, "SCAN 0"),
    (2, "SCAN 0 MATCH $p COUNT $i TYPE string"),
    (1, "SCAN $i COUNT 5"),
    (1, "SCAN 0 TYPE nosuchtype"),
    (1, "!FLUSHDB NOW"),
    (1, "!FLUSHALL ASYNC SYNC"),
    // Expiry.
    (6, "EXPIRE $k $s"),
    (5, "PEXPIRE $k $m"),
    (4, "EXPIREAT $k $S"),
    (4, "PEXPIREAT $k $M"),
    (3, "EXPIRE $k $s NX"),
    (3, "EXPIRE $k $s XX"),
    (3, "EXPIRE $k $s GT"),
    (3, "EXPIRE $k $s LT"),
    (2, "PEXPIRE $k $m XX GT"),
    (2, "PEXPIRE $k $m LT XX"),
    (1, "EXPIRE $k $s NX XX"),
    (1, "EXPIRE $k $s GT LT"),
    (1, "EXPIRE $k $s NX GT"),
    (2, "EXPIREAT $k $S GT"),
    (2, "PEXPIREAT $k $M LT"),
    (6, "TTL $k"),
    (6, "PTTL $k"),
    (4, "EXPIRETIME $k"),
    (4, "PEXPIRETIME $k"),
    (5, "PERSIST $k"),
    // Transactions, besides those that the generator puts together.
    (7, "WATCH $k+"),
    (2, "UNWATCH"),
    (1, "MULTI"),
    (2, "EXEC"),
    (2, "DISCARD"),
    // The connection.
    (5, "PING"),
    (3, "PING $v"),
    (3, "ECHO $v"),
    (8, "SELECT $d"),
    (1, "TIME"),
    (1, "AUTH $v"),
    (1, "AUTH default $v"),
    (1, "RESET"),
    (2, "CLIENT ID"),
    (2, "CLIENT GETNAME"),
    (2, "CLIENT SETNAME conn-$i"),
    (1, "CLIENT SETNAME $v"),
    (1, "CLIENT INFO"),
    (1, "CLIENT LIST"),
    (1, "!CLIENT LIST TYPE nosuch"),
    (1, "!CLIENT KILL 192.0.2.1:1"),
    (1, "!CLIENT KILL ID 999999999"),
    (1, "!CLIENT KILL ID x"),
    (1, "!CLIENT UNBLOCK 999999999"),
    (1, "!CLIENT TRACKING OFF"),
    (1, "!CLIENT TRACKING maybe"),
    (1, "!CLIENT TRACKINGINFO"),
    (1, "!CLIENT GETREDIR"),
    (1, "!CLIENT MAINT_NOTIFICATIONS ON"),
    (1, "!CLIENT LIST ID 0"),
    (1, "CLIENT NO-EVICT ON"),
    (1, "!CLIENT NO-EVICT maybe"),
    (1, "!CLIENT REPLY maybe"),
    (1, "!CLIENT NOSUCH $v"),
    // The server.
    (1, "INFO"),
    (1, "!INFO keyspace"),
    (1, "!INFO server clients"),
    (1, "!INFO everything"),
    (1, "!INFO nosuchsection"),
    (1, "!COMMAND"),
    (1, "COMMAND COUNT"),
    (2, "!COMMAND INFO $c"),
    (1, "!COMMAND INFO nosuch $c $c"),
    (1, "!COMMAND DOCS $c"),
    (1, "!COMMAND DOCS nosuch"),
    (1, "!COMMAND LIST"),
    (1, "!COMMAND LIST FILTERBY nosuch x"),
    (1, "!COMMAND LIST FILTERBY PATTERN exists"),
    (1, "!COMMAND NOSUCH"),
    (1, "!COMMAND GETKEYS MSET a 1 b 2"),
    (1, "!COMMAND GETKEYS GET"),
    (1, "!COMMAND GETKEYS PING"),
    (1, "!COMMAND GETKEYS nosuch a"),
    (1, "!COMMAND GETKEYS SPUBLISH a b"),
    (1, "!COMMAND GETKEYSANDFLAGS SET a 1 GET"),
    (1, "!COMMAND GETKEYSANDFLAGS SET a 1"),
    (1, "!COMMAND GETKEYSANDFLAGS MSETNX a 1 b 2"),
    (1, "!COMMAND GETKEYSANDFLAGS RENAME a b"),
    (1, "!COMMAND GETKEYSANDFLAGS OBJECT ENCODING a"),
    (1, "!COMMAND GETKEYSANDFLAGS TIME a"),
    (1, "!CONFIG GET save"),
    (1, "!CONFIG GET nosuch"),
    (1, "!CONFIG GET appendonly"),
    (1, "!CONFIG GET databases"),
    (1, "!CONFIG GET timeout"),
    (1, "!CONFIG GET maxmemory"),
    (1, "!CONFIG GET maxmemory-policy"),
    (1, "!CONFIG GET proto-max-bulk-len"),
    (1, "!CONFIG GET replica-read-only"),
    (1, "!CONFIG GET notify-keyspace-events"),
    (1, "!CONFIG GET slowlog-max-len"),
    (1, "!CONFIG GET"),
    (1, "!CONFIG SET databases 3"),
    (1, "!CONFIG REWRITE"),
    (1, "!CONFIG NOSUCH"),
    (1, "!CONFIG SET nosuch 1"),
    (1, "!CONFIG RESETSTAT"),
    (1, "ROLE"),
    (1, "MODULE LIST"),
    (1, "LOLWUT"),
    (1, "ACL WHOAMI"),
    (1, "!ACL USERS"),
    (1, "!ACL NOSUCH"),
    (1, "!DEBUG SLEEP 0"),
    (1, "!SHUTDOWN ABORT"),
    (1, "!SHUTDOWN NOSUCH"),
    (1, "!SLOWLOG LEN"),
    (1, "!SLOWLOG GET"),
    (1, "!SLOWLOG GET x"),
    (1, "!SLOWLOG RESET"),
    (1, "!READONLY"),
    (1, "!READWRITE"),
    (1, "!WAIT 0 0"),
    (1, "!WAIT x 0"),
    (1, "!WAIT 0 x"),
    // Publishing, without subscribers.
    (1, "PUBLISH nobody $v"),
    (1, "SPUBLISH nobody $v"),
    (1, "!PUBSUB CHANNELS nobody*"),
    (1, "!PUBSUB NUMSUB nobody $v"),
    (1, "!PUBSUB SHARDNUMSUB nobody"),
    // Scripts by their digest, which are not loaded.
    (
        1,
        "!EVALSHA ffffffffffffffffffffffffffffffffffffffff 1 $k $v",
    ),
    (1, "!SCRIPT EXISTS ffffffffffffffffffffffffffffffffffffffff"),
    // Commands that neither has.
    (1, "NOSUCHCOMMAND"),
    (1, "NOSUCHCOMMAND $k $v $i"),
];

/// Commands that only one of the two has, in forms that change nothing. Never inside a transaction, which the
/// other one would then refuse as a whole.
pub(crate) const OF_ONE: &[&str] = &[
    "LLEN nosuchkey",
    "HGETALL nosuchkey",
    "SMEMBERS nosuchkey",
    "ZCARD nosuchkey",
    "CLIENT SETINFO LIB-NAME differential",
    "CLIENT NO-TOUCH ON",
    "CLIENT CAPA redirect",
];

/// Commands whose description is requested.
pub(crate) const ASKED_ABOUT: &[&str] = &[
    "get",
    "set",
    "setnx",
    "setex",
    "psetex",
    "getset",
    "getdel",
    "getex",
    "mget",
    "mset",
    "msetnx",
    "append",
    "strlen",
    "getrange",
    "substr",
    "setrange",
    "incr",
    "decr",
    "incrby",
    "decrby",
    "incrbyfloat",
    "del",
    "unlink",
    "exists",
    "touch",
    "expire",
    "pexpire",
    "expireat",
    "pexpireat",
    "ttl",
    "pttl",
    "expiretime",
    "pexpiretime",
    "persist",
    "type",
    "rename",
    "renamenx",
    "copy",
    "scan",
    "keys",
    "randomkey",
    "object",
    "object|encoding",
    "wait",
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "eval",
    "evalsha",
    "script|load",
    "subscribe",
    "publish",
    "spublish",
    "hello",
    "auth",
    "ping",
    "echo",
    "quit",
    "reset",
    "select",
    "client",
    "client|id",
    "client|list",
    "dbsize",
    "flushdb",
    "flushall",
    "time",
    "lolwut",
    "info",
    "role",
    "command",
    "command|docs",
    "config",
    "config|get",
    "memory",
    "memory|usage",
    "slowlog",
    "module",
    "acl|whoami",
    "lastsave",
    "debug",
    "shutdown",
    "readonly",
    "readwrite",
];

/// Weights of the steps that the generator puts together itself, out of 1,000; the rest are single
/// commands of [`TEMPLATES`].
pub(crate) mod blocks {
    /// `MULTI`, commands, `EXEC` or `DISCARD`.
    pub(crate) const TRANSACTION: usize = 40;
    /// `WATCH`, `GET`, `MULTI`, `SET`, `EXEC`.
    pub(crate) const COMPARE_AND_SET: usize = 10;
    /// A short life, waited for.
    pub(crate) const EXPIRE: usize = 10;
    /// A whole `SCAN`.
    pub(crate) const SCAN: usize = 4;
    /// `RANDOMKEY` and `KEYS *`, which must hold it.
    pub(crate) const RANDOM_KEY: usize = 6;
    /// `SCAN`, which makes Redis expire, and `DBSIZE`.
    pub(crate) const DBSIZE: usize = 6;
    /// `SUBSCRIBE` to `UNSUBSCRIBE`.
    pub(crate) const SUBSCRIBE: usize = 5;
    /// `CLIENT REPLY OFF` or `SKIP`.
    pub(crate) const SILENCE: usize = 4;
    /// `HELLO`.
    pub(crate) const HELLO: usize = 6;
    /// Commands that only one of the two has.
    pub(crate) const OF_ONE: usize = 8;
    /// `QUIT`.
    pub(crate) const QUIT: usize = 1;
    /// `FLUSHALL` or `FLUSHDB`, while no connection watches a key.
    pub(crate) const FLUSH: usize = 8;
    /// The scripts that memkv knows.
    pub(crate) const SCRIPT: usize = 20;
}
