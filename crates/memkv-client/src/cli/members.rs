//! Commands about members and leadership: asks a node, and waits until the cluster has done what was asked for.
//!
//! Never sends a verb twice. A wait changes nothing, so it is asked again, at another node if one is lost: the
//! one that was asked first may be the one that leaves.

use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use memkv_proto::error::exit;

use super::args::{Format, Leader, Member, Request};
use super::output::Talk;
use super::{Failure, repl};

/// The command that authenticates, if there is one.
type Auth = Option<Vec<Vec<u8>>>;

/// Executes a command about members.
pub(super) fn run(
    member: Member,
    link: impl Fn() -> repl::Link,
    auth: Auth,
    format: Format,
) -> Result<u8, Failure> {
    let format = for_people(format);
    match member {
        list @ Member::List { .. } => {
            let request = list.request();
            let waited = match request.wait {
                Some(wait) => settle(&link, &auth, wait),
                None => Ok(String::new()),
            };
            let code = repl::once(link(), auth, format, &words(request))?;
            Ok(code.max(told(waited)))
        }
        question @ Member::CheckStop { .. } => {
            repl::question(link(), auth, format, &words(question.request()))
        }
        verb => carry_out(verb.request(), link, auth, format),
    }
}

/// Executes a command about leadership; without a verb it shows who leads.
pub(super) fn lead(
    verb: Option<Leader>,
    link: impl Fn() -> repl::Link,
    auth: Auth,
    format: Format,
) -> Result<u8, Failure> {
    match verb {
        Some(verb) => carry_out(verb.request(), link, auth, for_people(format)),
        None => run(Member::LIST, link, auth, format),
    }
}

/// The answer is lines for people.
fn for_people(format: Format) -> Format {
    match format {
        Format::Table => Format::Raw,
        other => other,
    }
}

fn words(request: Request) -> Vec<Vec<u8>> {
    request
        .words
        .into_iter()
        .map(OsStringExt::into_vec)
        .collect()
}

fn carry_out(
    request: Request,
    link: impl Fn() -> repl::Link,
    auth: Auth,
    format: Format,
) -> Result<u8, Failure> {
    let wait = request.wait;
    let code = repl::once(link(), auth.clone(), format, &words(request))?;
    match wait.filter(|_| code == exit::OK) {
        Some(wait) => Ok(told(settle(&link, &auth, wait))),
        None => Ok(code),
    }
}

/// Tells what came of a wait, and returns the exit code.
fn told(waited: Result<String, String>) -> u8 {
    match waited {
        Ok(words) => {
            if !words.is_empty() {
                Talk::new().note(&words);
            }
            exit::OK
        }
        Err(why) => {
            let next = "the cluster goes on with it; `memkv_client member list --wait` waits again";
            Talk::new().error(&why, &[next.to_owned()], None);
            exit::NOT_FOUND
        }
    }
}

/// A node waits so long by itself: shorter than clients wait for an answer.
const ROUND: Duration = Duration::from_secs(2);
/// Pause after a round that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until nothing is left to do.
fn settle(link: &impl Fn() -> repl::Link, auth: &Auth, within: Duration) -> Result<String, String> {
    let deadline = Instant::now() + within;
    let mut nodes = repl::Questions::new(link(), auth.clone());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let round = left.min(ROUND).as_secs().to_string();
        let asked = ["MEMKV.CLUSTER", "WAIT", &round].map(|word| word.as_bytes().to_vec());
        let why = match nodes.ask(&asked) {
            Ok(answer) => match answer.strip_prefix("yes: ") {
                Some(words) => return Ok(words.to_owned()),
                None => answer.strip_prefix("no: ").unwrap_or(&answer).to_owned(),
            },
            Err(repl::NoAnswer::Later(why)) => why,
            Err(repl::NoAnswer::Never(why)) => return Err(why),
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(format!("not done within {} s: {why}", within.as_secs()));
        }
        std::thread::sleep(PAUSE);
    }
}
