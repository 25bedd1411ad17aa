//! A conversation with the cluster: commands one by one, what they leave behind in the connection,
//! and what became of one whose answer is lost.
//!
//! Never sends a command twice, and never one of a transaction outside it. Invariant: what is
//! reported as not executed certainly was not.

use memkv_resp::Frame;

use super::super::output::Talk;
use super::link::Link;
use super::table::Table;

/// A command, or what is like one.
pub(super) type Words = Vec<Vec<u8>>;

/// What became of a command.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The node's replies: one, except for UNSUBSCRIBE.
    Replies(Vec<Frame>),
    /// It was not executed, or changes nothing; the reason, and what else there is to say.
    Nothing(String, Vec<String>),
    /// It may or may not have been executed.
    Unknown(String),
    /// It was not sent: no node can be used, for these reasons.
    Nowhere(Vec<String>),
}

/// The connection, and what must be told to the next one.
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) table: Table,
    /// The command that authenticates.
    auth: Option<Words>,
    /// The database, if it is not 0.
    database: Option<Vec<u8>>,
    /// Between MULTI and EXEC.
    queues: bool,
    /// After WATCH.
    watches: bool,
}

impl Session {
    /// `auth` is the command that authenticates.
    pub(super) fn new(link: Link, auth: Option<Words>) -> Self {
        Self {
            link,
            table: Table::default(),
            auth,
            database: None,
            queues: false,
            watches: false,
        }
    }

    /// What stands before the cursor, as in redis-cli.
    pub(super) fn prompt(&self) -> String {
        if !self.link.is_connected() {
            return "not connected> ".to_owned();
        }
        let database = self.database.as_deref().map(String::from_utf8_lossy);
        let database = database.map_or(String::new(), |number| format!("[{number}]"));
        let queues = if self.queues { "(TX)" } else { "" };
        format!("{}{database}{queues}> ", self.link.addr())
    }

