//! Time: the log's (`log_clock`), which decides what has expired (`expiry`), and short waits of this
//! process (`precise_timer`).

pub(crate) mod expiry;
pub(crate) mod log_clock;
pub(crate) mod precise_timer;
