//! The memory cap: the cost of a key, how much all keys may cost, and what makes room for more.
//!
//! The cost is a function of lengths and counts, never of where bytes lie: two builds with other layouts
//! refuse the same commands. Each key is charged its deadline from the start, so EXPIRE and PERSIST change
//! nothing. The sum is kept by `keyspace`; this file has the formula and the cap. All of it is replicated
//! state of [`EDGE_LEVEL`](crate::EDGE_LEVEL): below that level there is no cap. Invariants: the sum is a
//! function of the keys and values alone; the cap that follows from announcements is never set below the
//! sum; what the operator has set wins.

use bytes::BufMut;

use crate::EDGE_LEVEL;
use crate::encoding::{DecodeError, Reader, put_length, put_varint};
use crate::member_table::{AnnouncedMemory, MAX_MEMBERS, MemberTable};

/// The cost of a key besides its own bytes and those of its value: lengths, revisions and deadline (22 at
/// most), the rounding of a slot (4) and an eighth of slots that are empty, its place in the hash table (8),
/// in the ordered index (11) and in the index of deadlines (36). Part of the feature level.
const KEY_COST: u64 = 96;

/// How far above the cap APPEND, SETRANGE and COPY may go. They make values out of values, so a short
/// command can grow the keys by much more than its own length; it is one value of the greatest length.
pub const CAP_OVERRUN_BYTES: u64 = 64 * 1024 * 1024;

/// The most keys that one entry evicts, half a millisecond of work. The next entries evict more.
pub const EVICTED_PER_ENTRY: usize = if cfg!(memkv_bugs) { 10 } else { 1_000 };

/// The cost of a key and a value that have so many bytes together.
#[inline]
pub(crate) fn cost(bytes: usize) -> u64 {
    bytes as u64 + KEY_COST
}

/// What makes room when the keys cost as much as they may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum EvictionPolicy {
    /// Nothing does: commands that may grow are refused.
    #[default]
    NoEviction = 0,
    /// Keys with a deadline are removed, the nearest deadline first. Locks are such keys.
    VolatileTtl = 1,
}

impl EvictionPolicy {
    const ALL: [EvictionPolicy; 2] = [EvictionPolicy::NoEviction, EvictionPolicy::VolatileTtl];

    /// Its name in `maxmemory-policy`.
    pub fn name(self) -> &'static str {
        match self {
            EvictionPolicy::NoEviction => "noeviction",
            EvictionPolicy::VolatileTtl => "volatile-ttl",
        }
    }

    /// The policy of this name, in any case; `None` if there is no such policy.
    pub fn parse(name: &[u8]) -> Option<EvictionPolicy> {
        let mut all = EvictionPolicy::ALL.into_iter();
        all.find(|policy| policy.name().as_bytes().eq_ignore_ascii_case(name))
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<EvictionPolicy, DecodeError> {
        let what = "eviction policy";
        let tag = reader.u8(what)?;
        let mut all = EvictionPolicy::ALL.into_iter();
        all.find(|policy| *policy as u8 == tag)
            .ok_or(DecodeError::UnknownTag { what, tag })
    }
}

/// What the keys cost, and what they may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// The sum over all keys.
    pub cost: u64,
    /// The cap in force, if there is one.
    pub cap: Option<u64>,
    /// The cap that the operator has set.
    pub operator_cap: Option<u64>,
    /// The cap that follows from the nodes' announcements.
    pub derived_cap: Option<u64>,
    /// What makes room at the cap.
    pub policy: EvictionPolicy,
    /// The number of evicted keys since the cluster was formed.
    pub evicted: u64,
}

impl Memory {
    /// Whether commands that may grow are refused, unless keys are evicted for them.
    pub fn is_at_cap(&self) -> bool {
        self.cap.is_some_and(|cap| self.cost >= cap)
    }

    /// Whether they are refused, since nothing is ever evicted for them.
    pub fn refuses_growth(&self) -> bool {
        self.is_at_cap() && self.policy == EvictionPolicy::NoEviction
    }

