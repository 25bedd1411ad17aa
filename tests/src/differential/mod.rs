//! The same random commands to two servers at once, memkv and the oracle, and every reply compared
//! byte for byte, except for the differences that `docs/differences.md` lists.
//!
//! A run consists of epochs. Each begins with an empty store and new connections, and one number
//! decides what it sends; a mismatch is therefore repeated, and made small, from its epoch alone.
//! Connections never race: a round belongs to one of them, and ends when both servers have answered
//! all of it. Nothing depends on time either: a deadline is far away, or past, or waited for.

mod arguments;
mod compare;
mod generate;
mod play;
mod rules;
mod scripts;
mod shrink;
mod tally;
mod templates;

use std::fmt;
use std::path::Path;
use std::time::Duration;

pub use rules::Rules;
pub use tally::Tally;

use generate::Generator;
use play::{Stage, Trouble};

/// Commands of an epoch: enough for keys to meet each other in many states, few enough to be made
/// small in a minute.
const EPOCH_COMMANDS: usize = 5_000;

/// Connections of an epoch; half of them speak RESP3.
const CONNECTIONS: usize = 6;

/// How long an answer is waited for while a context is made smaller: most waits are in vain then.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Parameters of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// At least so many commands are sent to each server.
    pub commands: usize,
    /// Decides everything that is sent; the epoch number is added to it.
    pub seed: u64,
}

/// A command as it is sent, and how many frames answer it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) replies: usize,
}

/// The next action of one connection. A failing context is made smaller by leaving steps out, so a step
/// makes sense by itself.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Commands without a wait between them.
    Commands(Vec<Sent>),
    /// Commands that give keys very short lives; the step ends when both servers have expired them.
    Expire {
        commands: Vec<Sent>,
        keys: Vec<Vec<u8>>,
    },
    /// A whole iteration with `SCAN` and these options.
    Scan(Vec<Vec<u8>>),
    /// `QUIT`; both servers must close, and the connection is opened again.
    Quit,
}

/// A step and the connection that does it.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) connection: usize,
    pub(crate) step: Step,
}

/// The first reply that differs and is not excused.
#[derive(Debug)]
pub struct Mismatch {
    what: String,
    seed: u64,
    command: usize,
    context: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            what,
            seed,
            command,
            context,
        } = self;
        writeln!(f, "{what}")?;
        writeln!(f, "command {command} of the epoch with seed {seed}; again:")?;
        writeln!(f, "  cargo xtask differential --commands 1 --seed {seed}")?;
        writeln!(
            f,
            "smallest context that still differs, from an empty store:"
        )?;
        context.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Sends random commands to both sides. `ours` are the addresses of one cluster, over which the
/// connections are spread; `oracle` is redis-server.
pub fn run(
    options: &Options,
    ours: &[String],
    oracle: &str,
    rules: &Rules,
) -> Result<Tally, Mismatch> {
    let mut tally = Tally::default();
    let mut seed = options.seed;
    while tally.commands() < options.commands {
        epoch(seed, ours, oracle, rules, &mut tally)?;
        seed = seed.wrapping_add(1);
    }
    Ok(tally)
}

fn epoch(
    seed: u64,
    ours: &[String],
    oracle: &str,
    rules: &Rules,
    tally: &mut Tally,
) -> Result<(), Mismatch> {
    let open = || Stage::open(ours, oracle, CONNECTIONS, rules);
    let mut stage = open();
    let mut generator = Generator::new(seed, CONNECTIONS);
    let mut played: Vec<Unit> = Vec::new();
    while stage.sent() < EPOCH_COMMANDS {
        let round = generator.round();
        played.extend(round.iter().cloned());
        let what = match stage.play(&round, tally) {
            Ok(()) => continue,
            Err(Trouble::Differs(what)) => what,
            Err(Trouble::Oracle(what)) => panic!("the oracle failed: {what}"),
        };
        let command = stage.sent();
        let mut small_what = what.clone();
        let fails = |units: &[Unit]| {
            let mut stage = open();
            stage.set_timeout(TRIAL_TIMEOUT);
            match stage.play(units, &mut Tally::default()) {
                Err(Trouble::Differs(what)) => {
                    small_what = what;
                    true
                }
                // With steps left out the oracle may answer less than its steps foresee.
                Ok(()) | Err(Trouble::Oracle(_)) => false,
            }
        };
        let small = shrink::shrink(played, fails);
        let context = small.iter().map(ToString::to_string);
        return Err(Mismatch {
            what,
            seed,
            command,
            context: context.chain([small_what]).collect(),
        });
    }
    Ok(())
}

/// The table of differences in `docs/`.
pub fn listed_differences() -> Rules {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Rules::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Sent {
    /// A command that one frame answers.
    pub(crate) fn new<A: AsRef<[u8]>>(arguments: &[A]) -> Sent {
        Sent::with_replies(arguments, 1)
    }

    /// A command that `replies` frames answer.
    pub(crate) fn with_replies<A: AsRef<[u8]>>(arguments: &[A], replies: usize) -> Sent {
        Sent {
            arguments: arguments.iter().map(|one| one.as_ref().to_vec()).collect(),
            replies,
        }
    }

    /// Upper-case name, or nothing where there is none.
    pub(crate) fn name(&self) -> String {
        name(&self.arguments)
    }
}

/// Upper-case name of a command.
pub(crate) fn name(arguments: &[Vec<u8>]) -> String {
    let name = arguments.first().map(Vec::as_slice).unwrap_or_default();
    String::from_utf8_lossy(name).to_ascii_uppercase()
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A long value is shown by its beginning: its content never matters.
        const SHOWN: usize = 80;
        for (index, argument) in self.arguments.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            let shown = &argument[..argument.len().min(SHOWN)];
            write!(f, "{space}\"{}\"", shown.escape_ascii())?;
            if argument.len() > SHOWN {
                write!(f, "...({} bytes)", argument.len())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |commands: &[Sent]| {
            let texts: Vec<String> = commands.iter().map(ToString::to_string).collect();
            texts.join("; ")
        };
        write!(f, "connection {}: ", self.connection)?;
        match &self.step {
            Step::Commands(commands) => f.write_str(&list(commands)),
            Step::Expire { commands, .. } => write!(f, "{}; until expired", list(commands)),
            Step::Scan(options) => write!(f, "whole SCAN {}", Sent::new(options)),
            Step::Quit => f.write_str("QUIT and connect again"),
        }
    }
}
