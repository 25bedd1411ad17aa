//! JSON objects whose keys keep their order, their duplicates and their position in the text.
//! Never interprets a value, and never recurses: the parser skips values iteratively.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one object, in the order of the text.
pub(crate) struct Members<'a>(pub(crate) Vec<(Text<'a>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A string that borrows from the text wherever it contains no escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Str;
        impl<'de> Visitor<'de> for Str {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Str)
    }
}

/// A text and its file name, to name positions in it.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// `file:line:column` (both from 1, columns in characters) of `part`, which must be a slice of
    /// the text; of anything else only the file's name.
    pub(crate) fn location(&self, part: &str) -> String {
        let offset = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        match self.text.get(..offset) {
            Some(before) if offset + part.len() <= self.text.len() => self.location_after(before),
            _ => self.file.to_owned(),
        }
    }

    /// As [`Self::place`] for a key: points at its opening quote.
    pub(crate) fn location_of_key(&self, key: &Text<'_>, value: &RawValue) -> String {
        match &key.0 {
            Cow::Borrowed(text) => {
                let offset = (text.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
                match self.text.get(..offset.saturating_sub(1)) {
                    Some(before) => self.location_after(before),
                    None => self.file.to_owned(),
                }
            }
            // A key with escapes was copied; its value stands right after it.
            Cow::Owned(_) => self.location(value.get()),
        }
    }

    fn location_after(&self, before: &str) -> String {
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[line_start..].chars().count() + 1;
        format!("{}:{line}:{column}", self.file)
    }
}

/// The kind of a JSON value, for messages.
pub(crate) fn kind_of(raw: &str) -> &'static str {
    match raw.bytes().next() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_know_their_location() {
        let text = "{ \"a\": 1,\n  \"é\": [\n2], \"a\": \"x\", \"\\u0062\": 3}";
        let source = Source { file: "f", text };
        let Members(members) = serde_json::from_str(text).unwrap();
        let locations: Vec<_> = members
            .iter()
            .map(|(k, v)| {
                (
                    k.0.as_ref(),
                    source.location_of_key(k, v),
                    source.location(v.get()),
                )
            })
            .collect();
        let location = |key, a: &str, b: &str| (key, a.to_owned(), b.to_owned());
        assert_eq!(locations[0], location("a", "f:1:3", "f:1:8"));
        assert_eq!(locations[1], location("é", "f:2:3", "f:2:8"));
        assert_eq!(locations[2], location("a", "f:3:5", "f:3:10"));
        assert_eq!(locations[3], location("b", "f:3:25", "f:3:25"));
        assert_eq!(source.location("elsewhere"), "f");
    }
}
