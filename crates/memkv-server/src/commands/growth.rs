//! Test: the flag `denyoom` of the table says what the store refuses at the memory cap, for every command
//! that writes keys.

use bytes::BytesMut;
use memkv_resp::{RequestParser, encode_command};
use memkv_store::Command;

use super::spec::{Handler, commands, flag};
use super::{Args, Op, resolve};

/// A call of each command that writes keys; a second one where the arguments decide.
const CALLS: [&str; 33] = [
    "set k v",
    "setnx k v",
    "setex k 10 v",
    "psetex k 10 v",
    "getset k v",
    "getdel k",
    "getex k EX 10",
    "mset k v",
    "msetnx k v",
    "append k v",
    "setrange k 1 v",
    "incr k",
    "decr k",
    "incrby k 1",
    "decrby k 1",
    "incrbyfloat k 1",
    "delifeq k v",
    "delex k",
    "del k",
    "unlink k",
    "expire k 10",
    "pexpire k 10",
    "expireat k 10",
    "pexpireat k 10",
    "persist k",
    "rename k n",
    "renamenx k n",
    "copy k n",
    "flushdb",
    "flushall",
    "memkv.cas k 0 v",
    "memkv.delrev k 1",
    "copy k n REPLACE",
];

fn command(call: &str) -> Command {
    let mut bytes = BytesMut::new();
    let words: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
    encode_command(&mut bytes, &words);
    let mut parser = RequestParser::new(memkv_resp::Limits::new(100));
    let request = parser.parse(&mut bytes).unwrap().unwrap();
    let spec = resolve(&request).unwrap_or_else(|_| panic!("{call}"));
    let Handler::Data(data) = spec.handler else {
        panic!("{call}")
    };
    let args = Args {
        request: &request,
        name: spec.name,
        db: 0,
    };
    match data(&args) {
        Ok(Op::Write(command, _)) => command,
        other => panic!("{call}: {other:?}"),
    }
}

#[test]
fn denyoom_says_what_is_refused_at_the_memory_cap() {
    let writes = commands().filter(|spec| spec.has(flag::WRITE));
    for spec in writes {
        let is_of = |call: &&&str| call.split(' ').next() == Some(spec.name);
        let calls: Vec<_> = CALLS.iter().filter(is_of).collect();
        assert!(!calls.is_empty(), "no call of {}", spec.name);
        for call in calls {
            let denied = spec.has(flag::DENYOOM);
            assert_eq!(command(call).may_grow(), denied, "{call}");
        }
    }
    // Redis does not refuse it, and a longer name takes more memory.
    assert!(command("rename k longer").may_grow());
    assert!(command("renamenx k longer").may_grow());
}
