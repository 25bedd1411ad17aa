//! Prints results on standard output and talk on standard error.
//! Never mixes the two, and colours only a terminal, and only without `NO_COLOR` (no-color.org).

use std::io::{self, IsTerminal};

use memkv_client::proto::ErrorCode;
use memkv_client::{ClusterView, Entry, Health};
use serde_json::{Map, Value, json};

use super::args::Format;
use super::{print, table};

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

/// Messages for people.
pub(crate) struct Talk {
    coloured: bool,
}

impl Talk {
    pub(crate) fn new() -> Self {
        Self {
            coloured: coloured(io::stderr().is_terminal()),
        }
    }

    /// `error: what`, then lines that explain it.
    pub(crate) fn error(&self, what: &str, explain: &[String], code: Option<ErrorCode>) {
        let (red, reset) = if self.coloured {
            (RED, RESET)
        } else {
            ("", "")
        };
        let code = code.map_or(String::new(), |code| format!("   [{code}]"));
        self.say(&format!("{red}error:{reset} "), &format!("{what}{code}"));
        explain.iter().for_each(|line| self.say("  ", line));
    }

    /// A line of talk.
    pub(crate) fn note(&self, line: &str) {
        self.say("", line);
    }

    #[allow(clippy::print_stderr, reason = "the one place that talks")]
    fn say(&self, start: &str, line: &str) {
        // What a node said may hold control characters, which a terminal must not obey.
        let shown: String = line
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        eprintln!("{start}{shown}");
    }
}

/// Prints results in the format that was asked for.
pub(crate) struct Printer {
    format: Format,
    coloured: bool,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            coloured: coloured(io::stdout().is_terminal()),
        }
    }

    /// The result of `get`.
    pub(crate) fn entry(&self, entry: Option<&Entry>) -> io::Result<()> {
        match (self.format, entry) {
            (Format::Json, None) => self.object(json!({ "status": "not found" })),
            (Format::Json, Some(entry)) => {
                let mut object = with_revision("ok", entry.revision);
                match std::str::from_utf8(&entry.value) {
                    Ok(text) => object.insert("value".into(), text.into()),
                    Err(_) => object.insert("value_base64".into(), base64(&entry.value).into()),
                };
                self.object(Value::Object(object))
            }
            (_, None) => Ok(()),
            (Format::Raw, Some(entry)) => print(&entry.value),
            (Format::Table, Some(entry)) => {
                let mut line = entry.value.to_vec();
                line.push(b'\n');
                print(&line)
            }
        }
    }

    /// The result of `set` and `del`.
    pub(crate) fn written(&self, revision: Option<u64>) -> io::Result<()> {
        match self.format {
            Format::Json => self.object(Value::Object(with_revision("ok", revision))),
            Format::Table | Format::Raw => print(b"ok\n"),
        }
    }

    /// The result of `exist`.
    pub(crate) fn exists(&self, exists: bool) -> io::Result<()> {
        let word = if exists { "yes" } else { "no" };
        match self.format {
            Format::Json => self.object(json!({ "status": word })),
            Format::Table | Format::Raw => print(format!("{word}\n").as_bytes()),
        }
    }

    /// The result of `status`.
    pub(crate) fn cluster(&self, view: &ClusterView) -> io::Result<()> {
        let (health, sentence) = view.health();
        match self.format {
            Format::Json => self.object(cluster_json(view)),
            Format::Raw => print(table::tabs(view).as_bytes()),
            Format::Table => {
                let text = format!("{}{}\n", table::table(view), self.paint(health, &sentence));
                print(text.as_bytes())
            }
        }
    }

    /// Colours the sentence's first word.
    fn paint(&self, health: Health, sentence: &str) -> String {
        let colour = match health {
            Health::Healthy => GREEN,
            Health::Degraded | Health::Forming => YELLOW,
            Health::Unavailable => RED,
        };
        match sentence.split_once(':') {
            Some((word, rest)) if self.coloured => format!("{colour}{word}{RESET}:{rest}"),
            _ => sentence.to_owned(),
        }
    }

    fn object(&self, object: Value) -> io::Result<()> {
        print(format!("{object}\n").as_bytes())
    }
}

fn coloured(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn with_revision(status: &str, revision: Option<u64>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("status".to_owned(), status.into());
    if let Some(revision) = revision {
        object.insert("revision".to_owned(), revision.into());
    }
    object
}

fn cluster_json(view: &ClusterView) -> Value {
    let (health, sentence) = view.health();
    let nodes: Vec<_> = view
        .nodes
        .iter()
        .map(|node| match &node.status {
            Ok(status) => json!({ "name": node.name, "addr": node.addr, "status": status }),
            Err(reason) => json!({ "name": node.name, "addr": node.addr, "error": reason }),
        })
        .collect();
    json!({
        "health": health.as_str(),
        "sentence": sentence,
        "leader": view.leader,
        "nodes": nodes,
    })
}

/// Base64 with padding (RFC 4648, section 4), for values that JSON cannot carry.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            // A group of n bytes has n + 1 digits.
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() {
                char::from(DIGITS[value as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(b"\xff\xfe\xfd"), "//79");
    }
}
