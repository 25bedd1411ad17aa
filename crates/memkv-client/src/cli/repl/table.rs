//! The commands that the node knows, from its own table (`COMMAND` and `COMMAND DOCS`): hints,
//! completion, help, and whether a command may have changed something.
//!
//! Never a list of commands of its own. Invariant: without the node's table nothing is suggested,
//! and every command may have changed something.

use memkv_resp::Frame;

/// Columns of a terminal by default.
const WIDTH: usize = 80;

/// What a node says of one command.
#[derive(Clone, Debug, Default)]
struct Command {
    /// In small letters; `config|get` for a subcommand.
    name: String,
    /// How many words, its name included; negative: at least so many.
    arity: i64,
    flags: Vec<String>,
    /// Place of the first key, of the last (negative: from the end), and from one to the next.
    keys: (i64, i64, i64),
    summary: String,
    since: String,
    group: String,
    complexity: String,
}

/// All commands of a node, in its order.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Command>);

impl Table {
    /// Reads the replies to `COMMAND` and `COMMAND DOCS`; what it does not understand it leaves out.
    pub(super) fn read(commands: &Frame, docs: &Frame) -> Self {
        let mut table = Self::default();
        table.add(commands);
        table.explain(docs);
        table
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, commands: &Frame) {
        for command in items(commands) {
            let [name, arity, flags, first, last, step, rest @ ..] = items(command) else {
                continue;
            };
            let number = |frame: &Frame| match frame {
                Frame::Integer(number) => *number,
                _ => 0,
            };
            self.0.push(Command {
                name: text(name).to_lowercase(),
                arity: number(arity),
                flags: items(flags).iter().map(text).collect(),
                keys: (number(first), number(last), number(step)),
                ..Command::default()
            });
            // Categories, tips and key specifications come before the subcommands.
            if let Some(subcommands) = rest.get(3) {
                self.add(subcommands);
            }
        }
    }

    fn explain(&mut self, docs: &Frame) {
        for (name, fields) in fields(docs) {
            let name = name.to_lowercase();
            for (field, value) in self::fields(fields) {
                if field == "subcommands" {
                    self.explain(value);
                    continue;
                }
                let Some(command) = self.0.iter_mut().find(|command| command.name == name) else {
                    continue;
                };
                match &*field {
                    "summary" => command.summary = text(value),
                    "since" => command.since = text(value),
                    "group" => command.group = text(value),
                    "complexity" => command.complexity = text(value),
                    _ => {}
                }
            }
        }
    }

    /// The command that these words begin with, a subcommand if there is one.
    fn find<W: AsRef<[u8]>>(&self, words: &[W]) -> Option<&Command> {
        let word = |at: usize| {
            // A name with `|` stands for two words, and is none that could be typed.
            let word = words.get(at)?.as_ref();
            let word = Some(word).filter(|word| !word.contains(&b'|'))?;
            Some(String::from_utf8_lossy(word).to_lowercase())
        };
        let first = word(0)?;
        let named = |name: &str| self.0.iter().find(|command| command.name == name);
        let sub = word(1).and_then(|second| named(&format!("{first}|{second}")));
        sub.or_else(|| named(&first))
    }

    /// Whether a command of which no answer came may have changed something, or reached a subscriber.
    pub(super) fn may_change(&self, words: &[Vec<u8>]) -> bool {
        let Some(command) = self.find(words) else {
            return true;
        };
        let has = |flag: &str| command.flags.iter().any(|known| known == flag);
        // Of those whose flags do not tell, EXEC and scripts write.
        has("write")
            || has("admin")
            || has("pubsub")
            || (has("movablekeys") && !has("readonly"))
            || command.name == "exec"
    }

    /// What can follow `line`, as grey text: the words that are missing, and what the command does.
    pub(super) fn hint(&self, line: &str, prompt_columns: usize) -> Option<String> {
        let words: Vec<_> = line.split_whitespace().collect();
        let command = self.find(&words)?;
        let own = command.words().len();
        let expected = command.arguments();
        let given = words.len().checked_sub(own)?;
        let repeats = expected.last().is_some_and(|last| last.starts_with('['));
        let skipped = given.min(expected.len() - usize::from(repeats));
        let missing = expected[skipped..].join(" ");
        let gap = if line.ends_with(' ') { "" } else { " " };
        let hint = if missing.is_empty() {
            format!("  {}", command.summary)
        } else {
            format!("{gap}{missing}  {}", command.summary)
        };
        let room = WIDTH.checked_sub(prompt_columns + line.chars().count() + 1)?;
        Some(shortened(hint, room))
    }

