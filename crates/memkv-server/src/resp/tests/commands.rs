//! Commands and their answers. The expected ones are what Redis 7.0 answers, where it has them.

use super::*;

#[tokio::test]
async fn strings() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("GET k", "$-1"),
            ("SET k v", "+OK"),
            ("get k", "$v"),
            ("SET k w NX", "$-1"),
            ("SET k w XX GET", "$v"),
            ("SET k x IFEQ nope", "$-1"),
            ("SET k x IFEQ w", "+OK"),
            ("SET k v EX 1 PX 1", "-ERR syntax error"),
            ("SET k v NX XX", "-ERR syntax error"),
            ("SET k v EX 0", "-ERR invalid expire time in 'set' command"),
            (
                "SET k v EX 9223372036854775807",
                "-ERR invalid expire time in 'set' command",
            ),
            (
                "SET k v EX abc",
                "-ERR value is not an integer or out of range",
            ),
            (
                "SETEX k x v",
                "-ERR value is not an integer or out of range",
            ),
            ("SETEX k 0 v", "-ERR invalid expire time in 'setex' command"),
            ("SETNX k y", ":0"),
            ("SETNX n 1", ":1"),
            ("GETSET n 2", "$1"),
            ("APPEND n 3", ":2"),
            ("STRLEN n", ":2"),
            ("GETRANGE n -1 -1", "$3"),
            ("SUBSTR n 0 0", "$2"),
            ("SETRANGE n 1 xyz", ":4"),
            ("SETRANGE n -1 x", "-ERR offset is out of range"),
            ("MSET a 1 b 2", "+OK"),
            (
                "MSET a 1 b",
                "-ERR wrong number of arguments for 'mset' command",
            ),
            ("MSETNX b 1 c 2", ":0"),
            ("MGET a b c", "[$1 $2 $-1]"),
            ("GETDEL a", "$1"),
            ("GETDEL a", "$-1"),
            ("GETEX b", "$2"),
            (
                "GETEX b EX 0",
                "-ERR invalid expire time in 'getex' command",
            ),
            ("GETEX nosuch EX abc", "$-1"),
            (
                "GETEX b EX abc",
                "-ERR value is not an integer or out of range",
            ),
            ("DELIFEQ b 1", ":0"),
            ("DELEX b IFNE 1", ":1"),
            ("DEL k n nosuch", ":2"),
            ("SET '' ''", "+OK"),
            ("GET ''", "$"),
        ])
        .await;
}

#[tokio::test]
async fn counters() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("INCR n", ":1"),
            ("INCRBY n 41", ":42"),
            ("DECRBY n 2", ":40"),
            ("DECR n", ":39"),
            (
                "INCRBY n 1.5",
                "-ERR value is not an integer or out of range",
            ),
            (
                "INCRBY n 9223372036854775807",
                "-ERR increment or decrement would overflow",
            ),
            (
                "DECRBY n -9223372036854775808",
                "-ERR decrement would overflow",
            ),
            ("INCRBYFLOAT n 0.5", "$39.5"),
            ("INCR n", "-ERR value is not an integer or out of range"),
            ("INCRBYFLOAT n abc", "-ERR value is not a valid float"),
            (
                "INCRBYFLOAT n inf",
                "-ERR increment would produce NaN or Infinity",
            ),
        ])
        .await;
}

#[tokio::test]
async fn keys_and_their_expiry() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("SET k v", "+OK"),
            ("TTL k", ":-1"),
            ("PTTL nosuch", ":-2"),
            ("EXPIRE k 100", ":1"),
            ("TTL k", ":100"),
            ("EXPIRE k 50 GT", ":0"),
            ("EXPIRE k 50 XX LT", ":1"),
            (
                "EXPIRE k 1 NX XX",
                "-ERR NX and XX, GT or LT options at the same time are not compatible",
            ),
            (
                "EXPIRE k 1 GT LT",
                "-ERR GT and LT options at the same time are not compatible",
            ),
            ("EXPIRE k 1 FOO", "-ERR Unsupported option FOO"),
            (
                "EXPIRE k 9223372036854775807",
                "-ERR invalid expire time in 'expire' command",
            ),
            ("PERSIST k", ":1"),
            ("PERSIST k", ":0"),
            ("TYPE k", "+string"),
            ("TYPE nosuch", "+none"),
            ("EXISTS k k nosuch", ":2"),
            ("TOUCH k nosuch", ":1"),
            ("RENAME k l", "+OK"),
            ("RENAME k l", "-ERR no such key"),
            ("RENAMENX l l", ":0"),
            ("COPY l m", ":1"),
            (
                "COPY l l",
                "-ERR source and destination objects are the same",
            ),
            ("COPY l m DB 99", "-ERR DB index is out of range"),
            ("OBJECT ENCODING l", "$embstr"),
            ("OBJECT ENCODING nosuch", "$-1"),
            ("OBJECT REFCOUNT l", ":1"),
            (
                "OBJECT FOO l",
                "-ERR unknown subcommand 'FOO'. Try OBJECT HELP.",
            ),
            ("MEMORY USAGE nosuch", "$-1"),
            ("MEMORY USAGE l SAMPLES -1", "-ERR syntax error"),
            ("DBSIZE", ":2"),
            ("EXPIRE l -1", ":1"),
            ("GET l", "$-1"),
            ("FLUSHDB x", "-ERR syntax error"),
            ("FLUSHALL ASYNC", "+OK"),
            ("DBSIZE", ":0"),
            ("RANDOMKEY", "$-1"),
        ])
        .await;
}

