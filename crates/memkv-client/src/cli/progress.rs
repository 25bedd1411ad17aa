//! How far a long transfer has come, on a terminal. Never writes anything where no person looks.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a terminal is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while let (true, Some(next)) = (value >= 1024.0, units.as_slice().first()) {
        value /= 1024.0;
        unit = Some(next);
        units.next();
    }
    format!("{value:.1} {}", unit.unwrap_or(&"KiB"))
}

/// Tells a terminal how far a transfer has come; nothing elsewhere.
pub(super) struct Progress {
    began: Instant,
    told: Instant,
    bytes: u64,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            told: now,
            bytes: 0,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    pub(super) fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.is_terminal && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.tell();
        }
    }

    pub(super) fn end(&self) {
        if self.is_terminal {
            self.tell();
            let _ = io::stderr().write_all(b"\n");
        }
    }

    fn tell(&self) {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let rate = size((self.bytes as f64 / seconds) as u64);
        let line = format!("\r{}  {rate}/s        ", size(self.bytes));
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }
}
