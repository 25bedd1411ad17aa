//! The body of a transaction, which becomes guards and steps as it is parsed. No tree of it is built, so
//! it costs little more memory than the steps that come out.
//!
//! Never takes more items than a transaction may have, fields than an item has, or levels than the format
//! has. Nothing is dropped: an unknown field and a field that occurs twice are refused, because two
//! readers of it may each believe another one.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memkv_proto::ttl_ms;
use memkv_store::{
    Command, Compare, Condition, Expiry, Guard, MAX_TRANSACTION_STEPS, Query, SetIf, Step,
};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// More fields than any item has.
const MAX_FIELDS: usize = 8;

/// The steps, for messages.
const STEPS: &str = "set, get, delete, incr";

/// A transaction as its body describes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) guards: Vec<Guard>,
    pub(super) operations: Vec<Step>,
    pub(super) otherwise: Vec<Step>,
}

/// One document and nothing behind it.
///
/// # Errors
/// The fault and its location.
pub(super) fn parse(body: &Bytes) -> Result<Request, String> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let request = Document(body).deserialize(&mut parser);
    let ended = request.and_then(|request| parser.end().map(|()| request));
    ended.map_err(|error| error.to_string())
}

/// The whole body.
struct Document<'a>(&'a Bytes);

impl<'de> DeserializeSeed<'de> for Document<'de> {
    type Value = Request;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Request, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'de> {
    type Value = Request;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object as the body")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut body: A) -> Result<Request, A::Error> {
        let (mut guards, mut operations, mut otherwise) = (None, None, None);
        while let Some(name) = body.next_key::<Cow<'de, str>>()? {
            let is_twice = match &*name {
                "if" => {
                    let list = List {
                        name: "if",
                        body: self.0,
                        item: guard,
                    };
                    guards.replace(body.next_value_seed(list)?).is_some()
                }
                "then" | "else" => {
                    let (name, steps) = match &*name {
                        "then" => ("then", &mut operations),
                        _ => ("else", &mut otherwise),
                    };
                    let list = Steps { name, body: self.0 };
                    steps.replace(body.next_value_seed(list)?).is_some()
                }
                _ => {
                    let text = format!("the body has an unknown field {:?}", shown(&name));
                    return Err(A::Error::custom(text));
                }
            };
            if is_twice {
                return Err(twice(&name));
            }
        }
        Ok(Request {
            guards: guards.unwrap_or_default(),
            operations: operations.unwrap_or_default(),
            otherwise: otherwise.unwrap_or_default(),
        })
    }
}

/// The beginning of a name, for a message.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

fn twice<E: Error>(name: &str) -> E {
    E::custom(format!("the field {:?} occurs twice", shown(name)))
}

fn too_many<E: Error>(name: &str) -> E {
    E::custom(format!(
        "{name} has more than {MAX_TRANSACTION_STEPS} items, the limit"
    ))
}

/// A list of flat objects, each of which becomes a `T`.
struct List<'a, T> {
    name: &'static str,
    body: &'a Bytes,
    item: fn(&str, Flat<'a>) -> Result<T, String>,
}

impl<'de, T> DeserializeSeed<'de> for List<'de, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T> Visitor<'de> for List<'de, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list as {}", self.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        loop {
            let location = format!("{}[{}]", self.name, items.len());
            let object = Object {
                location: &location,
                body: self.body,
            };
            let Some(fields) = list.next_element_seed(object)? else {
                return Ok(items);
            };
            if items.len() == MAX_TRANSACTION_STEPS {
                return Err(too_many(self.name));
            }
            items.push((self.item)(&location, fields).map_err(A::Error::custom)?);
        }
    }
}

/// A list of steps: objects of one field, whose value is a flat object.
struct Steps<'a> {
    name: &'static str,
    body: &'a Bytes,
}

impl<'de> DeserializeSeed<'de> for Steps<'de> {
    type Value = Vec<Step>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Step>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Steps<'de> {
    type Value = Vec<Step>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list as {}", self.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Step>, A::Error> {
        let mut steps = Vec::new();
        loop {
            let location = format!("{}[{}]", self.name, steps.len());
            let step = OneStep {
                location: &location,
                body: self.body,
            };
            let Some(step) = list.next_element_seed(step)? else {
                return Ok(steps);
            };
            if steps.len() == MAX_TRANSACTION_STEPS {
                return Err(too_many(self.name));
            }
            steps.push(step);
        }
    }
}

