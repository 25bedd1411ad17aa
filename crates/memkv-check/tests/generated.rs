//! Histories from the generator: valid ones must be accepted, altered ones rejected, and enough
//! of both must have been judged.

mod common;

use common::SearchOnly;
use memkv_check::generate::{Alteration, Mix, Workload, valid};
use memkv_check::ledger::{Final, Ledger};
use memkv_check::{Budget, Coverage, Failure, KeyValue, Model, Operation, revision, wgl};

const MIXES: [Mix; 5] = [
    Mix::Register,
    Mix::Deletions,
    Mix::Counter,
    Mix::List,
    Mix::Everything,
];

/// A history of some 60 operations; every second one meets faults.
fn workload(seed: u64, mix: Mix) -> Workload {
    Workload {
        seed,
        clients: 2 + seed % 7,
        operations: 60,
        keys: 1 + seed % 3,
        mix,
        faults_per_thousand: if seed.is_multiple_of(2) { 0 } else { 150 },
    }
}

fn by_search<M>(model: &M, history: &[Operation]) -> Result<Coverage, Failure>
where
    M: Model<Op = memkv_check::Op, Reply = memkv_check::Reply>,
{
    wgl::check(model, history, &Budget::default())
}

fn by_revision(history: &[Operation]) -> Result<Coverage, Failure> {
    revision::check(&KeyValue, history, &Budget::default())
}

#[test]
fn valid_histories_are_accepted() {
    let mut seen = Coverage::default();
    for seed in 0..1_000 {
        for mix in MIXES {
            let history = valid(&workload(seed, mix));
            let verdicts = [
                by_search(&KeyValue, &history),
                by_search(&SearchOnly, &history),
                by_revision(&history),
            ];
            for verdict in verdicts {
                match verdict {
                    Ok(coverage) => {
                        seen.answered += coverage.answered;
                        seen.unknown += coverage.unknown;
                        seen.not_executed += coverage.not_executed;
                    }
                    Err(failure) => panic!("seed {seed}, {mix:?}: {failure}"),
                }
            }
        }
    }
    let least = seen.unknown.min(seen.not_executed);
    assert!(seen.answered > 500_000 && least > 50_000, "{seen:?}");
}

#[test]
fn altered_histories_are_rejected() {
    for alteration in Alteration::ALL {
        let mut altered = 0;
        for seed in 0..400 {
            let mut history = valid(&workload(seed, Mix::Register));
            let Some(at) = alteration.apply(&mut history, seed) else {
                continue;
            };
            altered += 1;
            let verdicts = [
                ("quickly", by_search(&KeyValue, &history)),
                ("by search", by_search(&SearchOnly, &history)),
                ("by revision", by_revision(&history)),
            ];
            for (how, verdict) in verdicts {
                let what = format!("{alteration:?} of seed {seed} at {at}, judged {how}");
                assert!(
                    matches!(verdict, Err(Failure::NotLinearizable(_))),
                    "{what}: {verdict:?}"
                );
            }
        }
        assert!(
            altered >= 180,
            "only {altered} histories had a place for {alteration:?}"
        );
    }
}

/// What the store of a valid history without unknown outcomes holds in the end.
fn content(history: &[Operation]) -> Vec<Final> {
    let mut keys = std::collections::BTreeMap::new();
    let mut writes: Vec<&Operation> = history
        .iter()
        .filter(|operation| KeyValue.is_write(&operation.op, operation.reply()))
        .filter(|operation| operation.reply().is_some())
        .collect();
    writes.sort_by_key(|write| write.revision());
    for write in writes {
        match write.op {
            memkv_check::Op::Set(value) => {
                keys.insert(write.key.clone(), (value, write.revision()))
            }
            _ => keys.remove(&write.key),
        };
    }
    let entry = |(key, (value, revision)): (String, (u64, Option<u64>))| Final {
        key,
        value,
        revision: revision.unwrap_or_default(),
    };
    keys.into_iter().map(entry).collect()
}

#[test]
fn the_ledger_agrees_with_valid_histories_and_with_no_other_content() {
    let mut dropped = 0;
    for seed in (0..400).step_by(2) {
        let history = valid(&workload(seed, Mix::Deletions));
        let mut ledger = Ledger::new();
        history
            .iter()
            .for_each(|operation| ledger.record(operation));
        let content = content(&history);
        let audit = ledger.audit(content.clone(), None);
        assert!(
            audit.is_ok_and(|audit| audit.acknowledged > 10),
            "seed {seed}"
        );
        for missing in 0..content.len() {
            let mut less = content.clone();
            less.remove(missing);
            assert!(
                ledger.audit(less, None).is_err(),
                "seed {seed} without entry {missing}"
            );
            dropped += 1;
        }
    }
    assert!(dropped > 200);
}
