//! A page of keys, as a node lists them. Never more than one page at a time: what follows is another
//! read, of another moment.

use bytes::Bytes;
use memkv_proto::{LISTING_PATH, encode_key_path, json_bytes};
use serde_json::{Map, Value};

use crate::options::ListOptions;

/// Keys in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub items: Vec<Item>,
    /// The last key, if there are more behind it: the `after` of the next page.
    pub next: Option<Bytes>,
    /// Revision of the store that was read, if the node said it.
    pub revision: Option<u64>,
}

/// A key of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// The value; None if only keys were asked for.
    pub value: Option<Bytes>,
    /// Revision of the last write; None if only keys were asked for.
    pub revision: Option<u64>,
    /// Revision of the write that created it; None if only keys were asked for.
    pub create_revision: Option<u64>,
    /// When it goes, in milliseconds since the epoch; None if it stays.
    pub expires_ms: Option<u64>,
}

/// The path and query of a page.
pub(crate) fn path(prefix: &[u8], options: &ListOptions<'_>) -> String {
    let mut path = format!("{LISTING_PATH}?prefix={}", encode_key_path(prefix));
    if let Some(after) = options.after {
        path.push_str("&after=");
        path.push_str(&encode_key_path(after));
    }
    if let Some(limit) = options.limit {
        path.push_str(&format!("&limit={limit}"));
    }
    if options.keys_only {
        path.push_str("&keys=1");
    }
    path
}

/// Reads a page.
pub(crate) fn parse(body: &[u8], revision: Option<u64>) -> Result<Page, String> {
    let mut page: Map<String, Value> =
        serde_json::from_slice(body).map_err(|err| err.to_string())?;
    let items = match page.remove("items") {
        Some(Value::Array(items)) => items,
        _ => return Err("it has no items".to_owned()),
    };
    Ok(Page {
        items: items.into_iter().map(item).collect::<Result<_, _>>()?,
        next: json_bytes::take(&mut page, "next")?.map(Bytes::from),
        revision,
    })
}

fn item(item: Value) -> Result<Item, String> {
    let Value::Object(mut item) = item else {
        return Err("an item is no object".to_owned());
    };
    let key = json_bytes::take(&mut item, "key")?.ok_or("an item has no key")?;
    let number = |name: &str| item.get(name).and_then(Value::as_u64);
    Ok(Item {
        key: key.into(),
        revision: number("revision"),
        create_revision: number("create_revision"),
        expires_ms: number("expires_ms"),
        value: json_bytes::take(&mut item, "value")?.map(Bytes::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_carry_bytes() {
        let page = parse(
            br#"{"items":[{"key":"a","value":"1","revision":7,"create_revision":6,"expires_ms":9},
            {"key_base64":"/w==","value_base64":"AP8="}],"next_base64":"/w=="}"#,
            Some(8),
        );
        let first = Item {
            key: "a".into(),
            value: Some("1".into()),
            revision: Some(7),
            create_revision: Some(6),
            expires_ms: Some(9),
        };
        let second = Item {
            key: Bytes::from_static(b"\xff"),
            value: Some(Bytes::from_static(b"\0\xff")),
            revision: None,
            create_revision: None,
            expires_ms: None,
        };
        let expected = Page {
            items: vec![first, second],
            next: Some(Bytes::from_static(b"\xff")),
            revision: Some(8),
        };
        assert_eq!(page, Ok(expected));
        for bad in ["", "[]", "{}", r#"{"items":[{}]}"#, r#"{"items":[1]}"#] {
            assert!(parse(bad.as_bytes(), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn everything_in_a_query_is_encoded() {
        let options = ListOptions {
            after: Some(b"a&b"),
            limit: Some(5),
            keys_only: true,
        };
        assert_eq!(
            path(b"a/=", &options),
            "/v1/kv?prefix=a%2F%3D&after=a%26b&limit=5&keys=1"
        );
        assert_eq!(path(b"", &ListOptions::default()), "/v1/kv?prefix=");
    }
}
