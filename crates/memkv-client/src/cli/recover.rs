//! Which of the backups that are left to restore, when a majority of the nodes is lost.
//! Never asks a node, and never says that a write is there or lost unless the heads prove it.
//!
//! The order is Raft's (`memkv_backup::Rank`): the first holds every acknowledged write that any of them holds.

use std::cmp::Reverse;
use std::path::PathBuf;

use memkv_backup::{Head, Rank, shared};
use memkv_proto::error::exit;
use serde_json::{Value, json};

use super::args::Format;
use super::backup::{head_json, read_whole};
use super::table::{columns, printable};
use super::{Failure, print};

/// A backup that is whole.
struct Whole {
    file: String,
    head: Head,
}

/// What a backup is beside the best one.
struct Beside {
    /// The entries of the best one that it lacks: from the first behind those that both hold.
    lacks: u64,
    /// The entries that it holds and the best one does not.
    own: u64,
    /// The last index that both are known to share.
    shared: u64,
}

impl Beside {
    fn of(best: &Head, other: &Head) -> Self {
        let shared = shared(best, other);
        Self {
            lacks: best.index.saturating_sub(shared),
            own: other.index.saturating_sub(shared),
            shared,
        }
    }
}

/// Reads and ranks the files, and says what each lacks.
pub(super) fn rank(files: &[PathBuf], format: Format) -> Result<u8, Failure> {
    let (mut whole, mut damaged) = (Vec::new(), Vec::new());
    for path in files {
        let file = printable(&path.display().to_string());
        match read_whole(path) {
            Ok((head, _)) => whole.push(Whole { file, head }),
            Err(Failure::Backup(why)) => damaged.push((file, why)),
            Err(other) => return Err(other),
        }
    }
    // The first of equal ones stays first.
    whole.sort_by_key(|one| Reverse(Rank::of(&one.head)));
    let Some(best) = whole.first() else {
        let why: Vec<String> = damaged.into_iter().map(|(_, why)| why).collect();
        return Err(Failure::Backup(why.join("; ")));
    };
    check_one_cluster(&whole)?;
    let committed = whole.iter().filter(|one| one.head.condemned.is_none());
    let committed = committed.map(|one| one.head.committed).max();
    let found = Found {
        committed: committed.unwrap_or(best.head.committed),
        best,
        whole: &whole,
        damaged: &damaged,
    };
    let text = match format {
        Format::Json => format!("{}\n", found.json()),
        Format::Raw => found
            .rows()
            .iter()
            .map(|row| row.join("\t") + "\n")
            .collect(),
        Format::Table => found.text(),
    };
    print(text.as_bytes())?;
    Ok(if damaged.is_empty() {
        exit::OK
    } else {
        exit::NOT_FOUND
    })
}

/// Backups of two clusters are no copies of each other.
fn check_one_cluster(whole: &[Whole]) -> Result<(), Failure> {
    let mut both = whole.iter();
    let Some(first) = both.next() else {
        return Ok(());
    };
    match both.find(|other| other.head.cluster != first.head.cluster) {
        None => Ok(()),
        Some(other) => Err(Failure::Backup(format!(
            "these are backups of two clusters, and no order holds between them: {} is of {}, {} is of {}; name \
             the files of one",
            first.file,
            printable(&first.head.cluster),
            other.file,
            printable(&other.head.cluster),
        ))),
    }
}

/// What the files say together.
struct Found<'a> {
    best: &'a Whole,
    /// Best first.
    whole: &'a [Whole],
    damaged: &'a [(String, String)],
    /// The highest index that any of them knows to be committed.
    committed: u64,
}

