//! The measurement of what this process takes of its memory, again and again, and the alarms: before the
//! process reaches its limit, and before the keys reach their cap.
//!
//! Never stops anything by itself: [`CapacityWatch`] tells the leader. A surrounding that does not tell
//! what the process takes has no such net.

use std::sync::Arc;
use std::time::Duration;

use memkv_store::Memory;

use crate::Env;
use crate::capacity::watch::{CapacityWatch, Limit};
use crate::env::blocking;
use crate::peer::client::Peers;
use crate::replica::Replica;
use crate::report::event::Event;
use crate::report::timeline::Timeline;

/// How often it is measured. At a gigabyte a second, which no network brings, the reserve of a node of
/// 1 GiB outlasts it.
const INTERVAL: Duration = Duration::from_millis(100);

/// Shares of the cap, in percent, at which there is an alarm.
const ALARMS: [u64; 2] = [80, 95];

/// How far below such a share the cost must fall before the alarm can be raised again, in percent.
const REST: u64 = 5;

/// Measures this node.
pub(crate) struct CapacityMeter {
    pub(crate) env: Env,
    /// The most memory that the process may take, if it is known.
    pub(crate) limit: Option<u64>,
    /// The longest value that a command may have, in bytes.
    pub(crate) largest_value: u64,
    pub(crate) capacity: Arc<CapacityWatch>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) peers: Arc<Peers>,
}

/// Measures until the node stops.
pub(crate) async fn run(meter: CapacityMeter) {
    let mut alarm = 0;
    let limit = meter.limit;
    let limit = limit.map(|bytes| Limit::new(bytes, meter.largest_value));
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Some(limit) = &limit {
            meter.measure(limit).await;
        }
        alarm = raise_alarm(alarm, &meter.replica.memory(), &meter.replica.timeline);
    }
}

impl CapacityMeter {
    async fn measure(&self, limit: &Limit) {
        let measure = self.env.resident.clone();
        let Ok(Some(resident)) = blocking(&self.env, move || measure()).await else {
            return;
        };
        let before = self.capacity.is_near();
        let is_near = self.capacity.note_own(self.peers.my_id(), resident, limit);
        if before == is_near {
            return;
        }
        self.replica.timeline.note(&match is_near {
            true => Event::MemoryLow {
                resident,
                limit: limit.bytes,
            },
            false => Event::MemoryBack { resident },
        });
        let (resident_mib, limit_mib) = (resident >> 20, limit.bytes >> 20);
        let detail = match is_near {
            true => {
                tracing::warn!(
                    resident_mib,
                    limit_mib,
                    "memory is nearly used up: growth stops for 30 s, or while a majority is short. \
                     Delete keys, lower maxmemory, or give this node more memory"
                );
                let me = &self.peers.me.name;
                format!("{me} takes {resident_mib} of its {limit_mib} MiB of memory")
            }
            false => {
                tracing::info!(resident_mib, limit_mib, "there is memory again");
                String::new()
            }
        };
        *self.capacity.detail.lock() = detail;
    }
}

/// Logs that the keys have come near their cap; returns the share that was reached, 0 for none.
fn raise_alarm(before: u64, memory: &Memory, timeline: &Timeline) -> u64 {
    let share = memory.share_percent();
    let reached = ALARMS.into_iter().rev().find(|alarm| share >= *alarm);
    let reached = reached.unwrap_or(0);
    if reached > before {
        timeline.note(&Event::CapNear { percent: share });
        tracing::warn!(
            percent = share,
            dataset_bytes = memory.cost,
            maxmemory = memory.cap,
            policy = memory.policy.name(),
            "the keys are near their memory cap: at the cap, commands that may grow are refused \
             (OOM), or keys are evicted"
        );
        return reached;
    }
    if share + REST < before {
        if reached == 0 {
            timeline.note(&Event::CapBack { percent: share });
        }
        reached
    } else {
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alarm_is_raised_once_until_the_keys_have_shrunk() {
        let at = |cost| Memory {
            cost,
            cap: Some(1_000),
            ..Memory::default()
        };
        let timeline = Timeline::default();
        timeline.begin(Arc::new(|| 0), 1, 0);
        let mut alarm = 0;
        for (cost, expected) in [
            (799, 0),
            (800, 80),
            (790, 80),
            (949, 80),
            (950, 95),
            (2_000, 95),
            (910, 95),
            (890, 80),
            (740, 0),
        ] {
            alarm = raise_alarm(alarm, &at(cost), &timeline);
            assert_eq!(alarm, expected, "{cost}");
        }
        assert_eq!(
            raise_alarm(80, &Memory::default(), &timeline),
            0,
            "there is no cap"
        );
        let told: Vec<_> = timeline.since(0).iter().map(|noted| noted.kind).collect();
        assert_eq!(told, ["cap_near", "cap_near", "cap_ok", "cap_ok"]);
    }
}
