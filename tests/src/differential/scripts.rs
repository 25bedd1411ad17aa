//! Calls of the scripts that memkv recognises: those of common locks and rate limits. Their keys are
//! their own, so that no value is in the way: an error inside a script carries the script's name in
//! Redis. No call returns a time that has begun to run, because that cannot be compared exactly.

use super::arguments::Arguments;
use super::{Sent, Step};

const DELETE: &str = "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end";

/// The reply to `SCRIPT LOAD` of [`DELETE`]; if it were wrong, no `EVALSHA` would succeed.
const DELETE_HASH: &str = "b70c2384248f88e6b75b9f89241a180f856ad852";

const EXPIRE: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then
  return redis.call('pexpire', KEYS[1], ARGV[2])
else
  return 0
end";

const COUNT_IN_WINDOW: &str = "
local current
local amount = tonumber(ARGV[2])
current = redis.call(\"incrby\", KEYS[1], amount)
if tonumber(current) == amount then
    redis.call(\"expire\", KEYS[1], ARGV[1])
end
return current";

const COUNT_IF_PRESENT: &str = "local exists = redis.call('EXISTS', KEYS[1])
if (exists == 1) then return redis.call('INCRBY', KEYS[1], ARGV[1]) else return false end";

const HITS_AND_TIME: &str = "
local windowMs = tonumber(ARGV[2])
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

const READ_HITS_AND_TIME: &str = "
local totalHits = redis.call(\"GET\", KEYS[1])
local timeToExpire = redis.call(\"PTTL\", KEYS[1])
return { totalHits, timeToExpire }";

const LOCK_ALL: &str = "
for i, key in ipairs(KEYS) do
  if redis.call(\"exists\", key) == 1 then return 0 end
end
for i, key in ipairs(KEYS) do
  redis.call(\"set\", key, ARGV[1], \"PX\", ARGV[2])
end
return #KEYS";

const EXTEND_ALL: &str = "
for i, key in ipairs(KEYS) do
  if redis.call(\"get\", key) ~= ARGV[1] then return 0 end
end
for i, key in ipairs(KEYS) do
  redis.call(\"set\", key, ARGV[1], \"PX\", ARGV[2])
end
return #KEYS";

const RELEASE_ALL: &str = "
local count = 0
for i, key in ipairs(KEYS) do
  if redis.call(\"get\", key) == ARGV[1] then
    redis.pcall(\"del\", key)
    count = count + 1
  end
end
return count";

/// A far deadline, in seconds and in milliseconds.
const SECONDS: &str = "500000";
const MILLISECONDS: &str = "500000000";

/// One call, sometimes after a command that prepares its key.
pub(crate) fn call(arguments: &mut Arguments) -> Vec<Step> {
    let mut pick = |names: &[&'static str]| names[arguments.random.below(names.len())];
    let token = pick(&["token-1", "token-2"]);
    let lock = pick(&["lock:1", "lock:2", "lock:3"]);
    let rate = pick(&["rate:1", "rate:2"]);
    let endless = pick(&["endless:1", "endless:2"]);
    let prepare = match pick(&["set", "delete", "nothing", "nothing"]) {
        "set" => Some(Sent::new(&["SET", lock, token])),
        "delete" => Some(Sent::new(&["DEL", lock, rate, endless])),
        _ => None,
    };
    let kind = pick(&[
        "delete", "expire", "window", "present", "hits", "anew", "read", "all", "extend",
        "release", "hash", "keys",
    ]);
    let eval = |text: &str, rest: &[&str]| Sent::new(&[&["EVAL", text], rest].concat());
    let calls = match kind {
        "delete" => vec![eval(DELETE, &["1", lock, token])],
        "expire" => vec![eval(EXPIRE, &["1", lock, token, MILLISECONDS])],
        "window" => vec![eval(COUNT_IN_WINDOW, &["1", rate, SECONDS, "3"])],
        "present" => vec![eval(COUNT_IF_PRESENT, &["1", rate, "5"])],
        "hits" => vec![eval(HITS_AND_TIME, &["1", rate, "1", MILLISECONDS])],
        // A key without a window begins one.
        "anew" => vec![
            Sent::new(&["SET", rate, "41"]),
            eval(HITS_AND_TIME, &["1", rate, "0", MILLISECONDS]),
        ],
        "read" => vec![
            Sent::new(&["INCR", endless]),
            eval(READ_HITS_AND_TIME, &["1", endless]),
            eval(READ_HITS_AND_TIME, &["1", "endless:0"]),
        ],
        "all" => vec![eval(LOCK_ALL, &["2", lock, "lock:4", token, MILLISECONDS])],
        "extend" => {
            let all = ["2", lock, "lock:4", token, MILLISECONDS];
            vec![eval(EXTEND_ALL, &all), Sent::new(&["GET", "lock:4"])]
        }
        "release" => vec![eval(RELEASE_ALL, &["3", lock, "lock:4", lock, token])],
        "hash" => vec![
            Sent::new(&["SCRIPT", "LOAD", DELETE]),
            Sent::new(&["SCRIPT", "EXISTS", DELETE_HASH]),
            Sent::new(&["EVALSHA", DELETE_HASH, "1", lock, token]),
        ],
        _ => vec![
            eval(DELETE, &["x", lock]),
            eval(DELETE, &["-1", lock]),
            eval(DELETE, &["3", lock]),
            eval(DELETE, &[]),
        ],
    };
    vec![Step::Commands(prepare.into_iter().chain(calls).collect())]
}
