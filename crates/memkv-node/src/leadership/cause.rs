//! Why leadership changes, as far as this node knows: noted where it is noticed, told where the change is seen.
//! Never decides anything, and is never needed for a decision.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock::Mutex;

/// A cause that is older explains nothing: an election that it began is over.
const LIFETIME: Duration = Duration::from_secs(10);

/// The reason of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// This process has started and heard no leader.
    Start,
    /// The process of the leader is gone.
    ProcessGone { leader: u64 },
    /// The leader has handed leadership over.
    HandedOver { from: u64 },
}

/// The last cause that was noticed.
#[derive(Default)]
pub(crate) struct Causes(Mutex<Option<(Cause, Instant)>>);

impl Causes {
    pub(crate) fn note(&self, cause: Cause) {
        *self.0.lock() = Some((cause, Instant::now()));
    }

    /// The cause of a change that is seen now, in words.
    pub(crate) fn explain(&self, name: impl Fn(u64) -> String) -> Option<String> {
        let (cause, at) = (*self.0.lock())?;
        (at.elapsed() < LIFETIME).then(|| match cause {
            Cause::Start => "no leader was heard after the start".to_owned(),
            Cause::ProcessGone { leader } => format!("the process of {} is gone", name(leader)),
            Cause::HandedOver { from } => format!("{} has handed leadership over", name(from)),
        })
    }

    /// A leader is known: the next change has a cause of its own.
    pub(crate) fn clear(&self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cause_explains_what_follows_soon() {
        let causes = Causes::default();
        let name = |id| format!("n{id}");
        assert_eq!(causes.explain(name), None);
        causes.note(Cause::Start);
        causes.note(Cause::ProcessGone { leader: 2 });
        let told = Some("the process of n2 is gone".to_owned());
        assert_eq!(causes.explain(name), told);
        assert_eq!(causes.explain(name), told, "also to the next change");
        tokio::time::advance(LIFETIME).await;
        assert_eq!(causes.explain(name), None, "too old");
        causes.note(Cause::HandedOver { from: 3 });
        causes.clear();
        assert_eq!(causes.explain(name), None);
    }
}
