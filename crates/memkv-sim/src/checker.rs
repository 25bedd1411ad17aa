//! The verdicts at a run's end: on what clients saw of each plain key, on what they saw of all keys
//! against the log, and on when keys expired. Only compares; it never looks at a node.

use memkv_check::ledger::Ledger;
use memkv_check::{Budget, KeyValue, Operation, order, revision, wgl};

use crate::cluster::Cluster;
use crate::committed_log::CommittedLog;
use crate::operations::Operations;
use crate::promise::Promise;
use crate::settle::{Held, Rest};
use crate::timing::Timing;

type Verdict = Result<(), (Promise, String)>;

/// On the history of the plain keys, each by itself and with no help from the log.
pub(crate) fn plain(history: &[Operation], rest: &Rest) -> Verdict {
    let budget = Budget::default();
    wgl::check(&KeyValue, history, &budget)
        .map_err(|failure| (Promise::Linearizable, failure.to_string()))?;
    revision::check(&KeyValue, history, &budget)
        .map_err(|failure| (Promise::LinearizableByRevision, failure.to_string()))?;
    let mut ledger = Ledger::new();
    history
        .iter()
        .for_each(|operation| ledger.record(operation));
    // Revisions are counted by `all`, since other commands take them too.
    ledger
        .audit(rest.content.iter().cloned(), None)
        .map_err(|discrepancy| (Promise::NothingLost, discrepancy.to_string()))?;
    Ok(())
}

/// On the history of all keys.
pub(crate) fn all(
    committed_log: &CommittedLog,
    timing: &Timing,
    cluster: &Cluster,
    operations: &Operations,
    rest: &Rest,
) -> Verdict {
    if committed_log.end() != rest.applied {
        let seen = format!(
            "the nodes are at {}, it is at {}",
            rest.applied,
            committed_log.end()
        );
        return Err((Promise::EveryEntrySeen, seen));
    }
    let log = committed_log
        .log(operations)
        .map_err(|why| (Promise::LogHoldsWhatWasSent, why))?;
    let verdict = order::check(&log, &operations.history())
        .map_err(|failure| (Promise::ClientsSawTheLog, failure.to_string()))?;
    let trace = &cluster.trace;
    let count = |name, times: u64| (0..times).for_each(|_| trace.count(name));
    count("transactions committed", verdict.transactions.0);
    count("transactions stopped by a guard", verdict.transactions.1);
    count("transactions stopped by a hash", verdict.space.false_aborts);
    count(
        "commands of unknown outcome that ran",
        verdict.unknown_that_ran,
    );
    let expected = verdict.space.keys().map(|(key, held)| Held {
        key: key.clone(),
        value: held.value.clone(),
        revision: held.revision,
        deadline_ms: held.deadline.map(|deadline| deadline.at_ms),
    });
    let expected: Vec<Held> = expected.collect();
    if expected != rest.held || verdict.space.revision() != rest.revision {
        let seen = format!(
            "revision {} and {:?}, not {} and {expected:?}",
            rest.revision,
            rest.held,
            verdict.space.revision()
        );
        return Err((Promise::StoreHoldsTheLog, seen));
    }
    timing.check(&verdict.expiries, committed_log.entries(), cluster)?;
    timing.check_rest(rest)
}
