//! The check of histories over many keys, with transactions and deadlines, against the order that
//! the log gives. Nothing is searched, because the log says what ran, also of the operations whose
//! outcome their clients do not know.
//!
//! It takes the log's order on trust and nothing else: what each command did and answered follows
//! from the specification ([`Space`]) alone. A history passes only if
//! 1. everything that ran was asked for, and nothing ran twice or after it was refused;
//! 2. everything that was acknowledged ran, with the revision and the answer that its client got;
//! 3. every read shows the state at its revision, and never the middle of a transaction;
//! 4. an operation that had returned before another was invoked comes before it, on any keys.
//!
//! So it is complete and linear but for sorting, and never undecided.

use std::collections::{BTreeMap, HashMap};

use crate::failure::{Coverage, Failure};
use crate::history::{Operation, Outcome};
use crate::space::{Answer, Command, Expired, Request, Space};
use crate::wgl::survey;

/// A committed entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its stamp: log time, in milliseconds.
    pub stamp_ms: u64,
    /// The commands that it executed, without those that had been executed before.
    pub ran: Vec<Ran>,
}

/// A command that was executed, as a reader of the log saw it. The answer given here is not
/// trusted: it must be that of the specification.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command.
    pub command: Command,
    /// Its answer.
    pub answer: Answer,
    /// The store's revision after it.
    pub revision: u64,
}

/// The content of a history that passed.
#[derive(Debug)]
pub struct Verdict {
    /// How much was looked at.
    pub coverage: Coverage,
    /// Every key that reached its deadline.
    pub expiries: Vec<Expiry>,
    /// The keys that are left at the end.
    pub space: Space,
    /// Transactions that were executed, and those that a guard stopped.
    pub transactions: (u64, u64),
    /// Operations of unknown outcome that did run.
    pub unknown_that_ran: u64,
}

/// An expiry, with what is known of the real time around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The key and its deadline.
    pub what: Expired,
    /// Place in the log of the entry that set the deadline.
    pub set_in: usize,
    /// Place in the log of the entry whose stamp reached it.
    pub removed_in: usize,
    /// When the command that set it was invoked.
    pub set_invoked_at: u64,
    /// When the first operation that came after the removal had returned: no client can have seen
    /// the key absent before, and this operation could.
    pub shown_at: Option<u64>,
}

/// Operations on many keys.
pub type History = [Operation<Request, Answer>];

/// Decides whether the history is what a store did that executed this log.
///
/// Every answered operation must carry a revision. See the module for what is proven.
pub fn check(log: &[Entry], history: &History) -> Result<Verdict, Failure> {
    let coverage = survey(history)?;
    let reads = reads_by_revision(history)?;
    let mut replay = Replay {
        space: Space::default(),
        history,
        reads,
        ran: Vec::new(),
        expired: Vec::new(),
        transactions: (0, 0),
    };
    replay.run(log)?;
    let claims = claim(&replay.ran, history)?;
    let indexes = indexes(&replay.ran, &claims, history);
    agrees_with_real_time(&indexes, history)?;
    let unknown = |at: &&usize| history[**at].outcome == Outcome::Unknown;
    let unknown_that_ran = claims.iter().filter(unknown).count() as u64;
    let expiries = replay.expired.into_iter().map(|(what, removed_in)| {
        let set_by = what.deadline.set_by;
        Expiry {
            set_in: replay.ran[set_by].entry,
            removed_in,
            set_invoked_at: history[claims[set_by]].invoked_at,
            shown_at: first_return(&indexes, (what.revision, 0)),
            what,
        }
    });
    Ok(Verdict {
        coverage,
        expiries: expiries.collect(),
        transactions: replay.transactions,
        space: replay.space,
        unknown_that_ran,
    })
}

fn wrong(problem: String) -> Failure {
    Failure::NotTheLog { problem }
}

/// Positions of the answered reads.
fn reads_by_revision(history: &History) -> Result<BTreeMap<u64, Vec<usize>>, Failure> {
    let mut reads: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (position, operation) in history.iter().enumerate() {
        let Outcome::Ok { revision, .. } = operation.outcome else {
            continue;
        };
        let Some(revision) = revision else {
            let problem = format!("{operation} carries no revision");
            return Err(Failure::Malformed { problem });
        };
        if let Request::Read(_) = operation.op {
            reads.entry(revision).or_default().push(position);
        }
    }
    Ok(reads)
}