impl Found<'_> {
    /// Entries of the best one that are not known to be committed.
    fn uncertain(&self) -> u64 {
        self.best.head.index.saturating_sub(self.committed)
    }

    /// Entries that were committed, and that the best one does not hold.
    fn lost(&self) -> u64 {
        self.committed.saturating_sub(self.best.head.index)
    }

    fn rows(&self) -> Vec<[String; 7]> {
        let row = |one: &Whole| {
            let head = &one.head;
            let Beside { lacks, own, .. } = Beside::of(&self.best.head, head);
            [
                one.file.clone(),
                printable(&head.node),
                head.term.to_string(),
                head.index.to_string(),
                head.keys.to_string(),
                lacks.to_string(),
                own.to_string(),
            ]
        };
        self.whole.iter().map(row).collect()
    }

    fn json(&self) -> Value {
        let one = |one: &Whole| {
            let beside = Beside::of(&self.best.head, &one.head);
            json!({
                "file": one.file,
                "lacks": beside.lacks,
                "own": beside.own,
                "shared": beside.shared,
                "head": head_json(&one.head),
            })
        };
        let files: Vec<Value> = self.whole.iter().map(one).collect();
        let damaged = self.damaged.iter();
        let damaged: Vec<Value> = damaged
            .map(|(file, why)| json!({ "file": file, "error": why }))
            .collect();
        json!({
            "cluster": self.best.head.cluster,
            "best": self.best.file,
            "committed": self.committed,
            "uncertain": self.uncertain(),
            "lost": self.lost(),
            "files": files,
            "damaged": damaged,
        })
    }

    /// A table, a paragraph for each file, and the next command.
    fn text(&self) -> String {
        const HEADING: [&str; 7] = ["FILE", "NODE", "TERM", "INDEX", "KEYS", "LACKS", "OWN"];
        let mut rows = vec![HEADING.map(str::to_owned)];
        rows.extend(self.rows());
        for (at, row) in rows.iter_mut().enumerate() {
            row[0] = format!("{} {}", if at == 1 { '*' } else { ' ' }, row[0]);
        }
        let mut text = columns(&rows);
        text.push('\n');
        let mut say = |words: String| text.push_str(&filled(&words));
        say(format!("cluster {}", printable(&self.best.head.cluster)));
        self.say_best(&mut say);
        for other in self.whole.iter().skip(1) {
            self.say_other(other, &mut say);
        }
        for (_, why) in self.damaged {
            say(format!("not ranked: {}", printable(why)));
        }
        // Not filled: it is to be copied.
        let next = format!(
            "\nnext: memkv_server restore {} --data DIR\n",
            self.best.file
        );
        text + &next
    }

    fn say_best(&self, say: &mut impl FnMut(String)) {
        let Whole { file, head } = self.best;
        say(format!(
            "* {file} holds every acknowledged write that any of these files holds."
        ));
        if self.uncertain() > 0 {
            let entries = range(self.committed + 1, head.index);
            let them = if self.uncertain() == 1 { "it" } else { "them" };
            say(format!(
                "  Uncertain: {entries}, not known to be committed. There may be writes in {them} whose \
                 clients were told \"not executed\", or were told nothing."
            ));
        }
        if self.lost() > 0 {
            let entries = range(head.index + 1, self.committed);
            say(format!(
                "  LOST: {entries} were committed, and are in none of these files."
            ));
        }
        self.say_flaws(self.best, say);
    }

    fn say_other(&self, other: &Whole, say: &mut impl FnMut(String)) {
        let best = &self.best.head;
        let Beside { lacks, own, shared } = Beside::of(best, &other.head);
        let mut words = format!("- {}", other.file);
        match lacks {
            0 if own == 0 => words.push_str(" holds the same."),
            0 => words.push_str(" lacks nothing of it."),
            _ => {
                let entries = range(shared + 1, best.index);
                words.push_str(&format!(" lacks {entries}."));
            }
        }
        if own > 0 {
            let entries = range(shared + 1, other.head.index);
            let meaning = match other.head.condemned {
                // The best one holds whatever of them was acknowledged.
                None => "none that the first lacks was acknowledged",
                Some(_) => "they may hold writes that were acknowledged",
            };
            words.push_str(&format!(" It has {entries} of its own: {meaning}."));
        }
        say(words);
        self.say_flaws(other, say);
    }

    fn say_flaws(&self, one: &Whole, say: &mut impl FnMut(String)) {
        if let Some(stopped) = &one.head.stopped {
            say(format!(
                "  It ends before its log did: {}",
                printable(stopped)
            ));
        }
        if let Some(why) = &one.head.condemned {
            say(format!(
                "  Its node marked the directory as one that must not be used: {}",
                printable(why)
            ));
        }
    }
}

