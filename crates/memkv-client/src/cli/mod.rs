//! The command line: arguments in, library calls, text and exit codes out.
//! Never speaks HTTP itself, and Redis's protocol only in `repl`.

mod args;
mod backup;
mod commands;
mod events;
mod export;
mod import;
mod line;
mod members;
mod output;
mod progress;
mod recover;
mod repl;
mod table;
mod target;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use memkv_client::{Client, Error};
use memkv_proto::ErrorCode;
use memkv_proto::error::exit;

// The example that writes the manual reads it.
pub(crate) use args::Args;
use args::Command;
use output::{Printer, Talk};

/// Why the program ends without having done what it was asked.
enum Failure {
    /// The call failed.
    Call(Error),
    /// The command line, a file or a variable is wrong.
    Usage(String, ErrorCode),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The same, after something was written to the cluster.
    Unprinted(io::Error),
    /// The operating system gives this process too little to start.
    Start(io::Error),
    /// A backup cannot be stored, or is none.
    Backup(String),
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Self::Call(err)
    }
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Self::Output(err)
    }
}

/// The time of this machine's clock, in milliseconds since the epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, ms)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn usage(message: String) -> Failure {
    Failure::Usage(message, ErrorCode::Usage)
}

/// Runs the program and returns its exit code.
pub(crate) fn main() -> u8 {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(err) => {
            // Help and version are what was asked for: standard output, and done.
            let code = if err.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            };
            return if err.print().is_ok() {
                code
            } else {
                exit::UNAVAILABLE
            };
        }
    };
    match run(args) {
        Ok(code) => code,
        // Whoever reads has enough, as in `memkv_client get k | head -c 10`.
        Err(Failure::Output(err) | Failure::Unprinted(err))
            if err.kind() == io::ErrorKind::BrokenPipe =>
        {
            exit::OK
        }
        Err(failure) => report(&failure),
    }
}

/// Tells a failure and returns its exit code.
fn report(failure: &Failure) -> u8 {
    let talk = Talk::new();
    match failure {
        Failure::Call(err) => {
            talk.error(&err.to_string(), &err.explain(), Some(err.code()));
            err.exit_code()
        }
        Failure::Usage(message, code) => {
            talk.error(message, &[], Some(*code));
            exit::USAGE
        }
        Failure::Output(err) => {
            talk.error(
                &format!("standard output cannot be written: {err}"),
                &[],
                None,
            );
            exit::UNAVAILABLE
        }
        Failure::Unprinted(err) => {
            let what = format!(
                "the write was done, but standard output cannot be written: {err}; do not repeat it"
            );
            talk.error(&what, &[], None);
            exit::UNPRINTED
        }
        Failure::Backup(what) => {
            talk.error(what, &[], None);
            exit::NOT_FOUND
        }
        Failure::Start(err) => {
            talk.error(&format!("cannot start: {err}; nothing was sent"), &[], None);
            exit::UNAVAILABLE
        }
    }
}

fn run(args: Args) -> Result<u8, Failure> {
    let endpoints = target::endpoints(&args)?;
    let password = target::password(&args)?;
    let auth = auth(args.user.as_deref(), password.as_deref());
    let tls = target::tls(&args, &endpoints)?;
    let link = || repl::Link::new(endpoints.addrs().to_vec(), tls.clone(), args.timeout);
    let command = match args.command {
        None => return repl::run(link(), auth, args.output),
        Some(Command::Acl(acl)) => {
            let words = commands::with_passwords(acl.words())?;
            return repl::once(link(), auth, args.output, &words);
        }
        Some(Command::Backup(backup)) if !backup.needs_cluster() => {
            return backup::local(&backup, args.output);
        }
        Some(Command::Import(import)) if import.dry_run => {
            return import::try_out(&import, args.output);
        }
        Some(Command::Recover { files }) => return recover::rank(&files, args.output),
        Some(Command::Member(member)) => {
            return members::run(member, link, auth, args.output);
        }
        Some(Command::Leader { verb }) => {
            return members::lead(verb, link, auth, args.output);
        }
        Some(command) => command,
    };
    let client = Client::new(endpoints).with_timeout(args.timeout);
    let client = match tls {
        Some(tls) => client.with_tls(tls),
        None => client,
    };
    let client = match password {
        Some(password) => {
            let user = args.user.as_deref().unwrap_or(DEFAULT_USER);
            client.with_user(user, &password)
        }
        None => client,
    };
    let client = say_once_that_it_waits(client, args.timeout);
    let printer = Printer::new(args.output);
    runtime()?.block_on(commands::execute(command, &client, &printer))
}

/// What waits for the network. One request at a time does: one thread is enough.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(Failure::Start)
}

/// The user whose password it is if none is named.
const DEFAULT_USER: &str = "default";

/// The command by which a connection authenticates.
fn auth(user: Option<&str>, password: Option<&str>) -> Option<Vec<Vec<u8>>> {
    let words: Vec<&str> = match (user, password?) {
        (None, password) => vec!["AUTH", password],
        (Some(user), password) => vec!["AUTH", user, password],
    };
    Some(words.into_iter().map(|word| word.into()).collect())
}

/// Whoever sits at a terminal is told why nothing happens.
fn say_once_that_it_waits(client: Client, timeout: Duration) -> Client {
    if !io::stderr().is_terminal() {
        return client;
    }
    let said = AtomicBool::new(false);
    client.on_retry(move |attempts| {
        let first = attempts
            .first()
            .filter(|_| !said.swap(true, Ordering::Relaxed));
        if let Some(attempt) = first {
            let seconds = timeout.as_secs_f64();
            Talk::new().note(&format!("{attempt}; trying all nodes for {seconds} s"));
        }
    })
}

/// Writes bytes to standard output at once: a later failure must not hide what was done before.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