/// A command of the log after the replay.
struct Replayed<'a> {
    ran: &'a Ran,
    entry: usize,
    changed: bool,
}

/// The specification follows the log.
struct Replay<'a> {
    space: Space,
    history: &'a History,
    /// Reads of revisions that have not come.
    reads: BTreeMap<u64, Vec<usize>>,
    ran: Vec<Replayed<'a>>,
    /// With the place of the entry in the log.
    expired: Vec<(Expired, usize)>,
    transactions: (u64, u64),
}

impl<'a> Replay<'a> {
    fn run(&mut self, log: &'a [Entry]) -> Result<(), Failure> {
        self.shows()?;
        for (index, entry) in log.iter().enumerate() {
            let expired = self.space.advance(entry.stamp_ms);
            self.expired
                .extend(expired.into_iter().map(|expired| (expired, index)));
            self.shows()?;
            for ran in &entry.ran {
                self.execute(ran, index)?;
                self.shows()?;
            }
        }
        match self.reads.first_key_value() {
            None => Ok(()),
            Some((revision, reads)) => Err(wrong(format!(
                "nobody can have seen the state at revision {revision}, which never was, or was the \
                 middle of a transaction: {}",
                self.history[reads[0]]
            ))),
        }
    }

    fn execute(&mut self, ran: &'a Ran, entry: usize) -> Result<(), Failure> {
        let before = self.space.revision();
        let number = self.ran.len();
        let answer = self.space.execute(&ran.command, number, Some(&ran.answer));
        let revision = self.space.revision();
        if (&answer, revision) != (&ran.answer, ran.revision) {
            return Err(wrong(format!(
                "{:?}, number {number} of the log, answers {answer:?} at revision {revision}, and \
                 not {:?} at {}",
                ran.command, ran.answer, ran.revision
            )));
        }
        if let Command::Transaction { .. } = ran.command {
            let stopped = match &answer {
                Answer::List(answers) => answers.first() == Some(&Answer::Aborted),
                answer => *answer == Answer::Aborted,
            };
            match stopped {
                true => self.transactions.1 += 1,
                false => self.transactions.0 += 1,
            }
        }
        self.ran.push(Replayed {
            ran,
            entry,
            changed: revision > before,
        });
        Ok(())
    }

    /// The state at this revision is complete: clients must have read this state.
    fn shows(&mut self) -> Result<(), Failure> {
        let Some(reads) = self.reads.remove(&self.space.revision()) else {
            return Ok(());
        };
        for position in reads {
            let operation = &self.history[position];
            let (Request::Read(queries), Some(Answer::List(answers))) =
                (&operation.op, operation.reply())
            else {
                let problem = format!("{operation} is a read whose answer is no list");
                return Err(Failure::Malformed { problem });
            };
            let fits = |(query, answer)| self.space.may_answer(query, answer);
            if queries.len() != answers.len() || !queries.iter().zip(answers).all(fits) {
                let expected: Vec<Answer> = queries
                    .iter()
                    .map(|query| self.space.answer(query))
                    .collect();
                return Err(wrong(format!("{operation} should have seen {expected:?}")));
            }
        }
        Ok(())
    }
}

