//! The prompt: line editing, hints and completion from the node's table, and the history.
//!
//! Never keeps a line that holds a password, neither in memory nor in the file.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::rc::Rc;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::table::Table;

/// Lines that the history keeps.
const HISTORY_LINES: usize = 1_000;

/// Words of lines that may hold a password, wherever in the line they are.
const SECRETS: [&str; 5] = ["auth", "auth2", "requirepass", "masterauth", "setuser"];

/// Reads lines from a terminal.
pub(super) struct Prompt {
    editor: Editor<Suggestions, FileHistory>,
    history: Option<PathBuf>,
}

/// A line, or why there is none.
pub(super) enum Typed {
    Line(String),
    /// Ctrl-C: the line is given up.
    Interrupted,
    /// Ctrl-D: that is all.
    End,
}

impl Prompt {
    /// # Errors
    /// The terminal cannot be used.
    pub(super) fn new(coloured: bool) -> Result<Self, ReadlineError> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .max_history_size(HISTORY_LINES)?
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Suggestions {
            table: Rc::default(),
            prompt_columns: 0,
            coloured,
        }));
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let history = history_file(variable("XDG_STATE_HOME"), variable("HOME"));
        if let Some(file) = &history {
            // The first time there is none.
            let _ = editor.load_history(file);
        }
        Ok(Self { editor, history })
    }

    /// Reads a line, with suggestions from `table`.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn read(
        &mut self,
        prompt: &str,
        table: &Rc<RefCell<Table>>,
    ) -> Result<Typed, ReadlineError> {
        if let Some(helper) = self.editor.helper_mut() {
            helper.table = table.clone();
            helper.prompt_columns = prompt.chars().count();
        }
        match self.editor.readline(prompt) {
            Ok(line) => {
                self.remember(&line);
                Ok(Typed::Line(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Interrupted),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(err) => Err(err),
        }
    }

    /// At once, because Ctrl-C while messages are read ends the program. Without a file the history
    /// lasts until the end.
    fn remember(&mut self, line: &str) {
        if line.trim().is_empty() || is_secret(line) {
            return;
        }
        let _ = self.editor.add_history_entry(line);
        if let Some(file) = &self.history {
            if let Some(dir) = file.parent() {
                let _ = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            }
            let _ = self.editor.append_history(file);
        }
    }
}

/// Whether a line may hold a password.
fn is_secret(line: &str) -> bool {
    line.split_whitespace().any(|word| {
        let word = word.trim_matches(['"', '\'']);
        SECRETS
            .iter()
            .any(|secret| word.eq_ignore_ascii_case(secret))
    })
}

/// Where the history is (XDG base directories): nowhere without a home.
fn history_file(state: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |dir: &PathBuf| dir.is_absolute();
    let state = state.filter(absolute);
    let state = state.or_else(|| Some(home.filter(absolute)?.join(".local/state")));
    Some(state?.join("memkv/history"))
}

/// What the editor shows and offers while a line is typed.
struct Suggestions {
    table: Rc<RefCell<Table>>,
    prompt_columns: usize,
    coloured: bool,
}

/// Text to read, not to accept.
struct Remark(String);

impl Hint for Remark {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Suggestions {
    type Hint = Remark;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Remark> {
        // Without colour it could not be told from typed text.
        if pos < line.len() || !self.coloured {
            return None;
        }
        let hint = self.table.borrow().hint(line, self.prompt_columns);
        hint.map(Remark)
    }
}

impl Completer for Suggestions {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..pos).unwrap_or(line);
        Ok(self.table.borrow().complete(typed))
    }
}

impl Highlighter for Suggestions {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        format!("\x1b[90m{hint}\x1b[0m").into()
    }
}

impl Validator for Suggestions {}

impl Helper for Suggestions {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_remembered() {
        for line in [
            "auth secret",
            " AUTH default secret",
            "HELLO 3 AUTH default secret",
            "\"auth\" secret",
            "config set requirepass secret",
            "ACL SETUSER me >secret",
        ] {
            assert!(is_secret(line), "{line}");
        }
        for line in ["get author", "set k v", "hello 3"] {
            assert!(!is_secret(line), "{line}");
        }
    }

    #[test]
    fn the_history_is_in_the_users_state_directory() {
        let path = |text: &str| Some(PathBuf::from(text));
        for (state, home, file) in [
            (path("/s"), path("/h"), path("/s/memkv/history")),
            (path("s"), path("/h"), path("/h/.local/state/memkv/history")),
            (None, path("/h"), path("/h/.local/state/memkv/history")),
            (path(""), path(""), None),
            (None, None, None),
        ] {
            assert_eq!(history_file(state, home), file);
        }
    }
}
