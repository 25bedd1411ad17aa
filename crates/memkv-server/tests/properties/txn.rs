//! What must hold whatever body `/v1/txn` is sent, on a real store that holds a few keys; shared by
//! this crate's tests and the fuzz target. Panics where it does not hold.
//!
//! - It is executed, or refused with a reason and without a change.
//! - What is executed has one result for each step of its branch, in JSON.
//! - A guard on a key's existence holds if and only if the key is as it says.

use std::sync::Arc;

use bytes::BytesMut;
use memkv_server::http::{Limits, serve};
use serde_json::Value;

use crate::machine::Machine;
use crate::wire::{RUNTIME, Wire};

/// What the store holds before.
const BEFORE: &str = r#"{"then":[{"set":{"key":"a","value":"1"}},{"set":{"key":"n","value":"9"}},
    {"set":{"key":"","value":""}},{"set":{"key_base64":"/w==","value_base64":"/wA="}}]}"#;

/// The keys of that which are text.
const KEYS: [&str; 3] = ["a", "n", ""];

/// Sends a body to a store that holds [`BEFORE`].
pub(crate) fn check_txn(body: &[u8]) {
    let machine = Machine::checked();
    assert_eq!(ask(BEFORE.as_bytes(), &machine).0, 200);
    let before = machine.image();
    let (status, answer) = ask(body, &machine);
    let answer: Value = serde_json::from_slice(&answer).expect("the answer is JSON");
    if status != 200 {
        assert!((400..500).contains(&status), "{answer}");
        let has_reason = answer["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty());
        assert!(has_reason && answer["executed"] == "no", "{answer}");
        assert_eq!(before, machine.image(), "refused, and executed");
        return;
    }
    let asked: Value = serde_json::from_slice(body).expect("only JSON is executed");
    let succeeded = answer["succeeded"].as_bool().expect("it says which branch");
    let steps = &asked[if succeeded { "then" } else { "else" }];
    let steps = steps.as_array().map_or(0, Vec::len);
    let results = answer["results"].as_array().expect("it has results");
    assert_eq!(results.len(), steps, "{answer}");
    assert!(
        results.iter().all(|result| result["ok"].is_boolean()),
        "{answer}"
    );
    for guard in asked["if"].as_array().into_iter().flatten() {
        if let (Some(key), Some(exists)) = (guard["key"].as_str(), guard["exists"].as_bool()) {
            let holds = KEYS.contains(&key) == exists;
            assert!(holds || !succeeded, "{guard} does not hold");
        }
    }
    if asked["if"].as_array().is_none_or(Vec::is_empty) {
        assert!(succeeded, "there was no guard");
    }
}

/// Status and body of the answer.
fn ask(body: &[u8], machine: &Machine) -> (u16, Vec<u8>) {
    let head = format!(
        "POST /v1/txn HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    let wire = Wire::new(&request, vec![request.len()]);
    let replies = wire.replies();
    let api = machine.api();
    let serving = serve(
        wire,
        ([127, 0, 0, 1], 1).into(),
        BytesMut::new(),
        &api,
        Arc::new(Limits::default()),
    );
    RUNTIME.with(|runtime| runtime.block_on(serving));
    let answer = replies.bytes();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.expect("it is answered") + 4);
    let status = std::str::from_utf8(&head[9..12]).expect("a status is text");
    (status.parse().expect("and a number"), body.to_vec())
}