    /// Where the word at the end of `line` begins, and the command names that it may become, in the
    /// same case.
    pub(super) fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(' ').map_or(0, |space| space + 1);
        let (before, prefix) = line.split_at(start);
        let before: Vec<_> = before.split_whitespace().collect();
        let parent = match before[..] {
            [] => String::new(),
            [word] => format!("{}|", word.to_lowercase()),
            _ => return (start, Vec::new()),
        };
        let small = line.contains(|c: char| c.is_lowercase());
        let wanted = prefix.to_lowercase();
        let names = self.0.iter().filter_map(|command| {
            let name = command.name.strip_prefix(&parent)?;
            if name.contains('|') || !name.starts_with(&wanted) {
                return None;
            }
            Some(if small {
                name.to_owned()
            } else {
                name.to_uppercase()
            })
        });
        (start, names.collect())
    }

    /// The text of `help` for these words; `None` if there is no such command.
    pub(super) fn help(&self, words: &[Vec<u8>]) -> Option<String> {
        let command = self.find(words)?;
        let mut usage = command.words();
        usage.extend(command.arguments());
        let mut text = format!("  {}\n", usage.join(" "));
        for (name, value) in [
            ("summary", &command.summary),
            ("since", &command.since),
            ("group", &command.group),
            ("complexity", &command.complexity),
        ] {
            if !value.is_empty() {
                text.push_str(&format!("  {name}: {value}\n"));
            }
        }
        let parent = format!("{}|", command.name);
        let names = self.0.iter().map(|command| &command.name);
        let subcommands: Vec<_> = names
            .filter_map(|name| name.strip_prefix(&parent))
            .collect();
        if !subcommands.is_empty() {
            text.push_str(&wrapped("  subcommands:", &subcommands));
        }
        Some(text)
    }

    /// All commands, by group.
    pub(super) fn overview(&self) -> String {
        let mut groups: Vec<&str> = Vec::new();
        for command in &self.0 {
            if !groups.contains(&&*command.group) {
                groups.push(&command.group);
            }
        }
        let mut text = String::new();
        for group in groups {
            let names = self.0.iter().filter(|command| command.group == group);
            let names = names.map(|command| &*command.name);
            let names: Vec<_> = names.filter(|name| !name.contains('|')).collect();
            text.push_str(&wrapped(&format!("{group}:"), &names));
        }
        text
    }
}

impl Command {
    /// The words of its name, in capitals.
    fn words(&self) -> Vec<String> {
        self.name.split('|').map(str::to_uppercase).collect()
    }

    /// What follows its name, as far as arity and keys tell: `key`, `arg`, `[key arg ...]`.
    fn arguments(&self) -> Vec<String> {
        let own = self.name.split('|').count() as i64;
        let (first, last, step) = self.keys;
        let kind = |at: i64| {
            let within = first > 0 && at >= first && (last < 0 || at <= last);
            if within && (at - first) % step.max(1) == 0 {
                "key"
            } else {
                "arg"
            }
        };
        let arity = self.arity.unsigned_abs().min(64) as i64;
        let mut words: Vec<_> = (own..arity).map(|at| kind(at).to_owned()).collect();
        if self.arity < 0 {
            let unit = if last < 0 { step.clamp(1, 8) } else { 1 };
            let repeated: Vec<_> = (arity..arity + unit).map(kind).collect();
            words.push(format!("[{} ...]", repeated.join(" ")));
        }
        words
    }
}

/// At most `room` characters.
fn shortened(text: String, room: usize) -> String {
    if text.chars().count() <= room {
        return text;
    }
    let kept = text.chars().take(room.saturating_sub(3));
    kept.chain("...".chars().take(room)).collect()
}

