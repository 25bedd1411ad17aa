//! The scripts that memkv recognises.

use super::*;

const UNLOCK: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
const EXTEND: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end";
const PROLONG: &str = "local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        local expiration = redis.call('pttl', KEYS[1])
        if not expiration then
            expiration = 0
        end
        if expiration < 0 then
            return 0
        end
        local newttl = ARGV[2]
        if ARGV[3] == \"0\" then
            newttl = ARGV[2] + expiration
        end
        redis.call('pexpire', KEYS[1], newttl)
        return 1";
const WINDOW: &str = "local current
    local amount = tonumber(ARGV[2])
    current = redis.call(\"incrby\", KEYS[1], amount)
    if tonumber(current) == amount then
        redis.call(\"expire\", KEYS[1], ARGV[1])
    end
    return current";
const PRESENT: &str = "local exists = redis.call('EXISTS', KEYS[1])
    if (exists == 1) then return redis.call('INCRBY', KEYS[1], ARGV[1])
    else return false end";
const HITS: &str = "local windowMs = tonumber(ARGV[2])
    local resetOnChange = ARGV[1] == \"1\"
    local timeToExpire = redis.call(\"PTTL\", KEYS[1])
    if timeToExpire <= 0 then
      redis.call(\"SET\", KEYS[1], 1, \"PX\", windowMs)
      return { 1, windowMs }
    end
    local totalHits = redis.call(\"INCR\", KEYS[1])
    if resetOnChange then
      redis.call(\"PEXPIRE\", KEYS[1], windowMs)
      timeToExpire = windowMs
    end
    return { totalHits, timeToExpire }";
const READ_HITS: &str = "local totalHits = redis.call(\"GET\", KEYS[1])
    local timeToExpire = redis.call(\"PTTL\", KEYS[1])
    return { totalHits, timeToExpire }";

impl TestClient {
    async fn eval(&mut self, script: &str, rest: &str) -> String {
        let mut args = vec!["EVAL", script];
        args.extend(rest.split(' '));
        self.send_args(&args).await;
        self.shown().await
    }
}

#[tokio::test]
async fn locks() {
    let mut client = start().await.client().await;
    client.ask("SELECT 3").await;
    client.ask("SET lock mine").await;
    assert_eq!(client.eval(EXTEND, "1 lock other 9000").await, ":0");
    assert_eq!(client.eval(EXTEND, "1 lock mine 9000").await, ":1");
    assert_eq!(client.ask("PTTL lock").await, ":9000");
    assert_eq!(client.eval(PROLONG, "1 lock other 500 0").await, ":0");
    // Each write of the tests' store is stamped one millisecond later.
    assert_eq!(client.eval(PROLONG, "1 lock mine 500 0").await, ":1");
    assert_eq!(client.ask("PTTL lock").await, ":9498");
    assert_eq!(client.eval(PROLONG, "1 lock mine 500 1").await, ":1");
    assert_eq!(client.ask("PTTL lock").await, ":500");
    client.ask("PERSIST lock").await;
    assert_eq!(client.eval(PROLONG, "1 lock mine 500 0").await, ":0");
    assert_eq!(client.eval(UNLOCK, "1 lock other").await, ":0");
    assert_eq!(client.eval(UNLOCK, "1 lock mine").await, ":1");
    assert_eq!(client.ask("GET lock").await, "$-1");
}

#[tokio::test]
async fn rate_limits() {
    let mut client = start().await.client().await;
    assert_eq!(client.eval(WINDOW, "1 w 60 2").await, ":2");
    assert_eq!(client.ask("TTL w").await, ":60");
    client.ask("EXPIRE w 30").await;
    assert_eq!(client.eval(WINDOW, "1 w 60 2").await, ":4");
    assert_eq!(client.ask("TTL w").await, ":30");
    assert_eq!(client.eval(PRESENT, "1 nosuch 5").await, "$-1");
    assert_eq!(client.eval(PRESENT, "1 w 5").await, ":9");
    assert_eq!(client.eval(HITS, "1 h 0 5000").await, "[:1 :5000]");
    client.ask("PEXPIRE h 3000").await;
    // Each write of the tests' store is stamped one millisecond later.
    assert_eq!(client.eval(HITS, "1 h 0 5000").await, "[:2 :2999]");
    assert_eq!(client.eval(HITS, "1 h 1 5000").await, "[:3 :5000]");
    assert_eq!(client.eval(READ_HITS, "1 h").await, "[$3 :4999]");
    assert_eq!(client.eval(READ_HITS, "1 nosuch").await, "[$-1 :-2]");
}

#[tokio::test]
async fn hashes_and_refusals() {
    let mut client = start().await.client().await;
    // Different white space, so that no other test has made this hash known.
    let script = format!("{UNLOCK}  \n\n ");
    client.send_args(&["SCRIPT", "LOAD", &script]).await;
    let hash = client.shown().await;
    let hash = hash.trim_start_matches('$');
    let unknown = "0".repeat(40);
    client.ask("SET lock mine").await;
    client
        .dialogue(&[
            (&format!("SCRIPT EXISTS {hash} {unknown}"), "[:1 :0]"),
            (&format!("EVALSHA {hash} 1 lock mine"), ":1"),
            (
                &format!("EVALSHA {unknown} 0"),
                "-NOSCRIPT No matching script. Please use EVAL.",
            ),
            (
                "EVALSHA x y",
                "-NOSCRIPT No matching script. Please use EVAL.",
            ),
            (
                "EVAL x 1",
                "-ERR Number of keys can't be greater than number of args",
            ),
            ("EVAL x -1", "-ERR Number of keys can't be negative"),
            (
                "SCRIPT FLUSH x",
                "-ERR SCRIPT FLUSH only support SYNC|ASYNC option",
            ),
        ])
        .await;
    let refusal = client.eval("return 1", "0").await;
    assert!(
        refusal.starts_with("-ERR memkv does not run Lua"),
        "{refusal}"
    );
    client.ask("MULTI").await;
    assert_eq!(client.eval(UNLOCK, "1 lock mine").await, "+QUEUED");
    assert_eq!(client.eval(EXTEND, "1 lock mine 1000").await, "+QUEUED");
    let exec = client.ask("EXEC").await;
    assert!(
        exec.starts_with("[:0 -ERR this script is a transaction"),
        "{exec}"
    );
}

#[tokio::test]
async fn a_window_begins_anew_where_a_count_has_none() {
    let mut client = start().await.client().await;
    client.ask("SET h 41").await;
    assert_eq!(client.eval(HITS, "1 h 0 5000").await, "[:1 :5000]");
    assert_eq!(client.ask("GET h").await, "$1");
    assert_eq!(client.eval(HITS, "1 h 0 5000").await, "[:2 :4999]");
}

/// The scripts of node-redlock 4 and 5, put together from what they do; the library sends the same
/// words with other white space and comments.
const LOCK_ALL: &str =
    "for i, key in ipairs(KEYS) do if redis.call('exists', key) == 1 then return 0 end end
    for i, key in ipairs(KEYS) do redis.call('set', key, ARGV[1], 'PX', ARGV[2]) end return #KEYS";
const EXTEND_ALL: &str =
    "for i, key in ipairs(KEYS) do if redis.call('get', key) ~= ARGV[1] then return 0 end end
    for i, key in ipairs(KEYS) do redis.call('set', key, ARGV[1], 'PX', ARGV[2]) end return #KEYS";
const RELEASE_ALL: &str = "local count = 0 for i, key in ipairs(KEYS) do
    if redis.call('get', key) == ARGV[1] then redis.pcall('del', key) count = count + 1 end end return count";

#[tokio::test]
async fn locks_on_several_keys_are_taken_extended_and_released() {
    let mut client = start().await.client().await;
    assert_eq!(client.eval(LOCK_ALL, "2 a b mine 9000").await, ":2");
    assert_eq!(client.eval(LOCK_ALL, "2 b c other 9000").await, ":0");
    assert_eq!(client.eval(EXTEND_ALL, "2 a b other 500").await, ":0");
    // One of them is not held, so none is extended.
    assert_eq!(client.eval(EXTEND_ALL, "2 a c mine 500").await, ":0");
    assert_eq!(client.ask("EXISTS c").await, ":0");
    assert_eq!(client.eval(EXTEND_ALL, "2 a b mine 500").await, ":2");
    assert_eq!(client.ask("PTTL a").await, ":500");
    client.ask("SET b other").await;
    // What one holds no more is left alone, and not counted.
    assert_eq!(client.eval(RELEASE_ALL, "3 a b c mine").await, ":1");
    assert_eq!(client.ask("GET b").await, "$other");
    assert_eq!(client.eval(RELEASE_ALL, "2 b b other").await, ":1");
    assert_eq!(client.ask("EXISTS a b c").await, ":0");
}
