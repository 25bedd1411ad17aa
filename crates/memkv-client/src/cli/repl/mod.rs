//! The prompt of a program that is started without a command, and the same commands line by line
//! from a file or a pipe: Redis's commands, over Redis's protocol, at any node.
//!
//! Never sends a command again whose answer was lost: it says whether the outcome is unknown. From
//! a pipe such a loss ends the program, because what follows may depend on it.

mod editor;
mod link;
mod print;
mod session;
mod stream;
mod table;

use std::cell::RefCell;
use std::io::{self, BufRead, IsTerminal};
use std::mem;
use std::rc::Rc;

use memkv_proto::ErrorCode;
use memkv_proto::error::exit;
use memkv_resp::{Frame, split_args};
use rustyline::error::ReadlineError;

use super::args::Format;
use super::output::{Talk, coloured};
use super::{Failure, print};
use editor::{Prompt, Typed};
pub(super) use link::Link;
use session::{Outcome, Session, Words, is, listens};

const HELP: &str = "\
Redis's commands work here; this node has these:

";

const HELP_END: &str = "
help COMMAND tells more; Tab completes; Ctrl-C gives a line up; quit ends.
";

/// What a line led to.
enum Next {
    /// The next line may come; the exit code that this one earned.
    Line(u8),
    /// The connection was lost, and with it this line or what it depends on.
    Lost(u8),
    /// There is no node.
    Nowhere(u8),
    Quit,
}

/// Runs the prompt, or what stands in standard input, and returns the exit code.
pub(super) fn run(link: Link, auth: Option<Words>, format: Format) -> Result<u8, Failure> {
    let session = Session::new(link, auth);
    let mut repl = Repl { session, format };
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        repl.prompt()
    } else {
        repl.batch(io::stdin().lock())
    }
}

/// Executes one command, and returns the exit code.
pub(super) fn once(
    link: Link,
    auth: Option<Words>,
    format: Format,
    words: &Words,
) -> Result<u8, Failure> {
    executed(link, auth, format, words).map(|(code, _)| code)
}

/// The same for a question that a node answers with lines of `yes: ` or `no: `.
pub(super) fn question(
    link: Link,
    auth: Option<Words>,
    format: Format,
    words: &Words,
) -> Result<u8, Failure> {
    let (code, is_no) = executed(link, auth, format, words)?;
    Ok(code.max(if is_no { exit::NOT_FOUND } else { exit::OK }))
}

/// Executes one command and shows the replies. The exit code, and whether a reply says `no`.
fn executed(
    link: Link,
    auth: Option<Words>,
    format: Format,
    words: &Words,
) -> Result<(u8, bool), Failure> {
    let session = Session::new(link, auth);
    let mut repl = Repl { session, format };
    match repl.session.execute(words) {
        Outcome::Replies(replies) => {
            let code = repl.show(words, &replies)?;
            Ok((code, replies.iter().any(says_no)))
        }
        failed => Ok((report(&failed), false)),
    }
}

/// Why a question has no answer.
pub(super) enum NoAnswer {
    /// It may have one later, or at another node.
    Later(String),
    /// It will never have one.
    Never(String),
}

/// Questions to the cluster one after the other, each at a node that can be reached.
pub(super) struct Questions(Session);

impl Questions {
    pub(super) fn new(link: Link, auth: Option<Words>) -> Self {
        Self(Session::new(link, auth))
    }

    /// The answer to a question, as text.
    ///
    /// # Errors
    /// [`NoAnswer`]. The next question goes to another node if a connection was lost.
    pub(super) fn ask(&mut self, words: &[Vec<u8>]) -> Result<String, NoAnswer> {
        let later = |why: String| Err(NoAnswer::Later(why));
        match self.0.execute(&words.to_vec()) {
            Outcome::Replies(replies) => match replies.first() {
                Some(Frame::Bulk(text) | Frame::Verbatim(_, text) | Frame::Simple(text)) => {
                    Ok(String::from_utf8_lossy(text).into_owned())
                }
                Some(reply) => {
                    let error = reply.as_error().unwrap_or_default();
                    let words = String::from_utf8_lossy(error).into_owned();
                    match exit_code(error) {
                        exit::USAGE => Err(NoAnswer::Never(words)),
                        _ => later(words),
                    }
                }
                None => later("no answer".to_owned()),
            },
            Outcome::Nothing(what, _) | Outcome::Unknown(what) => later(what),
            Outcome::Nowhere(reasons) => later(reasons.join("; ")),
        }
    }
}

fn says_no(reply: &Frame) -> bool {
    let text = match reply {
        Frame::Bulk(text) | Frame::Verbatim(_, text) | Frame::Simple(text) => text,
        _ => return false,
    };
    text.split(|byte| *byte == b'\n')
        .any(|line| line.starts_with(b"no: "))
}

struct Repl {
    session: Session,
    format: Format,
}

impl Repl {
    fn prompt(&mut self) -> Result<u8, Failure> {
        let ended = |err: ReadlineError| match err {
            ReadlineError::Io(err) => Failure::Output(err),
            err => Failure::Output(io::Error::other(err)),
        };
        let mut prompt = Prompt::new(coloured(true)).map_err(ended)?;
        if let Err(reasons) = self.session.connect() {
            Talk::new().error("no node available", &reasons, Some(ErrorCode::Unreachable));
        }
        loop {
            // The editor reads the table while a line is typed, the session between two lines.
            let table = Rc::new(RefCell::new(mem::take(&mut self.session.table)));
            let typed = prompt.read(&self.session.prompt(), &table).map_err(ended)?;
            self.session.table = table.take();
            match typed {
                Typed::Line(line) => match self.line(line.as_bytes())? {
                    Next::Line(_) | Next::Nowhere(_) => {}
                    Next::Lost(_) => self.session.reconnect(),
                    Next::Quit => return Ok(exit::OK),
                },
                Typed::Interrupted => {}
                Typed::End => return Ok(exit::OK),
            }
        }
    }