struct OneStep<'a, 'de> {
    location: &'a str,
    body: &'de Bytes,
}

impl<'de> DeserializeSeed<'de> for OneStep<'_, 'de> {
    type Value = Step;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Step, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneStep<'_, 'de> {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object as {}", self.location)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut step: A) -> Result<Step, A::Error> {
        let location = self.location;
        let not_one = || A::Error::custom(format!("{location} must have exactly one of {STEPS}"));
        let Some(name) = step.next_key::<Cow<'de, str>>()? else {
            return Err(not_one());
        };
        let location = format!("{location}.{}", shown(&name));
        let arguments = Object {
            location: &location,
            body: self.body,
        };
        let arguments = step.next_value_seed(arguments)?;
        match step.next_key::<Cow<'de, str>>()? {
            None => {}
            Some(other) if other == name => return Err(twice(&name)),
            Some(_) => return Err(not_one()),
        }
        one_step(&name, &location, arguments).map_err(A::Error::custom)
    }
}

/// A value that holds no other.
#[derive(Debug)]
enum Scalar {
    Text(Bytes),
    Bool(bool),
    Natural(u64),
    Negative(i64),
    /// Null, or a number that is not whole.
    Other,
}

/// An object of scalars.
struct Flat<'a> {
    fields: Vec<(Cow<'a, str>, Scalar)>,
}

struct Object<'a, 'de> {
    location: &'a str,
    body: &'de Bytes,
}

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = Flat<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Flat<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = Flat<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object as {}", self.location)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Flat<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = object.next_key::<Cow<'de, str>>()? {
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(twice(&name));
            }
            if fields.len() == MAX_FIELDS {
                let text = format!("{} has more than {MAX_FIELDS} fields", self.location);
                return Err(A::Error::custom(text));
            }
            let value = object.next_value_seed(Field {
                location: self.location,
                name: &name,
                body: self.body,
            })?;
            fields.push((name, value));
        }
        Ok(Flat { fields })
    }
}

struct Field<'a, 'de> {
    location: &'a str,
    name: &'a str,
    body: &'de Bytes,
}

impl<'de> DeserializeSeed<'de> for Field<'_, 'de> {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_, 'de> {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = shown(self.name);
        write!(
            f,
            "a string, a number, true or false as {}.{name}",
            self.location
        )
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(match u64::try_from(value) {
            Ok(natural) => Scalar::Natural(natural),
            Err(_) => Scalar::Negative(value),
        })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Natural(value))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    /// A string without escapes is a part of the body, which lives as long.
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Scalar, E> {
        Ok(Scalar::Text(self.body.slice_ref(value.as_bytes())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(Bytes::copy_from_slice(value.as_bytes())))
    }
}

impl Flat<'_> {
    fn remove(&mut self, name: &str) -> Option<Scalar> {
        let at = self.fields.iter().position(|(known, _)| known == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    /// Bytes, as text or in base64 under another name.
    fn bytes(&mut self, location: &str, name: &str) -> Result<Option<Bytes>, String> {
        let encoded = format!("{name}_base64");
        match (self.remove(name), self.remove(&encoded)) {
            (None, None) => Ok(None),
            (Some(Scalar::Text(text)), None) => Ok(Some(text)),
            (None, Some(Scalar::Text(text))) => match STANDARD.decode(&text) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(error) => Err(format!("{location}: {encoded} is not base64: {error}")),
            },
            (Some(_), Some(_)) => Err(format!(
                "{location}: both {name} and {encoded}; send one of them"
            )),
            _ => Err(format!("{location}: {name} must be a string")),
        }
    }

    fn key(&mut self, location: &str) -> Result<Bytes, String> {
        self.bytes(location, "key")?
            .ok_or_else(|| format!("{location} has no key"))
    }

    fn ended(self, location: &str) -> Result<(), String> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("{location} has an unknown field {:?}", shown(name))),
        }
    }
}