/// Entries, in words.
fn range(first: u64, last: u64) -> String {
    match last.saturating_sub(first) {
        0 => format!("1 entry (index {first})"),
        more => format!(
            "{} entries (index {first} to {last})",
            more.saturating_add(1)
        ),
    }
}

/// Width of a terminal.
const WIDTH: usize = 80;

/// Lines of at most 80 columns, further ones indented like the words of the first. A word that is longer stays whole.
fn filled(words: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    if words.starts_with("  ") {
        line.push(' ');
    }
    for word in words.split_whitespace() {
        if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".to_owned();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text + line.trim_end() + "\n"
}

#[cfg(test)]
mod tests {
    use memkv_backup::TermStart;

    use super::*;

    fn whole(file: &str, terms: &[(u64, u64)], index: u64, committed: u64) -> Whole {
        let terms = terms.iter().map(|&(term, index)| TermStart { term, index });
        let terms: Vec<TermStart> = terms.collect();
        let head = Head {
            cluster: "00112233-4455-4677-8899-aabbccddeeff".to_owned(),
            level: 2,
            revision: 9,
            log_time_ms: 0,
            keys: 7,
            hash_seed: 0,
            term: terms.last().map_or(0, |last| last.term),
            index,
            node: file.split('.').next().unwrap().to_owned(),
            written_by: "0.1.0".to_owned(),
            salvaged: true,
            committed,
            terms,
            stopped: None,
            condemned: None,
        };
        let file = file.to_owned();
        Whole { file, head }
    }

    /// As of files in this order, the best one first.
    fn found<'a>(whole: &'a [Whole], damaged: &'a [(String, String)]) -> Found<'a> {
        let committed = whole.iter().map(|one| one.head.committed).max().unwrap();
        Found {
            best: &whole[0],
            whole,
            damaged,
            committed,
        }
    }

    #[test]
    fn what_each_lacks_and_what_is_uncertain_is_said_within_80_columns() {
        let files = [
            whole("n3.salvage", &[(1, 1), (3, 1201)], 1240, 1200),
            whole("n1.salvage", &[(1, 1), (2, 1151)], 1300, 1140),
        ];
        let text = found(&files, &[]).text();
        let expected = "  FILE        NODE  TERM  INDEX  KEYS  LACKS  OWN
* n3.salvage  n3    3     1240   7     0      0
  n1.salvage  n1    2     1300   7     90     150

cluster 00112233-4455-4677-8899-aabbccddeeff
* n3.salvage holds every acknowledged write that any of these files holds.
  Uncertain: 40 entries (index 1201 to 1240), not known to be committed. There
  may be writes in them whose clients were told \"not executed\", or were told
  nothing.
- n1.salvage lacks 90 entries (index 1151 to 1240). It has 150 entries (index
  1151 to 1300) of its own: none that the first lacks was acknowledged.

next: memkv_server restore n3.salvage --data DIR
";
        assert_eq!(text, expected);
        let json = found(&files, &[]).json();
        assert_eq!(json["best"], "n3.salvage");
        assert_eq!((&json["uncertain"], &json["lost"]), (&json!(40), &json!(0)));
        assert_eq!(json["files"][1]["shared"], 1150);
    }

    #[test]
    fn what_is_lost_and_what_is_damaged_is_named() {
        let mut files = [whole("a", &[(1, 1)], 50, 60), whole("b", &[(1, 1)], 40, 60)];
        files[0].head.stopped = Some("log/1, offset 9: damaged".to_owned());
        let damaged = [("c".to_owned(), "c: cut off".to_owned())];
        let text = found(&files, &damaged).text();
        for words in [
            "LOST: 10 entries (index 51 to 60) were committed",
            "ends before its log did: log/1, offset 9",
            "not ranked: c: cut off",
            "- b lacks 10 entries (index 41 to 50).",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("Uncertain"), "{text}");
    }

    #[test]
    fn backups_of_two_clusters_are_refused() {
        let mut files = [whole("a", &[(1, 1)], 50, 60), whole("b", &[(1, 1)], 40, 60)];
        assert!(check_one_cluster(&files).is_ok());
        files[1].head.cluster = "another".to_owned();
        assert!(matches!(check_one_cluster(&files), Err(Failure::Backup(_))));
    }
}
