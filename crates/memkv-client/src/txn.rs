//! Transactions: conditions, and what is done if all of them hold, or else; in one step.
//! Never judged here: what a node does not understand completely, it refuses.

use std::time::Duration;

use bytes::Bytes;
use memkv_proto::json_bytes;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// What a transaction demands of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It is there, or it is not.
    Exists(bool),
    /// It has this value.
    Value(Bytes),
    /// This is the revision of its last write.
    Revision(u64),
    /// This is the revision of the write that created it.
    CreateRevision(u64),
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sets a key, for `ttl` in whole milliseconds if there is one.
    Set {
        /// The key.
        key: Bytes,
        /// Its value from now on.
        value: Bytes,
        /// How long it lives; None: until it is removed.
        ttl: Option<Duration>,
    },
    /// Reads a key.
    Get(Bytes),
    /// Removes a key.
    Delete(Bytes),
    /// Adds to a whole number in decimal; an absent key counts as 0.
    Incr(Bytes, i64),
}

/// A transaction: guards, the steps if all of them hold, and the steps if one does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    guards: Vec<Value>,
    then: Vec<Value>,
    otherwise: Vec<Value>,
}

impl Txn {
    /// One that demands and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands this of `key` too.
    #[must_use]
    pub fn when(mut self, key: &[u8], guard: Guard) -> Self {
        let mut object = with_key(key);
        match guard {
            Guard::Exists(exists) => drop(object.insert("exists".into(), exists.into())),
            Guard::Value(value) => json_bytes::put(&mut object, "value", &value),
            Guard::Revision(at) => drop(object.insert("revision".into(), at.into())),
            Guard::CreateRevision(at) => drop(object.insert("create_revision".into(), at.into())),
        }
        self.guards.push(object.into());
        self
    }

    /// Does this too if all guards hold.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.then.push(step.into_json());
        self
    }

    /// Does this too if a guard does not hold.
    #[must_use]
    pub fn otherwise(mut self, step: Step) -> Self {
        self.otherwise.push(step.into_json());
        self
    }

    pub(crate) fn into_json(self) -> Bytes {
        let mut body = Object::new();
        body.insert("if".into(), self.guards.into());
        body.insert("then".into(), self.then.into());
        body.insert("else".into(), self.otherwise.into());
        Value::Object(body).to_string().into()
    }
}

impl Step {
    fn into_json(self) -> Value {
        let (name, arguments) = match self {
            Self::Set { key, value, ttl } => {
                let mut arguments = with_key(&key);
                json_bytes::put(&mut arguments, "value", &value);
                if let Some(ttl) = ttl {
                    arguments.insert("ttl".into(), format!("{}ms", ttl.as_millis()).into());
                }
                ("set", arguments)
            }
            Self::Get(key) => ("get", with_key(&key)),
            Self::Delete(key) => ("delete", with_key(&key)),
            Self::Incr(key, by) => {
                let mut arguments = with_key(&key);
                arguments.insert("by".into(), by.into());
                ("incr", arguments)
            }
        };
        let mut step = Object::new();
        step.insert(name.into(), arguments.into());
        step.into()
    }
}

fn with_key(key: &[u8]) -> Object {
    let mut object = Object::new();
    json_bytes::put(&mut object, "key", key);
    object
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Whether all guards held: `then` was done, otherwise `else`.
    pub succeeded: bool,
    /// Its revision, if the node said it.
    pub revision: Option<u64>,
    /// One for each step that was done.
    pub results: Vec<StepResult>,
    /// The answer as the node wrote it.
    pub json: Bytes,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// `set` did it.
    Done,
    /// How many keys `delete` removed, or the sum of `incr`.
    Integer(i64),
    /// What `get` found.
    Found(Bytes),
    /// `get` found nothing.
    Absent,
    /// This step did nothing, for this reason; the others did what they do.
    Failed(String),
}

/// Reads the answer to a transaction.
pub(crate) fn parse(body: Bytes, revision: Option<u64>) -> Result<TxnAnswer, String> {
    let mut answer: Object = serde_json::from_slice(&body).map_err(|err| err.to_string())?;
    let succeeded = answer.get("succeeded").and_then(Value::as_bool);
    let Some(Value::Array(results)) = answer.remove("results") else {
        return Err("it has no results".to_owned());
    };
    Ok(TxnAnswer {
        succeeded: succeeded.ok_or("it does not say which branch was done")?,
        revision,
        results: results.into_iter().map(result).collect::<Result<_, _>>()?,
        json: body,
    })
}

fn result(result: Value) -> Result<StepResult, String> {
    let Value::Object(mut result) = result else {
        return Err("a result is no object".to_owned());
    };
    if result.get("ok") != Some(&Value::Bool(true)) {
        let reason = result.get("error").and_then(Value::as_str);
        return Ok(StepResult::Failed(reason.unwrap_or("failed").to_owned()));
    }
    if let Some(number) = result.get("integer").and_then(Value::as_i64) {
        return Ok(StepResult::Integer(number));
    }
    if result.get("value") == Some(&Value::Null) {
        return Ok(StepResult::Absent);
    }
    let value = json_bytes::take(&mut result, "value")?;
    Ok(value.map_or(StepResult::Done, |value| StepResult::Found(value.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_becomes_the_json_that_nodes_take() {
        let set = Step::Set {
            key: "lock".into(),
            value: Bytes::from_static(b"\xff"),
            ttl: Some(Duration::from_secs(30)),
        };
        let txn = Txn::new()
            .when(b"lock", Guard::Exists(false))
            .when(b"v", Guard::Value("1".into()))
            .when(b"r", Guard::Revision(7))
            .when(b"\xff", Guard::CreateRevision(6))
            .then(set)
            .then(Step::Incr("n".into(), -2))
            .otherwise(Step::Get("lock".into()))
            .otherwise(Step::Delete("n".into()));
        let expected: Value = serde_json::from_str(
            r#"{"if":[{"key":"lock","exists":false},{"key":"v","value":"1"},
            {"key":"r","revision":7},{"key_base64":"/w==","create_revision":6}],
            "then":[{"set":{"key":"lock","value_base64":"/w==","ttl":"30000ms"}},
            {"incr":{"key":"n","by":-2}}],
            "else":[{"get":{"key":"lock"}},{"delete":{"key":"n"}}]}"#,
        )
        .unwrap();
        let json: Value = serde_json::from_slice(&txn.into_json()).unwrap();
        assert_eq!(json, expected);
    }

    #[test]
    fn answers_tell_branch_and_results() {
        let body = r#"{"succeeded":false,"revision":9,"results":[{"ok":true},
            {"ok":true,"integer":-3},{"ok":true,"value":"v","revision":4},
            {"ok":true,"value_base64":"/w=="},{"ok":true,"value":null},
            {"ok":false,"error":"not an integer"}]}"#;
        let answer = parse(body.into(), Some(9)).unwrap();
        assert!(!answer.succeeded);
        let expected = [
            StepResult::Done,
            StepResult::Integer(-3),
            StepResult::Found("v".into()),
            StepResult::Found(Bytes::from_static(b"\xff")),
            StepResult::Absent,
            StepResult::Failed("not an integer".into()),
        ];
        assert_eq!(answer.results, expected);
        for bad in ["", "{}", r#"{"results":[]}"#, r#"{"succeeded":true}"#] {
            assert!(parse(bad.into(), None).is_err(), "{bad}");
        }
    }
}
