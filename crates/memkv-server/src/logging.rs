//! Log lines on stderr, for people or as JSON. Never on stdout, which is for the program's output.

use std::io::{self, IsTerminal};

use memkv_proto::{LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

/// Starts logging. Later calls have no effect.
pub fn start(level: LogLevel, format: LogFormat) {
    // The engine repeats a dead peer with every heartbeat, and its other lines describe its inner
    // life; what an operator needs is logged around it, once.
    let directives = match level {
        LogLevel::Info | LogLevel::Warn => format!("{level},openraft=error"),
        level => level.as_str().to_owned(),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives))
        .with_writer(io::stderr)
        // It would report a closed stderr on stderr, and panic.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