    /// Connects if there is no connection, and puts it into the state of the one before.
    ///
    /// # Errors
    /// Why no node can be used, a line each.
    pub(super) fn connect(&mut self) -> Result<(), Vec<String>> {
        if self.link.is_connected() {
            return Ok(());
        }
        let mut reasons = Vec::new();
        // A node that accepts connections and then says nothing must not hide the others.
        for _ in 0..self.link.nodes() {
            self.link.connect(&mut |reason| {
                Talk::new().note(&format!("{reason}; trying all nodes"));
            })?;
            match self.prepare() {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons)
    }

    /// Puts a new connection into the state of the one before, and asks for the node's commands.
    fn prepare(&mut self) -> Result<(), String> {
        let select = |number: &Vec<u8>| vec![b"SELECT".to_vec(), number.clone()];
        let state = self.auth.iter().cloned();
        let state: Vec<_> = state.chain(self.database.iter().map(select)).collect();
        for command in state {
            let reply = self.ask(&command)?;
            if let Some(error) = reply.as_error() {
                Talk::new().note(&String::from_utf8_lossy(error));
            }
        }
        self.learn()
    }

    /// Asks the node for its commands, unless they are known.
    fn learn(&mut self) -> Result<(), String> {
        if self.table.is_empty() {
            let commands = self.ask(&[b"COMMAND".to_vec()])?;
            let docs = self.ask(&[b"COMMAND".to_vec(), b"DOCS".to_vec()])?;
            self.table = Table::read(&commands, &docs);
        }
        Ok(())
    }

    fn ask(&mut self, words: &[Vec<u8>]) -> Result<Frame, String> {
        self.link.send(words)?;
        self.link.receive()
    }

    /// Executes a command, after a new connection if the old one is gone.
    pub(super) fn execute(&mut self, words: &Words) -> Outcome {
        let was_connected = self.link.is_connected();
        self.link.look();
        if !self.link.is_connected() {
            let begun = self.forget();
            if let Err(reasons) = self.connect() {
                return Outcome::Nowhere(reasons);
            }
            if was_connected {
                self.say_where();
            }
            if begun {
                let what =
                    "the connection was lost, and MULTI or WATCH with it: nothing was executed";
                let next = "this command was not sent; begin the transaction again".to_owned();
                return Outcome::Nothing(what.to_owned(), vec![next]);
            }
        }
        let replies = match self.link.send(words) {
            Err(reason) => Err(Outcome::Nothing(
                "the command was not executed".to_owned(),
                vec![reason],
            )),
            Ok(()) => self
                .replies(words)
                .map_err(|reason| self.lost(words, &reason)),
        };
        match replies {
            Ok(replies) => {
                self.follow(words, &replies);
                Outcome::Replies(replies)
            }
            Err(outcome) => {
                self.forget();
                outcome
            }
        }
    }

    /// Connects to the next node if the connection was lost, and says so.
    pub(super) fn reconnect(&mut self) {
        if self.link.is_connected() {
            return;
        }
        match self.connect() {
            Ok(()) => self.say_where(),
            Err(reasons) => reasons.iter().for_each(|reason| Talk::new().note(reason)),
        }
    }

    fn say_where(&self) {
        Talk::new().note(&format!("connected to {}", self.link.addr()));
    }

    /// The reply, or the replies, to a command that was sent.
    fn replies(&mut self, words: &Words) -> Result<Vec<Frame>, String> {
        let mut replies = vec![self.link.receive()?];
        // One for each channel, if the command was not queued or refused.
        let more = match replies.first() {
            Some(Frame::Array(_) | Frame::Push(_)) if unsubscribes(words) => {
                words.len().saturating_sub(2)
            }
            _ => 0,
        };
        for _ in 0..more {
            replies.push(self.link.receive()?);
        }
        Ok(replies)
    }

    /// What to make of a command whose answer is lost.
    fn lost(&self, words: &Words, reason: &str) -> Outcome {
        if self.queues && !is(words, "EXEC") {
            let what = "the transaction is lost: nothing of it was executed".to_owned();
            return Outcome::Nothing(what, vec![reason.to_owned()]);
        }
        if self.table.may_change(words) {
            return Outcome::Unknown(reason.to_owned());
        }
        let what = "no answer; the command changes nothing".to_owned();
        Outcome::Nothing(what, vec![reason.to_owned()])
    }

    /// Forgets what was lost with the connection; whether a transaction had been begun.
    fn forget(&mut self) -> bool {
        std::mem::take(&mut self.queues) | std::mem::take(&mut self.watches)
    }

    /// Notes what the command left behind in the connection.
    fn follow(&mut self, words: &Words, replies: &[Frame]) {
        let reply = replies.first();
        let ok = matches!(reply, Some(Frame::Simple(text)) if text == b"OK");
        let failed = reply.is_none_or(|reply| reply.as_error().is_some());
        let Some(name) = words.first() else { return };
        match &name.to_ascii_uppercase()[..] {
            b"MULTI" => self.queues |= ok,
            b"WATCH" => self.watches |= ok,
            b"UNWATCH" if !self.queues => self.watches = false,
            // An aborted transaction is over, too.
            b"EXEC" | b"DISCARD" => drop(self.forget()),
            b"SELECT" if ok => {
                self.database = words.get(1).filter(|number| **number != b"0").cloned();
            }
            b"AUTH" if ok => self.authenticated(words.clone()),
            b"HELLO" if !failed => {
                let at = words
                    .iter()
                    .position(|word| word.eq_ignore_ascii_case(b"AUTH"));
                if let Some([auth, user, password, ..]) = at.and_then(|at| words.get(at..)) {
                    self.authenticated(vec![auth.clone(), user.clone(), password.clone()]);
                }
            }
            b"RESET" if !failed => {
                self.forget();
                (self.database, self.auth) = (None, None);
            }
            _ => {}
        }
    }

    fn authenticated(&mut self, auth: Words) {
        self.auth = Some(auth);
        // Hints are no reason to fail: the next command meets whatever is wrong.
        let _ = self.learn();
    }
}

/// Whether the command's name is `name`.
pub(super) fn is(words: &[Vec<u8>], name: &str) -> bool {
    words
        .first()
        .is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
}

fn unsubscribes(words: &[Vec<u8>]) -> bool {
    ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"]
        .iter()
        .any(|name| is(words, name))
}

/// Whether what follows the command are messages, for as long as the connection lasts.
pub(super) fn listens(words: &[Vec<u8>]) -> bool {
    ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"]
        .iter()
        .any(|name| is(words, name))
}
