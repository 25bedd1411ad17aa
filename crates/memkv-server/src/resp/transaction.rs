//! Turns the commands that MULTI has queued into one transaction. Commands that the node answers by
//! itself are not part of it: each is executed after the transaction, and its answer stands in order.

use memkv_resp::Request;
use memkv_store::{Command, Condition, Guard, Step};

use super::session::{Queue, Watched};
use crate::commands::{Args, ErrorReply, Handler, Op, ReplyFormat, Spec, database};

const NO_NESTING: ErrorReply = ErrorReply::new(
    "ERR this script is a transaction by itself and cannot be part of another; nothing of it was \
     executed",
);

/// How each command's answer comes about, in order.
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
}

/// One command of a transaction.
pub(super) enum Item {
    /// The next answer of the store.
    Step {
        spec: &'static Spec,
        format: ReplyFormat,
    },
    /// The node answers.
    Local(&'static Spec, Request),
    /// It never got as far.
    Failed(&'static Spec, ErrorReply),
}

impl Plan {
    /// Plans the queued commands. A command that cannot be executed is answered with its error;
    /// the others are executed all the same, as in Redis.
    pub(super) fn new(
        queue: Queue,
        mut db: u8,
        check: impl Fn(&Command) -> Result<(), ErrorReply>,
        judge: impl Fn(&'static Spec, &Args<'_>, Option<&Op>) -> Result<(), ErrorReply>,
    ) -> (Self, Vec<Step>) {
        let mut steps = Vec::new();
        let mut items = Vec::with_capacity(queue.requests.len());
        for (spec, request) in queue.requests {
            let name = spec.name;
            let args = Args {
                request: &request,
                name,
                db,
            };
            let item = match spec.handler {
                Handler::Data(data) => match judged(data(&args), |op| judge(spec, &args, Some(op)))
                {
                    Ok(Op::Write(Command::Transaction { .. }, _)) => Item::Failed(spec, NO_NESTING),
                    Ok(Op::Write(command, format)) => match check(&command) {
                        Ok(()) => {
                            steps.push(Step::Write(command.in_database(db)));
                            Item::Step { spec, format }
                        }
                        Err(error) => Item::Failed(spec, error),
                    },
                    Ok(Op::Here(_)) => Item::Local(spec, request),
                    Ok(Op::Read(query, format)) => {
                        steps.push(Step::Read(query.in_database(db)));
                        Item::Step { spec, format }
                    }
                    Err(error) => Item::Failed(spec, error),
                },
                _ if let Err(error) = judge(spec, &args, None) => Item::Failed(spec, error),
                _ => {
                    // It will be executed later, and is about the commands after it already now.
                    if name == "select" {
                        let asked = args.int(1).and_then(database);
                        db = asked.unwrap_or(db);
                    }
                    Item::Local(spec, request)
                }
            };
            items.push(item);
        }
        (Self { items }, steps)
    }

    /// Whether the node answers some command, so that nothing may be planned behind it.
    pub(super) fn has_local(&self) -> bool {
        self.items
            .iter()
            .any(|item| matches!(item, Item::Local(..)))
    }
}

/// What a call executes, if its user may still have it executed.
fn judged(
    op: Result<Op, ErrorReply>,
    judge: impl FnOnce(&Op) -> Result<(), ErrorReply>,
) -> Result<Op, ErrorReply> {
    let op = op?;
    judge(&op)?;
    Ok(op)
}

/// Whether something must go to the log.
pub(super) fn writes(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Write(_)))
}

/// The conditions of WATCH.
pub(super) fn guards(watched: Vec<Watched>) -> Vec<Guard> {
    let guard = |watched: Watched| Guard {
        database: watched.db,
        key: watched.key,
        holds: Condition::Unchanged(watched.seen),
    };
    watched.into_iter().map(guard).collect()
}