    /// The cost as a share of the cap, in percent; 0 without a cap.
    pub fn share_percent(&self) -> u64 {
        let share = |cap: u64| (u128::from(self.cost) * 100).checked_div(u128::from(cap));
        let share = self.cap.map(|cap| share(cap).unwrap_or(u128::MAX));
        share.map_or(0, |share| u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// The cap and the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryCap {
    operator: Option<u64>,
    derived: Option<u64>,
    pub(crate) policy: EvictionPolicy,
    pub(crate) evicted_total: u64,
    /// The cap in force, so that a command compares once; the highest number if there is none.
    limit: u64,
}

impl Default for MemoryCap {
    fn default() -> MemoryCap {
        MemoryCap {
            operator: None,
            derived: None,
            policy: EvictionPolicy::NoEviction,
            evicted_total: 0,
            limit: u64::MAX,
        }
    }
}

impl MemoryCap {
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn operator(&self) -> Option<u64> {
        self.operator
    }

    /// Takes what the operator sets; 0 takes the operator's cap back.
    pub(crate) fn set(&mut self, cap: Option<u64>, policy: Option<EvictionPolicy>) {
        if let Some(cap) = cap {
            self.operator = Some(cap).filter(|cap| *cap > 0);
        }
        self.policy = policy.unwrap_or(self.policy);
        self.note();
    }

    /// The cap that follows from the nodes, once there is one.
    pub(crate) fn derived(&self) -> Option<u64> {
        self.derived
    }

    /// Takes the cap that follows from the nodes' announcements.
    pub(crate) fn derive(&mut self, cap: u64) {
        self.derived = Some(cap);
        self.note();
    }

    /// Forgets it: there are other nodes.
    pub(crate) fn forget_derived(&mut self) {
        self.derived = None;
        self.note();
    }

    fn cap(&self) -> Option<u64> {
        self.operator.or(self.derived)
    }

    fn note(&mut self) {
        self.limit = self.cap().unwrap_or(u64::MAX);
    }

    pub(crate) fn report(&self, cost: u64) -> Memory {
        Memory {
            cost,
            cap: self.cap(),
            operator_cap: self.operator,
            derived_cap: self.derived,
            policy: self.policy,
            evicted: self.evicted_total,
        }
    }

    /// The section of a snapshot's head, with the announcements of the nodes of `table`.
    pub(crate) fn write(&self, table: &MemberTable, out: &mut Vec<u8>) {
        for cap in [self.operator, self.derived] {
            out.put_u8(u8::from(cap.is_some()));
            cap.iter().for_each(|cap| put_varint(out, *cap));
        }
        out.put_u8(self.policy as u8);
        put_varint(out, self.evicted_total);
        let announced = table.seats.iter();
        let announced: Vec<_> = announced
            .filter_map(|(id, seat)| Some((*id, seat.memory?)))
            .collect();
        put_length(out, announced.len());
        for (id, AnnouncedMemory { boot, bytes }) in announced {
            [id, boot, bytes]
                .into_iter()
                .for_each(|number| put_varint(out, number));
        }
    }

    /// Reads that section, if the level of `table` has it; announcements go to the nodes of `table`.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        table: &mut MemberTable,
    ) -> Result<MemoryCap, DecodeError> {
        if table.level < EDGE_LEVEL {
            return Ok(MemoryCap::default());
        }
        let cap = |reader: &mut Reader<'_>| {
            let is_set = reader.bool("whether a memory cap follows")?;
            is_set.then(|| reader.varint("memory cap")).transpose()
        };
        let mut memory = MemoryCap {
            operator: cap(reader)?,
            derived: cap(reader)?,
            policy: EvictionPolicy::read(reader)?,
            evicted_total: reader.varint("number of evicted keys")?,
            limit: u64::MAX,
        };
        memory.note();
        let what = "announcement of memory";
        let count = reader.length(what)?;
        if count > MAX_MEMBERS {
            return Err(DecodeError::Invalid { what });
        }
        for _ in 0..count {
            let id = reader.varint(what)?;
            let announced = AnnouncedMemory {
                boot: reader.varint(what)?,
                bytes: reader.varint(what)?,
            };
            let taken = table.announce_memory(id, announced);
            taken.map_err(|_| DecodeError::Invalid { what })?;
        }
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_has_set_wins_until_it_is_taken_back() {
        let mut memory = MemoryCap::default();
        assert_eq!((memory.limit(), memory.report(7).cap), (u64::MAX, None));
        memory.derive(100);
        assert_eq!(memory.limit(), 100);
        memory.set(Some(10), None);
        memory.derive(200);
        assert_eq!(memory.limit(), 10);
        memory.set(None, Some(EvictionPolicy::VolatileTtl));
        assert_eq!((memory.limit(), memory.policy.name()), (10, "volatile-ttl"));
        assert!(memory.report(10).is_at_cap() && !memory.report(9).is_at_cap());
        assert!(!memory.report(10).refuses_growth(), "keys are evicted");
        assert_eq!(memory.report(9).share_percent(), 90);
        memory.set(Some(0), None);
        assert_eq!(memory.limit(), 200);
    }

    #[test]
    fn policies_are_known_by_their_names() {
        for policy in EvictionPolicy::ALL {
            let name = policy.name().to_uppercase();
            assert_eq!(EvictionPolicy::parse(name.as_bytes()), Some(policy));
        }
        assert_eq!(EvictionPolicy::parse(b"allkeys-lru"), None);
    }
}
