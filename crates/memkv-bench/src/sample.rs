//! One measured line, the load and its results, as a line of a table and as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Histogram, Measured, Pace, Work};
use crate::machine::Used;

/// One run against one system.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) system: String,
    pub(crate) connections: usize,
    pub(crate) depth: usize,
    pub(crate) reads_percent: usize,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
    pub(crate) complaint: Option<String>,
    /// CPU time of all servers per operation.
    pub(crate) cpu_us: f64,
    /// CPU time of the load generator per operation.
    pub(crate) load_us: f64,
    /// Resident memory of all servers.
    pub(crate) resident_bytes: u64,
    /// Share of the machine that other work took.
    pub(crate) other: f64,
    pace: Pace,
}

impl Sample {
    /// Head of the table.
    pub(crate) const HEAD: &'static str = "system           c   P reads     op/s   p50 ms   p99 ms  \
         p99.9 ms failed CPU us load us RAM MiB other";

    /// Combines the measurements. `connections` is the requested number, also where the protocol puts
    /// several of them on one socket.
    pub(crate) fn new(
        system: &str,
        (connections, depth): (usize, usize),
        work: &Work,
        measured: &Measured,
        used: Used,
        resident_bytes: u64,
    ) -> Sample {
        let mut all = Histogram::default();
        all.merge(&measured.writes);
        all.merge(&measured.reads);
        let answered = all.count() - measured.unanswered;
        let per_operation = |time: Duration| time.as_secs_f64() * 1e6 / answered.max(1) as f64;
        let millis = |share| all.quantile(share).as_secs_f64() * 1e3;
        Sample {
            system: system.to_owned(),
            connections,
            depth,
            reads_percent: work.reads_percent,
            rate: answered as f64 / measured.seconds,
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            p999_ms: millis(0.999),
            failed: measured.failed,
            unanswered: measured.unanswered,
            complaint: measured.complaint.clone(),
            cpu_us: per_operation(used.servers),
            load_us: per_operation(used.own),
            resident_bytes,
            other: used.other,
            pace: work.pace,
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let (pace, asked) = match self.pace {
            Pace::Batch => ("batch", None),
            Pace::Window => ("window", None),
            Pace::Rate(rate) => ("rate", Some(rate)),
        };
        json!({
            "system": self.system,
            "connections": self.connections,
            "pipeline": self.depth,
            "pace": pace,
            "rate_asked": asked,
            "reads_percent": self.reads_percent,
            "ops_per_second": self.rate,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "p99_9_ms": self.p999_ms,
            "failed": self.failed,
            "unanswered": self.unanswered,
            "first_error": self.complaint,
            "cpu_us_per_op": self.cpu_us,
            "load_cpu_us_per_op": self.load_us,
            "resident_bytes": self.resident_bytes,
            "other_work": self.other,
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<12} {:>5} {:>3} {:>4}% {:>8.0} {:>8.3} {:>8.3} {:>9.3} {:>6} {:>6.1} {:>7.1} {:>7.0} {:>4.0}%",
            self.system,
            self.connections,
            self.depth,
            self.reads_percent,
            self.rate,
            self.p50_ms,
            self.p99_ms,
            self.p999_ms,
            self.failed + self.unanswered,
            self.cpu_us,
            self.load_us,
            self.resident_bytes as f64 / 1048576.0,
            self.other * 100.0,
        )?;
        match &self.complaint {
            Some(complaint) => write!(f, "\n  the first failure: {complaint}"),
            None => Ok(()),
        }
    }
}
