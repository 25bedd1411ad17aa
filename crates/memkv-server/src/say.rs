//! Lines on stdout and stderr for people. A closed pipe is not an error: the server goes on.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line that was asked for.
pub fn out(line: impl Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints a failure before there is a log, or the last words.
pub fn error(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "error: {line}");
}