    /// Executes line after line, and returns the highest exit code that a line earned.
    fn batch(&mut self, mut input: impl BufRead) -> Result<u8, Failure> {
        let mut code = exit::OK;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = input.read_until(b'\n', &mut line);
            if read.map_err(|err| super::usage(format!("cannot read standard input: {err}")))? == 0
            {
                return Ok(code);
            }
            match self.line(&line)? {
                Next::Line(earned) => code = code.max(earned),
                Next::Lost(earned) | Next::Nowhere(earned) => return Ok(code.max(earned)),
                Next::Quit => return Ok(code),
            }
        }
    }

    /// Executes what stands in one line.
    fn line(&mut self, line: &[u8]) -> Result<Next, Failure> {
        let Ok(words) = split_args(line) else {
            Talk::new().error("the quotes in this line do not match", &[], None);
            return Ok(Next::Line(exit::USAGE));
        };
        if words.is_empty() {
            return Ok(Next::Line(exit::OK));
        }
        if is(&words, "quit") || is(&words, "exit") {
            return Ok(Next::Quit);
        }
        if is(&words, "help") || is(&words, "?") {
            return self.help(&words[1..]).map(Next::Line);
        }
        if is(&words, "client") && is(&words[1..], "reply") {
            let what = "CLIENT REPLY has no place here, where every command is answered";
            Talk::new().error(what, &[], None);
            return Ok(Next::Line(exit::USAGE));
        }
        let code = match self.session.execute(&words) {
            Outcome::Replies(replies) => {
                let shown = self.show(&words, &replies);
                shown.map_err(|failure| match failure {
                    Failure::Output(err) if self.session.table.may_change(&words) => {
                        Failure::Unprinted(err)
                    }
                    failure => failure,
                })?
            }
            nowhere @ Outcome::Nowhere(_) => return Ok(Next::Nowhere(report(&nowhere))),
            lost => return Ok(Next::Lost(report(&lost))),
        };
        if code == exit::OK && listens(&words) {
            return self.listen();
        }
        Ok(Next::Line(code))
    }

    /// Prints messages until there are no more.
    fn listen(&mut self) -> Result<Next, Failure> {
        Talk::new().note("reading messages; Ctrl-C ends");
        loop {
            match self.session.link.wait() {
                Ok(frame) => drop(self.show(&[], &[frame])?),
                Err(reason) => {
                    let what = "the connection was lost; messages may have been missed".to_owned();
                    return Ok(Next::Lost(report(&Outcome::Nothing(what, vec![reason]))));
                }
            }
        }
    }

    /// Prints replies to the command `words`, and returns the exit code that they earned.
    fn show(&self, words: &[Vec<u8>], replies: &[Frame]) -> Result<u8, Failure> {
        let mut code = exit::OK;
        for reply in replies {
            print(&print::text(words, reply, self.format))?;
            code = code.max(reply.as_error().map_or(exit::OK, exit_code));
        }
        Ok(code)
    }

    fn help(&mut self, words: &[Vec<u8>]) -> Result<u8, Failure> {
        if let Err(reasons) = self.session.connect() {
            Talk::new().error("no node available", &reasons, Some(ErrorCode::Unreachable));
            return Ok(exit::UNAVAILABLE);
        }
        let table = &self.session.table;
        let text = if words.is_empty() {
            format!("{HELP}{}{HELP_END}", table.overview())
        } else if let Some(text) = table.help(words) {
            text
        } else {
            Talk::new().error("this node has no such command", &[], None);
            return Ok(exit::USAGE);
        };
        print(text.as_bytes())?;
        Ok(exit::OK)
    }
}

/// Tells what became of a command that has no reply, and returns the exit code.
fn report(outcome: &Outcome) -> u8 {
    let talk = Talk::new();
    match outcome {
        Outcome::Replies(_) => exit::OK,
        Outcome::Nothing(what, reasons) => {
            talk.error(what, reasons, None);
            exit::UNAVAILABLE
        }
        Outcome::Nowhere(reasons) => {
            let what = "no node available: the command was not sent";
            talk.error(what, reasons, Some(ErrorCode::Unreachable));
            exit::UNAVAILABLE
        }
        Outcome::Unknown(reason) => {
            let what = "outcome unknown: the command may or may not have been executed";
            let next = "read what it writes before you send it again".to_owned();
            talk.error(what, &[reason.clone(), next], Some(ErrorCode::Unknown));
            exit::UNKNOWN
        }
    }
}

/// What the error table says of the error's first word; one that it does not know is the request's.
fn exit_code(error: &[u8]) -> u8 {
    let word = error.split(|byte| *byte == b' ').next().unwrap_or_default();
    let line = ErrorCode::table()
        .iter()
        .find(|line| line.resp.as_bytes() == word);
    line.map_or(exit::USAGE, |line| line.exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_earn_the_exit_code_of_the_error_table() {
        for (error, code) in [
            ("ERR syntax error", exit::USAGE),
            ("WRONGTYPE no", exit::USAGE),
            ("NOAUTH", exit::USAGE),
            ("CLUSTERDOWN no leader", exit::UNAVAILABLE),
            ("LOADING", exit::UNAVAILABLE),
            ("MISCONF disk full", exit::UNAVAILABLE),
            ("UNKNOWN who knows", exit::UNKNOWN),
        ] {
            assert_eq!(exit_code(error.as_bytes()), code, "{error}");
        }
    }
}
