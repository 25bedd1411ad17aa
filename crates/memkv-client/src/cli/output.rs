//! Prints results on standard output and talk on standard error.
//! Never mixes the two, and colours only a terminal, and only without `NO_COLOR` (no-color.org).

use std::io::{self, IsTerminal};

use memkv_backup::{Head, Summary};
use memkv_client::{ClusterView, Entry, Health, Item, StepResult, Sum, TxnAnswer};
use memkv_proto::events::Event;
use memkv_proto::{ErrorCode, json_bytes};
use serde_json::{Map, Value, json};

use super::args::Format;
use super::progress::size;
use super::{backup, events, print, table};

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

/// What became of the keys of an import.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(crate) written: u64,
    /// They were there already, and were left as they are.
    pub(crate) present: u64,
    /// Their time was over.
    pub(crate) expired: u64,
}

/// Prints results in the format that was asked for.
pub(crate) struct Printer {
    format: Format,
    coloured: bool,
    is_terminal: bool,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            format,
            coloured: coloured(is_terminal),
            is_terminal,
        }
    }

    /// The result of `get`.
    pub(crate) fn entry(&self, entry: Option<&Entry>) -> io::Result<()> {
        match (self.format, entry) {
            (Format::Json, None) => self.object(json!({ "status": "not found" })),
            (Format::Json, Some(entry)) => {
                let mut object = with_revision("ok", entry.revision);
                if let Some(ms) = entry.expires_ms {
                    object.insert("expires_ms".to_owned(), ms.into());
                }
                json_bytes::put(&mut object, "value", &entry.value);
                self.object(Value::Object(object))
            }
            (_, None) => Ok(()),
            (Format::Raw, Some(entry)) => print(&entry.value),
            // What is in a value must not command a terminal; a pipe gets it as it is.
            (Format::Table, Some(entry)) if self.is_terminal => {
                print(format!("{}\n", escape(&entry.value)).as_bytes())
            }
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

    /// A condition that does not hold.
    pub(crate) fn condition_failed(&self) -> io::Result<()> {
        match self.format {
            Format::Json => self.object(json!({ "status": "condition failed" })),
            Format::Table | Format::Raw => Ok(()),
        }
    }

    /// The result of `incr`.
    pub(crate) fn sum(&self, sum: Sum) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let mut object = with_revision("ok", sum.revision);
                object.insert("value".to_owned(), sum.value.into());
                self.object(Value::Object(object))
            }
            Format::Table | Format::Raw => print(format!("{}\n", sum.value).as_bytes()),
        }
    }

    /// A page of `scan`: a line for each key. A table escapes what would break its lines.
    pub(crate) fn items(&self, items: &[Item]) -> io::Result<()> {
        let mut lines = Vec::new();
        for item in items {
            match self.format {
                Format::Json => {
                    let object = Value::Object(item_json(item));
                    lines.extend_from_slice(object.to_string().as_bytes());
                }
                Format::Raw => {
                    lines.extend_from_slice(&item.key);
                    if let Some(value) = &item.value {
                        lines.push(b'\t');
                        lines.extend_from_slice(value);
                    }
                }
                Format::Table => {
                    lines.extend_from_slice(escape(&item.key).as_bytes());
                    if let Some(value) = &item.value {
                        lines.extend_from_slice(b"  ");
                        lines.extend_from_slice(escape(value).as_bytes());
                    }
                }
            }
            lines.push(b'\n');
        }
        print(&lines)
    }

    /// The result of `txn`: which branch was done, except in raw, and a line for each step.
    pub(crate) fn transaction(&self, answer: &TxnAnswer) -> io::Result<()> {
        let mut lines: Vec<u8> = match self.format {
            Format::Json => return print(&[&answer.json[..], b"\n"].concat()),
            Format::Table if answer.succeeded => b"then\n".to_vec(),
            Format::Table => b"else\n".to_vec(),
            Format::Raw => Vec::new(),
        };
        for result in &answer.results {
            match result {
                StepResult::Done => lines.extend_from_slice(b"ok"),
                StepResult::Integer(number) => {
                    lines.extend_from_slice(number.to_string().as_bytes())
                }
                StepResult::Found(value) if self.format == Format::Raw => {
                    lines.extend_from_slice(value);
                }
                StepResult::Found(value) => lines.extend_from_slice(escape(value).as_bytes()),
                StepResult::Absent => lines.extend_from_slice(b"not found"),
                StepResult::Failed(why) => {
                    lines.extend_from_slice(format!("error: {}", escape(why.as_bytes())).as_bytes())
                }
            }
            lines.push(b'\n');
        }
        print(&lines)
    }

    /// A node's event.
    pub(crate) fn event(&self, node: &str, event: &Event) -> io::Result<()> {
        let line = match self.format {
            Format::Json => {
                return self.object(json!({
                    "node": node,
                    "seq": event.seq,
                    "at_ms": event.at_ms,
                    "kind": event.kind,
                    "warns": event.warns,
                    "late": event.late,
                    "text": event.text,
                }));
            }
            Format::Raw => events::tabs(node, event),
            Format::Table => events::line(node, event, self.is_terminal),
        };
        let colour = self.coloured && event.warns && self.format == Format::Table;
        match colour {
            true => print(format!("{YELLOW}{line}{RESET}\n").as_bytes()),
            false => print(format!("{line}\n").as_bytes()),
        }
    }

    /// A backup that was found whole.
    pub(crate) fn saved(&self, file: &str, head: &Head, summary: &Summary) -> io::Result<()> {
        let digest: String = summary
            .digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        match self.format {
            Format::Json => self.object(json!({
                "file": file,
                "bytes": summary.file_bytes,
                "sha256": digest,
                "head": backup::head_json(head),
            })),
            Format::Table | Format::Raw => {
                let line = format!(
                    "{}: {} keys, revision {}, {}, whole\n",
                    escape(file.as_bytes()),
                    head.keys,
                    head.revision,
                    size(summary.file_bytes),
                );
                print(line.as_bytes())
            }
        }
    }

    /// An export that is whole.
    pub(crate) fn exported(&self, file: &str, keys: u64) -> io::Result<()> {
        match self.format {
            Format::Json => self.object(json!({ "file": file, "keys": keys })),
            Format::Table | Format::Raw => {
                print(format!("{}: {keys} keys\n", escape(file.as_bytes())).as_bytes())
            }
        }
    }

    /// What an import did, or would do.
    pub(crate) fn imported(&self, done: &Imported, is_trial: bool) -> io::Result<()> {
        let Imported {
            written,
            present,
            expired,
        } = done;
        if self.format == Format::Json {
            return self.object(json!({
                "written": written, "present": present, "expired": expired, "dry_run": is_trial,
            }));
        }
        let would = if is_trial {
            "would be written"
        } else {
            "written"
        };
        let mut line = format!("{written} keys {would}");
        if *present > 0 {
            line.push_str(&format!(", {present} were there"));
        }
        if *expired > 0 {
            line.push_str(&format!(", {expired} had expired"));
        }
        line.push('\n');
        print(line.as_bytes())
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

/// Whether to use colours there.
pub(super) fn coloured(terminal: bool) -> bool {
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
            Ok(status) => json!({ "name": node.name, "addr": node.addr,
                "highest_feature_level": node.highest_level, "status": status }),
            Err(reason) => json!({ "name": node.name, "addr": node.addr,
                "highest_feature_level": node.highest_level, "error": reason.to_string() }),
        })
        .collect();
    json!({
        "health": health.as_str(),
        "sentence": sentence,
        "leader": view.leader,
        "nodes": nodes,
    })
}

fn item_json(item: &Item) -> Map<String, Value> {
    let mut object = Map::new();
    json_bytes::put(&mut object, "key", &item.key);
    if let Some(value) = &item.value {
        json_bytes::put(&mut object, "value", value);
    }
    let numbers = [
        ("revision", item.revision),
        ("create_revision", item.create_revision),
        ("expires_ms", item.expires_ms),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            object.insert(name.to_owned(), number.into());
        }
    }
    object
}

/// Bytes as one line of a table: UTF-8 as it is, control characters and other bytes escaped as in
/// Rust (`\n`, `\u{1b}`, `\xff`), and a backslash as two.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_lines_whatever_is_in_them() {
        for (bytes, text) in [
            (&b"plain \xc3\xa9"[..], "plain \u{e9}"),
            (b"a\nb\tc\\", r"a\nb\tc\\"),
            (b"\x1b[2J", r"\u{1b}[2J"),
            (b"\xffok\xc3", r"\xffok\xc3"),
        ] {
            assert_eq!(escape(bytes), text);
        }
    }
}
