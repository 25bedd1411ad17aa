//! Prints how long the checkers take on generated histories; run it with `--release`.
//! Never asserts anything: times belong to the machine.
#![expect(clippy::print_stdout, reason = "printing is all that it does")]

use std::time::Instant;

use memkv_check::generate::{Alteration, Mix, Workload, valid};
use memkv_check::{Budget, KeyValue, Operation, revision, wgl};

fn main() {
    println!(
        "{:42} {:>9} {:>12} {:>9}  verdict",
        "history", "time", "steps", "judge"
    );
    for (name, workload) in cases() {
        let mut history = valid(&workload);
        measure(name, &history);
        if workload.mix == Mix::Register && workload.operations <= 10_000 {
            Alteration::Stale.apply(&mut history, 1);
            measure("  the same with a stale read", &history);
        }
    }
}

/// The histories by name.
fn cases() -> Vec<(&'static str, Workload)> {
    let register = Workload {
        seed: 1,
        clients: 8,
        operations: 10_000,
        keys: 1,
        mix: Mix::Register,
        faults_per_thousand: 0,
    };
    let large = Workload {
        operations: 1_000_000,
        keys: 1_000,
        clients: 32,
        ..register
    };
    let faulty = |workload: Workload| Workload {
        faults_per_thousand: 20,
        ..workload
    };
    let mixed = |mix| Workload {
        mix,
        ..faulty(register)
    };
    vec![
        (
            "1k, one key, 8 clients",
            Workload {
                operations: 1_000,
                ..register
            },
        ),
        ("10k, one key, 8 clients", register),
        ("10k, one key, 8 clients, 2 % faults", mixed(Mix::Register)),
        ("10k, deletions, 2 % faults", mixed(Mix::Deletions)),
        ("10k, counter, 2 % faults", mixed(Mix::Counter)),
        (
            "10k, 10 keys, list, 2 % faults",
            Workload {
                keys: 10,
                ..mixed(Mix::List)
            },
        ),
        (
            "10k, 10 keys, everything, 2 % faults",
            Workload {
                keys: 10,
                ..mixed(Mix::Everything)
            },
        ),
        (
            "10k, one key, 32 clients",
            Workload {
                clients: 32,
                ..register
            },
        ),
        (
            "100k, one key, 8 clients",
            Workload {
                operations: 100_000,
                ..register
            },
        ),
        ("1M, 1,000 keys, 32 clients", large),
        ("1M, 1,000 keys, 32 clients, 2 % faults", faulty(large)),
    ]
}

fn measure(name: &str, history: &[Operation]) {
    type Checker = fn(&[Operation]) -> Result<memkv_check::Coverage, memkv_check::Failure>;
    let checkers: [(&str, Checker); 2] = [
        ("search", |history| {
            wgl::check(&KeyValue, history, &Budget::default())
        }),
        ("revision", |history| {
            revision::check(&KeyValue, history, &Budget::default())
        }),
    ];
    for (checker, check) in checkers {
        let start = Instant::now();
        let verdict = check(history);
        let time = start.elapsed();
        let steps = verdict.as_ref().map_or(0, |coverage| coverage.steps);
        let verdict = verdict.map_or_else(|failure| failure.to_string(), |_| "accepted".into());
        let verdict = verdict.lines().next().unwrap_or_default();
        println!(
            "{name:42} {:>6} ms {steps:>12} {checker:>9}  {verdict}",
            time.as_millis()
        );
    }
}