fn guard(location: &str, mut fields: Flat<'_>) -> Result<Guard, String> {
    let key = fields.key(location)?;
    let value = fields.bytes(location, "value")?;
    let mut holds: Vec<Condition> = Vec::new();
    holds.extend(value.map(|value| Condition::Value(Compare::Equal, value)));
    match fields.remove("exists") {
        None => {}
        Some(Scalar::Bool(exists)) => holds.push(Condition::Exists(exists)),
        Some(_) => return Err(format!("{location}: exists must be true or false")),
    }
    for (name, condition) in [
        (
            "revision",
            Condition::ModRevision as fn(Compare, u64) -> Condition,
        ),
        ("create_revision", Condition::CreateRevision),
    ] {
        match fields.remove(name) {
            None => {}
            Some(Scalar::Natural(revision)) => holds.push(condition(Compare::Equal, revision)),
            Some(_) => return Err(format!("{location}: {name} must be a whole number")),
        }
    }
    fields.ended(location)?;
    match <[Condition; 1]>::try_from(holds) {
        Ok([holds]) => Ok(Guard {
            database: 0,
            key,
            holds,
        }),
        Err(_) => Err(format!(
            "{location} must have exactly one of exists, value, revision, create_revision"
        )),
    }
}

fn one_step(name: &str, location: &str, mut arguments: Flat<'_>) -> Result<Step, String> {
    let key = arguments.key(location)?;
    let step = match name {
        "set" => {
            let value = arguments.bytes(location, "value")?;
            Step::Write(Command::SetWith {
                key,
                value: value.ok_or_else(|| format!("{location} has no value"))?,
                condition: SetIf::Always,
                expiry: expiry(location, &mut arguments)?,
                get: false,
            })
        }
        "get" => Step::Read(Query::Meta { key, value: true }),
        "delete" => Step::Write(Command::Del { keys: vec![key] }),
        "incr" => {
            let by = match arguments.remove("by") {
                None => Some(1),
                Some(Scalar::Natural(by)) => i64::try_from(by).ok(),
                Some(Scalar::Negative(by)) => Some(by),
                Some(_) => None,
            };
            let by = by.ok_or_else(|| format!("{location}: by must be a whole number"))?;
            Step::Write(Command::IncrBy { key, by })
        }
        _ => return Err(format!("{location}: no such step; there are {STEPS}")),
    };
    arguments.ended(location)?;
    Ok(step)
}