/// Words in lines that fit, those after the first indented.
fn wrapped(heading: &str, words: &[&str]) -> String {
    let mut lines = vec![heading.to_owned()];
    for word in words {
        let line = lines.last().map_or(0, String::len);
        if line + 1 + word.len() > WIDTH {
            lines.push("   ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

fn items(frame: &Frame) -> &[Frame] {
    match frame {
        Frame::Array(items) | Frame::Set(items) => items,
        _ => &[],
    }
}

/// Names and values: a map, or in RESP2 the array that stands for one.
fn fields(frame: &Frame) -> Vec<(String, &Frame)> {
    match frame {
        Frame::Map(pairs) => pairs
            .iter()
            .map(|(name, value)| (text(name), value))
            .collect(),
        Frame::Array(items) => {
            let pairs = items.chunks_exact(2);
            pairs.map(|pair| (text(&pair[0]), &pair[1])).collect()
        }
        _ => Vec::new(),
    }
}

/// A string's text, without what would control a terminal.
fn text(frame: &Frame) -> String {
    let (Frame::Simple(bytes) | Frame::Bulk(bytes)) = frame else {
        return String::new();
    };
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Frame {
        Frame::Bulk(text.into())
    }

    fn command(name: &str, arity: i64, flags: &[&str], keys: [i64; 3], subs: Vec<Frame>) -> Frame {
        let mut command = vec![bulk(name), Frame::Integer(arity)];
        command.push(Frame::Array(flags.iter().map(|flag| bulk(flag)).collect()));
        command.extend(keys.map(Frame::Integer));
        command.extend([(); 3].map(|()| Frame::Array(vec![])));
        command.push(Frame::Array(subs));
        Frame::Array(command)
    }

    fn doc(name: &str, summary: &str, group: &str) -> [Frame; 2] {
        let fields = ["summary", summary, "group", group].map(bulk);
        [bulk(name), Frame::Array(fields.to_vec())]
    }

    fn table() -> Table {
        let get = command("config|get", -3, &["admin"], [0; 3], vec![]);
        let commands = Frame::Array(vec![
            command("get", 2, &["readonly"], [1, 1, 1], vec![]),
            command("set", -3, &["write"], [1, 1, 1], vec![]),
            command("mset", -3, &["write"], [1, -1, 2], vec![]),
            command("del", -2, &["write"], [1, -1, 1], vec![]),
            command("exec", 1, &["noscript"], [0; 3], vec![]),
            command("ping", -1, &["fast"], [0; 3], vec![]),
            command("config", -2, &[], [0; 3], vec![get]),
            command("eval", -3, &["movablekeys"], [0; 3], vec![]),
        ]);
        let mut docs = [
            doc("get", "Returns the value of a key.", "string"),
            doc("set", "Sets a key.", "string"),
            doc("mset", "Sets several keys.", "string"),
            doc("del", "Deletes keys.", "generic"),
        ]
        .concat();
        let [name, Frame::Array(mut fields)] = doc("config", "Settings.", "server") else {
            panic!()
        };
        let sub = Frame::Array(doc("config|get", "Reads settings.", "server").to_vec());
        fields.extend([bulk("subcommands"), sub]);
        docs.extend([name, Frame::Array(fields)]);
        Table::read(&commands, &Frame::Array(docs))
    }

    #[test]
    fn hints_show_what_is_missing() {
        let table = table();
        let hint = |line: &str| table.hint(line, 10);
        for (line, expected) in [
            ("get", " key  Returns the value of a key."),
            ("GET ", "key  Returns the value of a key."),
            ("get k", "  Returns the value of a key."),
            ("set k", " arg [arg ...]  Sets a key."),
            ("set k v ex", " [arg ...]  Sets a key."),
            ("mset", " key arg [key arg ...]  Sets several keys."),
            ("del", " key [key ...]  Deletes keys."),
            ("config get", " arg [arg ...]  Reads settings."),
            ("config", " arg [arg ...]  Settings."),
        ] {
            assert_eq!(hint(line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(hint("fly"), None);
        assert_eq!(hint(""), None);
        assert_eq!(Table::default().hint("get", 10), None);
    }

    #[test]
    fn hints_end_at_the_edge_of_the_terminal() {
        let table = table();
        let line = format!("get {}", "k".repeat(50));
        let hint = table.hint(&line, 17).unwrap();
        assert!(hint.ends_with("..."), "{hint}");
        assert_eq!(17 + line.len() + hint.len(), WIDTH - 1);
        assert_eq!(table.hint(&format!("get {}", "k".repeat(80)), 17), None);
    }

    #[test]
    fn names_are_completed_in_the_case_of_the_line() {
        let table = table();
        let names = |line: &str| table.complete(line);
        assert_eq!(names("s"), (0, vec!["set".to_owned()]));
        assert_eq!(names("E"), (0, vec!["EXEC".to_owned(), "EVAL".to_owned()]));
        assert_eq!(names("config "), (7, vec!["get".to_owned()]));
        assert_eq!(names("CONFIG G"), (7, vec!["GET".to_owned()]));
        assert_eq!(names("get k"), (4, vec![]));
        assert_eq!(names("set k v"), (6, vec![]));
    }

    #[test]
    fn only_what_certainly_changes_nothing_is_harmless() {
        let table = table();
        let may_change = |line: &str| {
            let words: Vec<_> = line
                .split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect();
            table.may_change(&words)
        };
        for line in ["SET k v", "exec", "eval x 0", "config get x", "fly"] {
            assert!(may_change(line), "{line}");
        }
        for line in ["GET k", "ping", "config"] {
            assert!(!may_change(line), "{line}");
        }
        assert!(Table::default().may_change(&[b"get".to_vec()]));
    }

    #[test]
    fn help_fits_a_terminal() {
        let table = table();
        let help = |word: &str| table.help(&[word.as_bytes().to_vec()]);
        assert_eq!(
            help("Del").unwrap(),
            "  DEL key [key ...]\n  summary: Deletes keys.\n  group: generic\n"
        );
        assert!(help("config").unwrap().ends_with("  subcommands: get\n"));
        assert_eq!(help("fly"), None);
        let overview = table.overview();
        assert!(overview.starts_with("string: get set mset\n"), "{overview}");
        let many = ["command"; 40];
        let text = wrapped("group:", &many);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.split_whitespace().count(), 41);
    }

    #[test]
    fn a_name_with_a_bar_is_no_word_that_can_be_typed() {
        let table = table();
        for line in ["config|get", "CONFIG|GET x", "|", "config|", " "] {
            assert_eq!(table.hint(line, 0), None, "{line}");
        }
        assert!(table.hint("config get", 0).is_some());
    }
}
