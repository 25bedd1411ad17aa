//! Use of the machine during a run: CPU time and memory of the servers, from `/proc`, and the share of
//! the machine that other work took.

use std::fs;
use std::time::{Duration, Instant};

/// Length of a clock tick in `/proc`: USER_HZ is 100 on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all these processes together since they started. Linux scales it to what
/// the scheduler has counted, so only the tick limits it: over a second, one in a hundred.
pub(crate) fn cpu_time(processes: &[u32]) -> Duration {
    let ticks: u32 = processes
        .iter()
        .map(|id| memkv_black_box::cpu_ticks(*id))
        .sum();
    TICK * ticks
}

/// The resident memory of these processes together.
pub(crate) fn resident_bytes(processes: &[u32]) -> u64 {
    let bytes = processes.iter().map(|id| memkv_black_box::rss_bytes(*id));
    bytes.sum()
}

/// CPU time over a part of a run.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    servers: &'a [u32],
    began: Option<Reading>,
    ended: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    at: Instant,
    servers: Duration,
    own: Duration,
    machine: Duration,
}

/// The reading of a meter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Used {
    /// CPU time of the servers.
    pub(crate) servers: Duration,
    /// CPU time of the load generator.
    pub(crate) own: Duration,
    /// Share of the machine's CPU time that went neither to the servers nor to the load.
    pub(crate) other: f64,
}

impl<'a> Meter<'a> {
    /// A meter of these processes.
    pub(crate) fn new(servers: &'a [u32]) -> Meter<'a> {
        Meter {
            servers,
            began: None,
            ended: None,
        }
    }

    /// The first call begins, the last one ends.
    pub(crate) fn mark(&mut self) {
        let reading = Reading {
            at: Instant::now(),
            servers: cpu_time(self.servers),
            own: cpu_time(&[std::process::id()]),
            machine: machine_time(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        };
        if self.began.is_none() {
            self.began = Some(reading);
        } else {
            self.ended = Some(reading);
        }
    }

    /// The use between the two calls.
    pub(crate) fn used(&self) -> Used {
        let (Some(began), Some(ended)) = (&self.began, &self.ended) else {
            return Used::default();
        };
        let servers = ended.servers.saturating_sub(began.servers);
        let own = ended.own.saturating_sub(began.own);
        let machine = ended.machine.saturating_sub(began.machine);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let all = (ended.at - began.at).as_secs_f64() * cores as f64;
        Used {
            servers,
            own,
            other: machine.saturating_sub(servers + own).as_secs_f64() / all,
        }
    }
}

/// User, nice, system and stolen time of the whole machine. Interrupts are left out: the kernel does
/// most of the network's work in them on behalf of the sender.
fn machine_time(stat: &str) -> Duration {
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u32> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let wanted = [0, 1, 2, 7].iter().filter_map(|index| fields.get(*index));
    TICK * wanted.sum::<u32>()
}

#[cfg(test)]
mod tests {
    use super::{Meter, machine_time, resident_bytes};
    use std::time::{Duration, Instant};

    #[test]
    fn the_machine_is_busy_in_four_ways() {
        let stat = "cpu  100 20 30 4000 500 0 60 7 0 0\ncpu0 1 2 3\n";
        assert_eq!(machine_time(stat), Duration::from_millis(1570));
        assert_eq!(machine_time(""), Duration::ZERO);
    }

    #[test]
    fn a_meter_counts_the_time_of_its_processes() {
        let own = [std::process::id()];
        let mut meter = Meter::new(&own);
        meter.mark();
        let began = Instant::now();
        let mut number = 0_u64;
        while began.elapsed() < Duration::from_millis(100) {
            number = std::hint::black_box(number.wrapping_mul(3) + 1);
        }
        meter.mark();
        assert!(meter.used().servers > Duration::ZERO);
        assert!(resident_bytes(&own) > 100_000);
    }
}