fn expiry(location: &str, arguments: &mut Flat<'_>) -> Result<Expiry, String> {
    let ms = match arguments.remove("ttl") {
        None => return Ok(Expiry::None),
        Some(Scalar::Text(ttl)) => std::str::from_utf8(&ttl).ok().and_then(ttl_ms),
        Some(_) => None,
    };
    let ms = ms.ok_or_else(|| format!("{location}: ttl must be a string such as \"30s\""))?;
    Ok(Expiry::In { ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_becomes_guards_and_steps() {
        let body =
            br#"{"if": [{"key": "a", "revision": 7}, {"key_base64": "/w==", "exists": false}],
            "then": [{"set": {"key": "a", "value": "1", "ttl": "2s"}}, {"incr": {"key": "n"}}],
            "else": [{"get": {"key": "a"}}, {"delete": {"key": "b"}}]}"#;
        let request = parse(&Bytes::from_static(body)).unwrap();
        assert_eq!(request.guards.len(), 2);
        assert_eq!(
            request.guards[0].holds,
            Condition::ModRevision(Compare::Equal, 7)
        );
        assert_eq!(&request.guards[1].key[..], b"\xff");
        let Step::Write(Command::SetWith { expiry, .. }) = &request.operations[0] else {
            panic!("{request:?}");
        };
        assert_eq!(*expiry, Expiry::In { ms: 2000 });
        let by = Step::Write(Command::IncrBy {
            key: Bytes::from_static(b"n"),
            by: 1,
        });
        assert_eq!(request.operations[1], by);
        assert_eq!(request.otherwise.len(), 2);
    }

    #[test]
    fn lists_are_bounded_before_they_are_steps() {
        for (name, item) in [
            ("if", r#"{"key": "a", "exists": true}"#),
            ("else", r#"{"get": {"key": "a"}}"#),
        ] {
            let body = |count: usize| format!("{{\"{name}\": [{}]}}", vec![item; count].join(","));
            assert!(parse(&body(MAX_TRANSACTION_STEPS).into()).is_ok());
            let error = parse(&body(MAX_TRANSACTION_STEPS + 1).into()).unwrap_err();
            let words = format!("{name} has more than 1024 items");
            assert!(error.starts_with(&words), "{error}");
        }
    }

    #[test]
    fn what_is_not_understood_completely_is_refused_with_its_location() {
        for (body, words) in [
            ("[]", "an object as the body"),
            (
                r#"{"then": [], "then": []}"#,
                "the field \"then\" occurs twice",
            ),
            (
                r#"{"then": [{"delete": {"key": "a"}, "delete": {"key": "b"}}]}"#,
                "the field \"delete\" occurs twice",
            ),
            (r#"{"than": []}"#, "unknown field \"than\""),
            (r#"{"then": {}}"#, "a list as then"),
            (r#"{"then": [7]}"#, "an object as then[0]"),
            (r#"{"if": [{"key": [], "exists": true}]}"#, "as if[0].key"),
            (
                r#"{"then": [{"set": {"key": "a"}}]}"#,
                "then[0].set has no value",
            ),
            (
                r#"{"then": [{"put": {"key": "a"}}]}"#,
                "then[0].put: no such step",
            ),
            (
                r#"{"then": [{"get": {"key": "a", "x": 1}}]}"#,
                "unknown field \"x\"",
            ),
            (r#"{"then": [{"get": {}}]}"#, "then[0].get has no key"),
            (r#"{"if": [{"key": "a"}]}"#, "exactly one of"),
            (
                r#"{"if": [{"key": "a", "exists": true, "revision": 1}]}"#,
                "exactly one of",
            ),
            (r#"{"if": [{"key": "a", "exists": 1}]}"#, "true or false"),
            (
                r#"{"else": [{}, {"set": {"key": "a", "value": "b", "ttl": "soon"}}]}"#,
                "else[0] must have exactly one of",
            ),
        ] {
            let error = parse(&Bytes::from_static(body.as_bytes())).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
    }

    #[test]
    fn strings_are_shared_with_the_body_and_base64_and_escapes_are_read() {
        let text = br#"{"then": [{"set": {"key": "plain", "value_base64": "/w=="}},
            {"incr": {"key": "a\u0041\n", "by": -7}}]}"#;
        let body = Bytes::from_static(text);
        let request = parse(&body).unwrap();
        let [Step::Write(set), Step::Write(incr)] = &request.operations[..] else {
            panic!("{request:?}");
        };
        let Command::SetWith { key, value, .. } = set else {
            panic!("{set:?}");
        };
        assert!(text.as_ptr_range().contains(&key.as_ptr()));
        assert_eq!(&value[..], b"\xff");
        let key = Bytes::from_static(b"aA\n");
        assert_eq!(*incr, Command::IncrBy { key, by: -7 });
    }

    #[test]
    fn deep_long_and_unfinished_bodies_are_refused_before_they_cost_anything() {
        let deep = "[".repeat(1_000_000);
        let fields: String = (0..100_000).map(|at| format!("\"f{at}\": 1,")).collect();
        for text in [
            String::new(),
            "{".to_owned(),
            "{} {}".to_owned(),
            deep.clone(),
            format!("{{\"then\": {deep}"),
            format!("{{\"then\": [{{\"set\": {{\"key\": {deep}"),
            format!("{{\"if\": [{{{fields}"),
            format!("{{\"x\": {deep}"),
            "{\"if\": [{\"key\": \"\\ud800\", \"exists\": true}]}".to_owned(),
        ] {
            assert!(parse(&Bytes::from(text.clone())).is_err(), "{text:.40}");
        }
        assert!(parse(&Bytes::from_static(b"{\"\xff\": []}")).is_err());
    }
}
