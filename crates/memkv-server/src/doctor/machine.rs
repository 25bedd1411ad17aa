//! The machine: limits, memory and clock. Reads files of `/proc`, `/sys` and `/run` only, and changes nothing.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::{Finding, size};
use crate::memory_limit::memory_limit;
use crate::process::open_files_for;
use crate::settings::Settings;

/// Looks at all of it.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let maximum = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    vec![
        open_files(maximum, settings.config.max_connections),
        memory(
            settings.config.max_memory,
            memory_limit(),
            available(&read("/proc/meminfo")),
        ),
        huge_pages(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
        overcommit(&read("/proc/sys/vm/overcommit_memory")),
        swap(&read("/proc/swaps")),
        clock(&[
            "/run/systemd/timesync/synchronized",
            "/run/chrony/chronyd.pid",
            "/run/chronyd.pid",
            "/run/ntpd.pid",
        ]),
    ]
}

fn open_files(may: u64, max_connections: u64) -> Finding {
    let needed = open_files_for(max_connections);
    let found = format!(
        "{may} may be open; max_connections ({max_connections}) and the node need {needed}"
    );
    let next = "raise the limit (LimitNOFILE of systemd, ulimit -n), or lower max_connections";
    match may {
        _ if may >= needed => Finding::ok("open files", found),
        // Half as many clients is no trouble at once.
        _ if may >= needed / 2 => Finding::warn("open files", found, next),
        _ => Finding::bad("open files", found, next),
    }
}

/// `MemAvailable` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// `configured` is `max_memory`, 0 for what the system allows.
fn memory(configured: u64, limit: Option<u64>, available: Option<u64>) -> Finding {
    let limit = match (configured, limit) {
        (0, limit) => limit,
        (configured, None) => Some(configured),
        (configured, Some(limit)) if configured > limit => {
            let found = format!(
                "max_memory is {}, and the system allows {}",
                size(configured),
                size(limit)
            );
            return Finding::bad(
                "memory",
                found,
                "lower max_memory, or give the machine or the container more",
            );
        }
        (configured, Some(_)) => Some(configured),
    };
    let (Some(limit), Some(available)) = (limit, available) else {
        let found = "the system does not tell how much there is".to_owned();
        return Finding::warn("memory", found, "set max_memory");
    };
    let found = format!(
        "the node may take {}, and {} are available",
        size(limit),
        size(available)
    );
    // A node that runs has taken its part already.
    match available.saturating_mul(4) < limit {
        true => Finding::warn(
            "memory",
            found,
            "stop what else takes memory, or set max_memory",
        ),
        false => Finding::ok("memory", found),
    }
}

/// The word in brackets.
fn chosen(text: &str) -> &str {
    let inner = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or("", |(word, _)| word)
}

fn huge_pages(enabled: &str) -> Finding {
    let name = "huge pages";
    match chosen(enabled) {
        "always" => Finding::warn(
            name,
            "transparent huge pages are always made: memory that was freed stays taken, and making them stops \
             threads for moments"
                .to_owned(),
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        "" => Finding::ok(name, "the system has no transparent ones".to_owned()),
        word => Finding::ok(name, format!("transparent ones: {word}")),
    }
}

fn overcommit(text: &str) -> Finding {
    match text.trim() {
        "2" => Finding::warn(
            "overcommit",
            "vm.overcommit_memory is 2: the system refuses memory that is only reserved, and a refusal ends the node"
                .to_owned(),
            "sysctl vm.overcommit_memory=0",
        ),
        other => Finding::ok("overcommit", format!("vm.overcommit_memory is {other}")),
    }
}

fn swap(swaps: &str) -> Finding {
    match swaps.lines().count() {
        0 | 1 => Finding::ok("swap", "none".to_owned()),
        lines => Finding::warn(
            "swap",
            format!(
                "{} in use: a page that is swapped out stops the thread of consensus until it is back",
                lines - 1
            ),
            "swapoff -a, or vm.swappiness=1",
        ),
    }
}

/// `signs` are files that show that the clock is kept.
fn clock(signs: &[&str]) -> Finding {
    match signs.iter().find(|sign| Path::new(sign).exists()) {
        Some(sign) => Finding::ok("clock", format!("it is kept synchronised ({sign})")),
        None => Finding::warn(
            "clock",
            "nothing shows that it is synchronised; in a container that is the host's task"
                .to_owned(),
            "run chrony or systemd-timesyncd; keys expire by log time all the same, never early",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Bad, Ok, Warn};
    use super::*;

    fn verdicts<T: Copy>(check: impl Fn(T) -> Finding, cases: &[(T, Verdict)]) {
        for (at, (case, expected)) in cases.iter().enumerate() {
            let finding = check(*case);
            assert_eq!(finding.verdict, *expected, "{at}: {finding}");
            assert_eq!(finding.next.is_empty(), *expected == Ok, "{finding}");
        }
    }

    #[test]
    fn files_of_the_system_are_judged() {
        verdicts(
            huge_pages,
            &[
                ("[always] madvise never", Warn),
                ("always [madvise] never", Ok),
                ("", Ok),
            ],
        );
        verdicts(overcommit, &[("0\n", Ok), ("1\n", Ok), ("2\n", Warn)]);
        let header = "Filename Type Size Used Priority\n";
        let used = format!("{header}/dev/sda2 partition 1 0 -2\n");
        verdicts(swap, &[(header, Ok), ("", Ok), (&*used, Warn)]);
        verdicts(
            clock,
            &[(&["/", "/absent"][..], Ok), (&["/absent"][..], Warn)],
        );
    }

    #[test]
    fn limits_are_judged_by_what_the_node_needs() {
        let needed = open_files_for(10_000);
        let cases = [(needed, Ok), (u64::MAX, Ok), (needed - 1, Warn), (64, Bad)];
        verdicts(|may| open_files(may, 10_000), &cases);
        let gib = 1_u64 << 30;
        verdicts(
            |(configured, limit, free)| memory(configured, limit, free),
            &[
                ((0, Some(8 * gib), Some(7 * gib)), Ok),
                ((0, Some(8 * gib), Some(gib)), Warn),
                ((2 * gib, Some(8 * gib), Some(gib)), Ok),
                ((9 * gib, Some(8 * gib), Some(gib)), Bad),
                ((0, None, Some(gib)), Warn),
                ((gib, None, Some(gib)), Ok),
            ],
        );
        assert_eq!(
            available("MemFree: 1 kB\nMemAvailable:   2 kB\n"),
            Some(2048)
        );
        assert_eq!(available(""), None);
    }
}