#[tokio::test]
async fn scanning_finds_every_key_and_patterns_choose() {
    let mut client = start().await.client().await;
    for number in 0..300 {
        client.ask(&format!("SET key:{number} v")).await;
    }
    let (mut cursor, mut found) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        client
            .send(&format!("SCAN {cursor} COUNT 50 MATCH key:*"))
            .await;
        let Some(Frame::Array(parts)) = client.answer().await else {
            panic!("SCAN answers an array")
        };
        let [Frame::Bulk(next), Frame::Array(keys)] = &parts[..] else {
            panic!("a cursor and keys: {parts:?}")
        };
        found.extend(keys.iter().map(show));
        cursor = String::from_utf8(next.clone()).unwrap();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 300);
    client
        .dialogue(&[
            ("KEYS key:29[89]", "[$key:298 $key:299]"),
            ("KEYS nosuch*", "[]"),
            ("SCAN 0 TYPE hash COUNT 10000", "[$0 []]"),
            ("SCAN x", "-ERR invalid cursor"),
            ("SCAN 0 COUNT 0", "-ERR syntax error"),
            ("SCAN 0 MATCH", "-ERR syntax error"),
            (
                "SCAN 0 COUNT x",
                "-ERR value is not an integer or out of range",
            ),
        ])
        .await;
}

#[tokio::test]
async fn revisions_and_ranges() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("MEMKV.META k", "$-1"),
            ("MEMKV.CAS k 0 one", ":1"),
            ("MEMKV.CAS k 0 two", "$-1"),
            ("MEMKV.CAS k 1 two", ":2"),
            (
                "MEMKV.META k",
                "[$create_revision :1 $mod_revision :2 $expires_at_ms :-1]",
            ),
            ("MEMKV.DELREV k 1", ":0"),
            ("MEMKV.DELREV k 2", ":1"),
            (
                "MEMKV.CAS k x v",
                "-ERR value is not an integer or out of range",
            ),
            ("MSET r:a 1 r:b 2 r:c 3 s 4", "+OK"),
            ("MEMKV.RANGE r: KEYS", "[$-1 [$r:a $r:b $r:c]]"),
            ("MEMKV.RANGE r: KEYS LIMIT 2", "[$r:b [$r:a $r:b]]"),
            ("MEMKV.RANGE r: KEYS AFTER r:b", "[$-1 [$r:c]]"),
        ])
        .await;
}

#[tokio::test]
async fn databases_are_apart() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("SET k zero", "+OK"),
            ("SELECT 15", "+OK"),
            ("GET k", "$-1"),
            ("SET k fifteen", "+OK"),
            ("SELECT 16", "-ERR DB index is out of range"),
            ("SELECT x", "-ERR value is not an integer or out of range"),
            ("COPY k copied DB 0", ":1"),
            ("FLUSHDB", "+OK"),
            ("DBSIZE", ":0"),
            ("SELECT 0", "+OK"),
            ("MGET k copied", "[$zero $fifteen]"),
        ])
        .await;
}

#[tokio::test]
async fn unknown_commands_and_wrong_numbers_of_arguments() {
    let mut client = start().await.client().await;
    let long = "x".repeat(200);
    let cut = &long[..128];
    client
        .dialogue(&[
            (
                "FOO",
                "-ERR unknown command 'FOO', with args beginning with: ",
            ),
            (
                "FOO a b",
                "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' ",
            ),
            (
                &format!("{long} a"),
                &format!("-ERR unknown command '{cut}', with args beginning with: 'a' "),
            ),
            (
                "client|id",
                "-ERR unknown command 'client|id', with args beginning with: ",
            ),
            ("GET", "-ERR wrong number of arguments for 'get' command"),
            (
                "CLIENT",
                "-ERR wrong number of arguments for 'client' command",
            ),
            (
                "CLIENT GETNAME x",
                "-ERR wrong number of arguments for 'client|getname' command",
            ),
            (
                "CLIENT FOO",
                "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.",
            ),
            (
                "client foo",
                "-ERR unknown subcommand 'foo'. Try CLIENT HELP.",
            ),
            (
                "XADD s * f v",
                "-ERR unknown command 'XADD', with args beginning with: 's' '*' 'f' 'v' ",
            ),
        ])
        .await;
}

#[tokio::test]
async fn the_table_describes_itself() {
    let mut client = start().await.client().await;
    let count = crate::commands::count();
    client
        .dialogue(&[
            ("COMMAND COUNT", &format!(":{count}")),
            ("COMMAND INFO nosuch", "[$-1]"),
            ("COMMAND GETKEYS MSET a 1 b 2", "[$a $b]"),
            ("COMMAND GETKEYS EVAL x 2 a b c", "[$a $b]"),
            (
                "COMMAND GETKEYS PING x",
                "-ERR The command has no key arguments",
            ),
            ("COMMAND GETKEYS nosuch x", "-ERR Invalid command specified"),
            (
                "COMMAND GETKEYS MSET a",
                "-ERR Invalid number of arguments specified for command",
            ),
            ("COMMAND LIST FILTERBY PATTERN getr*", "[$getrange]"),
            ("COMMAND LIST FOO", "-ERR syntax error"),
        ])
        .await;
    let info = client.ask("COMMAND INFO get").await;
    let start = "[[$get :2 [+readonly +fast] :1 :1 :1 [+@read +@string +@fast] []";
    assert!(info.starts_with(start), "{info}");
    client.send("COMMAND").await;
    let Some(Frame::Array(all)) = client.answer().await else {
        panic!("COMMAND answers an array")
    };
    assert_eq!(all.len(), count);
    let docs = client.ask("COMMAND DOCS get nosuch").await;
    assert!(
        docs.starts_with("[$get [$summary $Returns the value of a key."),
        "{docs}"
    );
}