/// The operation that each command of the log was.
fn claim(log: &[Replayed<'_>], history: &History) -> Result<Vec<usize>, Failure> {
    let mut positions: HashMap<&Command, Vec<usize>> = HashMap::new();
    for (position, operation) in history.iter().enumerate() {
        if let Request::Write(command) = &operation.op {
            positions.entry(command).or_default().push(position);
        }
    }
    let mut claims = vec![usize::MAX; log.len()];
    let mut is_claimed = vec![false; history.len()];
    let mut take = |command: &Command, fits: &dyn Fn(&Operation<Request, Answer>) -> bool| {
        let positions = positions.get(command)?;
        let found = positions
            .iter()
            .find(|at| !is_claimed[**at] && fits(&history[**at]))?;
        is_claimed[*found] = true;
        Some(*found)
    };
    for (Replayed { ran, .. }, claim) in log.iter().zip(&mut claims) {
        let answer = (Some(&ran.answer), Some(ran.revision));
        let fits = |o: &Operation<_, _>| (o.reply(), o.revision()) == answer;
        *claim = take(&ran.command, &fits).unwrap_or(usize::MAX);
    }
    // A command that no client was told of may be any of unknown outcome; those are taken in the
    // order of their invocation.
    for (number, Replayed { ran, .. }) in log.iter().enumerate() {
        if claims[number] == usize::MAX {
            let found = take(&ran.command, &|o| o.outcome == Outcome::Unknown);
            claims[number] = found.ok_or_else(|| unexplained(ran, number, history))?;
        }
    }
    let lost = |(position, o): &(usize, &Operation<Request, Answer>)| {
        matches!(o.op, Request::Write(_)) && o.reply().is_some() && !is_claimed[*position]
    };
    match history.iter().enumerate().find(lost) {
        None => Ok(claims),
        Some((_, operation)) => Err(wrong(format!(
            "this was acknowledged, and is not in the log, or did something else there: {operation}"
        ))),
    }
}

fn unexplained(ran: &Ran, number: usize, history: &History) -> Failure {
    let asked = history
        .iter()
        .filter(|o| matches!(&o.op, Request::Write(command) if *command == ran.command));
    let asked: Vec<String> = asked.map(ToString::to_string).collect();
    wrong(format!(
        "number {number} of the log ran {:?} -> {:?} at revision {}, which was invented, ran twice, \
         was refused, or was answered otherwise; asked for it have: {asked:?}",
        ran.command, ran.answer, ran.revision
    ))
}

/// An operation's place in the order. What changed nothing stands behind the change that it saw.
#[derive(Clone, Copy)]
struct OrderIndex {
    /// Revision, and 1 for what changed nothing.
    at: (u64, u8),
    position: usize,
    /// The earliest return of an operation from here to the end; it is that operation's.
    first_return: Option<(u64, usize)>,
}

/// By place.
fn indexes(log: &[Replayed<'_>], claims: &[usize], history: &History) -> Vec<OrderIndex> {
    let index = |at, position| OrderIndex {
        at,
        position,
        first_return: None,
    };
    let writes = log.iter().zip(claims).map(|(replayed, position)| {
        index(
            (replayed.ran.revision, u8::from(!replayed.changed)),
            *position,
        )
    });
    let reads = history.iter().enumerate().filter_map(|(position, o)| {
        let is_read = matches!(o.op, Request::Read(_));
        o.revision()
            .filter(|_| is_read)
            .map(|at| index((at, 1), position))
    });
    let mut indexes: Vec<OrderIndex> = writes.chain(reads).collect();
    indexes.sort_unstable_by_key(|index| (index.at, index.position));
    let mut earliest: Option<(u64, usize)> = None;
    for index in indexes.iter_mut().rev() {
        let returned = history[index.position].returned_at();
        let returned = returned.map(|at| (at, index.position));
        earliest = earliest.into_iter().chain(returned).min();
        index.first_return = earliest;
    }
    indexes
}

fn first_return(indexes: &[OrderIndex], from: (u64, u8)) -> Option<u64> {
    let first = indexes.partition_point(|index| index.at < from);
    Some(indexes.get(first)?.first_return?.0)
}

/// An operation that had returned before another was invoked must not come after it in the order.
fn agrees_with_real_time(indexes: &[OrderIndex], history: &History) -> Result<(), Failure> {
    let mut groups = indexes.chunk_by(|a, b| a.at == b.at).peekable();
    while let Some(group) = groups.next() {
        let later = groups.peek().and_then(|next| next[0].first_return);
        let Some((returned_at, earlier)) = later else {
            continue;
        };
        let torn = |index: &&OrderIndex| history[index.position].invoked_at > returned_at;
        if let Some(index) = group.iter().find(torn) {
            return Err(Failure::RevisionOrder {
                earlier: history[earlier].to_string(),
                later: history[index.position].to_string(),
            });
        }
    }
    Ok(())
}
