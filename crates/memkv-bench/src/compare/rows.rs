//! The compared runs and the goals: the one table that the comparison runs and the report shows.

use crate::protocol::Protocol;
use crate::system::{Name, To};

/// One line of the report.
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) runs: &'static [Run],
    pub(crate) goals: &'static [Goal],
}

/// One load against one system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Names the run within its row.
    pub(crate) label: &'static str,
    pub(crate) system: Name,
    pub(crate) nodes: usize,
    pub(crate) protocol: Protocol,
    pub(crate) load: Load,
    pub(crate) reads_percent: usize,
    pub(crate) to: To,
}

/// The load of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Connections, and requests in one write.
    Closed(usize, usize),
    /// An open loop over these connections at half of the rate that they reach in a closed one.
    HalfOfMaximum(usize),
    /// No load: the RAM of a million keys.
    Memory,
}

/// A figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Rate,
    P50,
    P99,
    Cpu,
    BytesPerKey,
}

/// The goal of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Goal {
    pub(crate) figure: Figure,
    /// Label of the run.
    pub(crate) run: &'static str,
    /// Label of the run that it is divided by; the figure itself counts where there is none.
    pub(crate) against: Option<&'static str>,
    pub(crate) bound: Bound,
}

/// On which side of a number a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    /// Whether `value` is on the right side.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }
}

const fn run(label: &'static str, system: Name, nodes: usize, load: Load) -> Run {
    let protocol = match system {
        Name::Memkv | Name::Valkey | Name::Redis => Protocol::Resp,
        Name::Etcd => Protocol::Etcd,
        Name::Bare => Protocol::Compat,
    };
    Run {
        label,
        system,
        nodes,
        protocol,
        load,
        reads_percent: 0,
        to: To::Leader,
    }
}

const fn reads(reads_percent: usize, run: Run) -> Run {
    Run {
        reads_percent,
        ..run
    }
}

const fn at_follower(run: Run) -> Run {
    Run {
        to: To::Follower,
        ..run
    }
}

const fn over(protocol: Protocol, run: Run) -> Run {
    Run { protocol, ..run }
}

const fn at_least(run: &'static str, times: f64, against: &'static str) -> Goal {
    Goal {
        figure: Figure::Rate,
        run,
        against: Some(against),
        bound: Bound::AtLeast(times),
    }
}

const fn at_most(figure: Figure, run: &'static str, times: f64, against: &'static str) -> Goal {
    Goal {
        figure,
        run,
        against: Some(against),
        bound: Bound::AtMost(times),
    }
}

const fn cpu_at_most(micros: f64) -> Goal {
    Goal {
        figure: Figure::Cpu,
        run: "memkv",
        against: None,
        bound: Bound::AtMost(micros),
    }
}

const C1: Load = Load::Closed(1, 1);
const C64: Load = Load::Closed(64, 1);
const C64_P16: Load = Load::Closed(64, 16);
const C1024: Load = Load::Closed(1024, 1);
const HALF: Load = Load::HalfOfMaximum(256);

const fn one_node(label: &'static str, system: Name, depth: usize) -> Run {
    run(label, system, 1, Load::Closed(50, depth))
}

