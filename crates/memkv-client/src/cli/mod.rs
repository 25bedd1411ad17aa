//! The command line: arguments in, library calls, text and exit codes out.
//! Never speaks the protocol itself.

mod args;
mod output;
mod table;

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use memkv_client::proto::error::exit;
use memkv_client::proto::limits::{MAX_CONFIG_BYTES, MAX_VALUE_BYTES_CEILING};
use memkv_client::proto::{ClusterConfig, ErrorCode};
use memkv_client::{Client, Endpoints, Error, Health};

use args::{Args, Command, DEFAULT_CONFIG, ENDPOINTS_VARIABLE};
use output::{Printer, Talk};

/// Why the program ends without having done what it was asked.
enum Failure {
    /// The call failed.
    Call(Error),
    /// The command line, a file or a variable is wrong.
    Usage(String, ErrorCode),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The operating system gives this process too little to start.
    Start(io::Error),
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
        Err(Failure::Output(err)) if err.kind() == io::ErrorKind::BrokenPipe => exit::OK,
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
        Failure::Start(err) => {
            talk.error(&format!("cannot start: {err}; nothing was sent"), &[], None);
            exit::UNAVAILABLE
        }
    }
}

fn run(args: Args) -> Result<u8, Failure> {
    let endpoints = endpoints(&args)?;
    let client = Client::new(endpoints).with_timeout(args.timeout);
    let client = say_once_that_it_waits(client, args.timeout);
    let printer = Printer::new(args.output);
    // One request at a time waits for the network: one thread is enough.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(Failure::Start)?;
    match args.command {
        Command::Get { key } => {
            let entry = runtime.block_on(client.get(key.as_bytes()))?;
            printer.entry(entry.as_ref())?;
            if entry.is_none() {
                Talk::new().note(&format!("not found: {}", key.to_string_lossy()));
                return Ok(exit::NOT_FOUND);
            }
            Ok(exit::OK)
        }
        Command::Set { key, value, times } => {
            let value = match value.as_bytes() {
                b"-" => standard_input()?,
                value => Bytes::copy_from_slice(value),
            };
            for done in 0..times {
                let set = runtime.block_on(client.set(key.as_bytes(), value.clone()));
                if set.is_err() && done > 0 {
                    Talk::new().note(&format!("{done} of {times} writes were done"));
                }
                printer.written(set?)?;
            }
            Ok(exit::OK)
        }
        Command::Del { key } => {
            let revision = runtime.block_on(client.del(key.as_bytes()))?;
            printer.written(revision)?;
            Ok(exit::OK)
        }
        Command::Exist { key } => {
            let exists = runtime.block_on(client.exists(key.as_bytes()))?;
            printer.exists(exists)?;
            Ok(if exists { exit::OK } else { exit::NOT_FOUND })
        }
        Command::Status => status(&runtime, &client, &printer),
    }
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

fn status(
    runtime: &tokio::runtime::Runtime,
    client: &Client,
    printer: &Printer,
) -> Result<u8, Failure> {
    let view = runtime.block_on(client.cluster());
    printer.cluster(&view)?;
    let talk = Talk::new();
    view.notes().iter().for_each(|note| talk.note(note));
    Ok(match view.health().0 {
        Health::Healthy | Health::Degraded => exit::OK,
        Health::Forming | Health::Unavailable => exit::UNAVAILABLE,
    })
}

/// Where the cluster is: flags before the variable, before the file that the seed's client reads,
/// before the default.
fn endpoints(args: &Args) -> Result<Endpoints, Failure> {
    if let Some(text) = &args.endpoints {
        return Ok(Endpoints::parse(text)?);
    }
    if let Some(file) = &args.config {
        return read_config(file);
    }
    if let Some(text) = std::env::var_os(ENDPOINTS_VARIABLE).filter(|text| !text.is_empty()) {
        return Endpoints::parse(&text.to_string_lossy())
            .map_err(|err| usage(format!("{ENDPOINTS_VARIABLE}: {err}")));
    }
    let file = Path::new(DEFAULT_CONFIG);
    if file.exists() {
        read_config(file)
    } else {
        Ok(Endpoints::default())
    }
}

fn read_config(file: &Path) -> Result<Endpoints, Failure> {
    let name = file.display().to_string();
    let failed = |err: io::Error| {
        let message = format!(
            "cannot read {name}: {err}; write {{\"addrs\":[{{\"addr\":\"host:port\",\"id\":\"n1\"}}]}} \
             there, or use --endpoints"
        );
        Failure::Usage(message, ErrorCode::BadConfig)
    };
    let mut text = String::new();
    // One byte more than allowed, so that the parser sees that it is too long.
    let limit = MAX_CONFIG_BYTES as u64 + 1;
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened
        .take(limit)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let config = ClusterConfig::from_json(&text, &name)
        .map_err(|err| Failure::Usage(err.to_string(), err.code()))?;
    Ok(config.into())
}

/// The value that was given as `-`.
fn standard_input() -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let limit = MAX_VALUE_BYTES_CEILING as u64 + 1;
    let read = io::stdin().lock().take(limit).read_to_end(&mut value);
    read.map_err(|err| usage(format!("cannot read standard input: {err}")))?;
    if value.len() > MAX_VALUE_BYTES_CEILING {
        let limit = MAX_VALUE_BYTES_CEILING;
        let message = format!("standard input has more than {limit} bytes, the limit of any value");
        return Err(usage(message));
    }
    Ok(value.into())
}

/// Writes bytes to standard output at once: a later failure must not hide what was done before.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
