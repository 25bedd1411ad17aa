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

/// Asks a person, on stderr, since the output may be read by a program; no line end is added.
pub(crate) fn prompt(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}