/// All rows, in the order of the report.
pub(crate) const ROWS: &[Row] = &[
    Row {
        title: "writes, three nodes, c64 P1",
        runs: &[
            run("memkv", Name::Memkv, 3, C64),
            run("etcd", Name::Etcd, 3, C64),
            run("Valkey+WAIT", Name::Valkey, 3, C64),
        ],
        goals: &[
            at_least("memkv", 5.0, "etcd"),
            at_least("memkv", 1.5, "Valkey+WAIT"),
            cpu_at_most(16.0),
        ],
    },
    Row {
        title: "writes, three nodes, c1024 P1",
        runs: &[
            run("memkv", Name::Memkv, 3, C1024),
            run("etcd", Name::Etcd, 3, C1024),
            run("Valkey+WAIT", Name::Valkey, 3, C1024),
        ],
        goals: &[
            at_least("memkv", 6.0, "etcd"),
            at_least("memkv", 1.5, "Valkey+WAIT"),
        ],
    },
    Row {
        title: "writes, three nodes, c1",
        runs: &[
            run("memkv", Name::Memkv, 3, C1),
            run("etcd", Name::Etcd, 3, C1),
            run("Valkey+WAIT", Name::Valkey, 3, C1),
        ],
        goals: &[
            at_most(Figure::P50, "memkv", 0.6, "etcd"),
            at_most(Figure::P50, "memkv", 0.85, "Valkey+WAIT"),
        ],
    },
    Row {
        title: "writes, three nodes, c64 P16",
        runs: &[
            run("memkv", Name::Memkv, 3, C64_P16),
            run("Redis alone", Name::Redis, 1, C64_P16),
            run("Valkey+WAIT", Name::Valkey, 3, C64_P16),
        ],
        goals: &[
            at_least("memkv", 0.65, "Redis alone"),
            at_least("memkv", 1.5, "Valkey+WAIT"),
            cpu_at_most(6.5),
        ],
    },
    Row {
        title: "writes, one node, c50 P1 / P16 / P64",
        runs: &[
            one_node("memkv P1", Name::Memkv, 1),
            one_node("Redis P1", Name::Redis, 1),
            one_node("memkv P16", Name::Memkv, 16),
            one_node("Redis P16", Name::Redis, 16),
            one_node("memkv P64", Name::Memkv, 64),
            one_node("Redis P64", Name::Redis, 64),
        ],
        goals: &[
            at_least("memkv P1", 1.0, "Redis P1"),
            at_least("memkv P16", 1.0, "Redis P16"),
            at_least("memkv P64", 1.0, "Redis P64"),
        ],
    },
    Row {
        title: "linearizable GET at the leader, c64 P1 / P16",
        runs: &[
            reads(100, run("memkv P1", Name::Memkv, 3, C64)),
            reads(100, run("Valkey P1", Name::Valkey, 3, C64)),
            reads(100, run("etcd", Name::Etcd, 3, C64)),
            reads(100, run("memkv P16", Name::Memkv, 3, C64_P16)),
            reads(100, run("Valkey P16", Name::Valkey, 3, C64_P16)),
        ],
        goals: &[
            at_least("memkv P1", 0.85, "Valkey P1"),
            at_least("memkv P16", 0.7, "Valkey P16"),
            at_least("memkv P1", 7.0, "etcd"),
        ],
    },
    Row {
        title: "linearizable GET at a follower, c64 P1",
        runs: &[
            at_follower(reads(100, run("memkv", Name::Memkv, 3, C64))),
            at_follower(reads(100, run("etcd", Name::Etcd, 3, C64))),
        ],
        goals: &[at_least("memkv", 3.0, "etcd")],
    },
    Row {
        title: "90 % reads, c64",
        runs: &[
            reads(90, run("memkv", Name::Memkv, 3, C64)),
            reads(90, run("etcd", Name::Etcd, 3, C64)),
        ],
        goals: &[at_least("memkv", 8.0, "etcd")],
    },
    Row {
        title: "p99 at half of its own maximum, open loop, writes",
        runs: &[
            run("memkv", Name::Memkv, 3, HALF),
            run("etcd", Name::Etcd, 3, HALF),
        ],
        goals: &[at_most(Figure::P99, "memkv", 0.5, "etcd")],
    },
    Row {
        title: "the original's HTTP interface, set with fsync / get, c64",
        runs: &[
            over(Protocol::Compat, run("memkv set", Name::Memkv, 3, C64)),
            run("bare set", Name::Bare, 1, C64),
            over(
                Protocol::Compat,
                reads(100, run("memkv get", Name::Memkv, 3, C64)),
            ),
            reads(100, run("bare get", Name::Bare, 1, C64)),
        ],
        goals: &[
            at_least("memkv set", 0.17, "bare set"),
            at_least("memkv get", 0.46, "bare get"),
        ],
    },
    Row {
        title: "resident bytes per key, 16 B / 64 B, a million keys, one node",
        runs: &[
            run("memkv", Name::Memkv, 1, Load::Memory),
            run("Valkey", Name::Valkey, 1, Load::Memory),
        ],
        goals: &[at_most(Figure::BytesPerKey, "memkv", 0.9, "Valkey")],
    },
];

/// The connections of the plots.
pub(crate) const SWEEP: &[usize] = &[1, 4, 16, 64, 256, 1024];

/// A plot: throughput against latency over the connections of [`SWEEP`].
pub(crate) struct Plot {
    /// Name of its file, without an ending.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) runs: &'static [Run],
}

/// All plots; the load of a run is replaced by each of [`SWEEP`].
pub(crate) const PLOTS: &[Plot] = &[
    Plot {
        file: "writes",
        title: "Writes, three nodes",
        runs: &[
            run("memkv", Name::Memkv, 3, C1),
            run("etcd", Name::Etcd, 3, C1),
            run("Valkey+WAIT", Name::Valkey, 3, C1),
        ],
    },
    Plot {
        file: "reads",
        title: "Reads, three nodes (Valkey's may be stale)",
        runs: &[
            reads(100, run("memkv", Name::Memkv, 3, C1)),
            reads(100, run("etcd", Name::Etcd, 3, C1)),
            reads(100, run("Valkey", Name::Valkey, 3, C1)),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::{Bound, ROWS};

    #[test]
    fn goals_name_runs_of_their_row() {
        for row in ROWS {
            let named = |label: &str| row.runs.iter().filter(|run| run.label == label).count();
            for goal in row.goals {
                assert_eq!(named(goal.run), 1, "{}: {}", row.title, goal.run);
                if let Some(against) = goal.against {
                    assert_eq!(named(against), 1, "{}: {against}", row.title);
                }
            }
        }
    }

    #[test]
    fn a_bound_includes_its_number() {
        assert!(Bound::AtLeast(2.0).holds(2.0) && !Bound::AtLeast(2.0).holds(1.9));
        assert!(Bound::AtMost(2.0).holds(2.0) && !Bound::AtMost(2.0).holds(2.1));
        assert!(!Bound::AtMost(2.0).holds(f64::NAN));
    }
}
