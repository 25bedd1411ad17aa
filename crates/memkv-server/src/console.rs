//! Lines on stdout and stderr for people. A closed pipe is not an error: the server goes on.

use std::fmt::Display;
use std::io::{self, Write};

use memkv_proto::ErrorCode;

/// Prints a line that was asked for.
pub fn out(line: impl Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints a failure before there is a log, or at the process's end.
pub fn error(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "error: {line}");
}

/// The same, with the code under which the documentation explains it.
pub fn coded_error(line: impl Display, code: ErrorCode) {
    error(format_args!("{line}   [{}]", code.info().code));
}

/// Ends a command that runs beside no node: prints what it did, or why not, and returns the exit code. A wrong
/// configuration has a code of its own.
pub(crate) fn end<E: Display>(outcome: Result<String, E>, is_config: impl Fn(&E) -> bool) -> u8 {
    match outcome {
        Ok(text) => {
            out(text);
            0
        }
        Err(failure) if is_config(&failure) => {
            coded_error(failure, ErrorCode::BadConfig);
            2
        }
        Err(failure) => {
            error(failure);
            1
        }
    }
}

/// Asks a person, on stderr, since the output may be read by a program; no line end is added.
pub(crate) fn prompt(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}
