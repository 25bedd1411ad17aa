//! The two data structures of the search: the calls and returns that are not linearized yet, and
//! the compact set of those that are. Neither knows anything about models.

/// A place in a [`Timeline`]; later events have larger numbers. 0 is the end.
pub(crate) type Node = usize;

/// Calls and returns in the order of time, as a doubly linked list from which an operation's
/// two events can be lifted, and put back in the opposite order (Knuth's dancing links).
/// Invariant: at equal times calls come before returns, so touching operations are concurrent.
pub(crate) struct Timeline {
    next: Vec<Node>,
    previous: Vec<Node>,
    events: Vec<Event>,
    /// Call and return of each operation.
    nodes: Vec<(Node, Node)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    time: u64,
    is_return: bool,
    operation: usize,
}

impl Timeline {
    /// Takes the operations' times of invocation and return.
    pub(crate) fn new(times: impl Iterator<Item = (u64, u64)>) -> Timeline {
        let mut events: Vec<Event> = times
            .enumerate()
            .flat_map(|(operation, (invoked_at, returned_at))| {
                let call = Event {
                    time: invoked_at,
                    is_return: false,
                    operation,
                };
                [
                    call,
                    Event {
                        time: returned_at,
                        is_return: true,
                        operation,
                    },
                ]
            })
            .collect();
        events.sort_unstable();
        let mut nodes = vec![(0, 0); events.len() / 2];
        for (event, node) in events.iter().zip(1..) {
            let (call, ret) = &mut nodes[event.operation];
            *(if event.is_return { ret } else { call }) = node;
        }
        let count = events.len() + 1;
        Timeline {
            next: (0..count).map(|node| (node + 1) % count).collect(),
            previous: (0..count).map(|node| (node + count - 1) % count).collect(),
            events,
            nodes,
        }
    }

    /// The first event that is left.
    pub(crate) fn first(&self) -> Node {
        self.next[0]
    }

    /// The event after this one.
    pub(crate) fn after(&self, node: Node) -> Node {
        self.next[node]
    }

    /// The operation that is called here; `None` if this is a return.
    pub(crate) fn call_at(&self, node: Node) -> Option<usize> {
        let event = self.events[node - 1];
        (!event.is_return).then_some(event.operation)
    }

    /// The operation whose call or return this is.
    pub(crate) fn owner(&self, node: Node) -> usize {
        self.events[node - 1].operation
    }

    /// When this event happened.
    pub(crate) fn time(&self, node: Node) -> u64 {
        self.events[node - 1].time
    }

    /// Takes the operation's call and return out.
    pub(crate) fn lift(&mut self, operation: usize) {
        let (call, ret) = self.nodes[operation];
        for node in [call, ret] {
            let (previous, next) = (self.previous[node], self.next[node]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the latest [`Timeline::lift`], which was of this operation, and returns the event
    /// after its call.
    pub(crate) fn unlift(&mut self, operation: usize) -> Node {
        let (call, ret) = self.nodes[operation];
        for node in [ret, call] {
            let (previous, next) = (self.previous[node], self.next[node]);
            self.next[previous] = node;
            self.previous[next] = node;
        }
        self.next[call]
    }
}

/// A set of small integers that is mostly a prefix, such as the linearized operations in order
/// of their calls. Its key holds only the words between the prefix and the last member, so that
/// a configuration costs memory for the operations in flight, not for the whole history.
pub(crate) struct Bits {
    words: Vec<u64>,
    /// All words before this one are full.
    low: usize,
    /// All words from this one on are empty.
    high: usize,
}

impl Bits {
    /// The empty set of numbers below `capacity`.
    pub(crate) fn new(capacity: usize) -> Bits {
        Bits {
            words: vec![0; capacity.div_ceil(64)],
            low: 0,
            high: 0,
        }
    }

    pub(crate) fn get(&self, index: usize) -> bool {
        self.words[index / 64] & (1 << (index % 64)) != 0
    }

    pub(crate) fn set(&mut self, index: usize) {
        self.words[index / 64] |= 1 << (index % 64);
        self.high = self.high.max(index / 64 + 1);
        while self.words.get(self.low) == Some(&u64::MAX) {
            self.low += 1;
        }
    }

    pub(crate) fn clear(&mut self, index: usize) {
        self.words[index / 64] &= !(1 << (index % 64));
        self.low = self.low.min(index / 64);
        while self.high > 0 && self.words[self.high - 1] == 0 {
            self.high -= 1;
        }
    }

    /// How many words [`Bits::write_key`] writes.
    pub(crate) fn key_len(&self) -> usize {
        1 + self.high - self.low
    }

    /// Appends words that no other set with the same capacity writes, and that say themselves
    /// how many they are.
    pub(crate) fn write_key(&self, out: &mut Vec<u64>) {
        out.push((self.low as u64) << 32 | (self.high - self.low) as u64);
        out.extend_from_slice(&self.words[self.low..self.high]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(timeline: &Timeline) -> Vec<(u64, Option<usize>)> {
        let mut node = timeline.first();
        let mut seen = Vec::new();
        while node != 0 {
            seen.push((timeline.time(node), timeline.call_at(node)));
            node = timeline.after(node);
        }
        seen
    }

    #[test]
    fn calls_precede_returns_of_the_same_time() {
        let timeline = Timeline::new([(1, 3), (3, 3), (2, 9)].into_iter());
        let calls = [
            (1, Some(0)),
            (2, Some(2)),
            (3, Some(1)),
            (3, None),
            (3, None),
            (9, None),
        ];
        assert_eq!(order(&timeline), calls);
    }

    #[test]
    fn lifting_can_be_undone_in_opposite_order() {
        let mut timeline = Timeline::new([(1, 4), (2, 6), (3, 5)].into_iter());
        let before = order(&timeline);
        timeline.lift(1);
        timeline.lift(0);
        assert_eq!(order(&timeline), [(3, Some(2)), (5, None)]);
        assert_eq!(timeline.unlift(0), timeline.after(timeline.first()));
        timeline.unlift(1);
        assert_eq!(order(&timeline), before);
    }

    #[test]
    fn keys_tell_sets_apart_and_stay_short() {
        let key = |members: &[usize]| {
            let mut bits = Bits::new(1_000);
            members.iter().for_each(|index| bits.set(*index));
            let mut key = Vec::new();
            bits.write_key(&mut key);
            assert_eq!(key.len(), bits.key_len());
            key
        };
        let prefix: Vec<usize> = (0..640).collect();
        assert_eq!(key(&prefix).len(), 1);
        assert_eq!(key(&[&prefix[..], &[650]].concat()).len(), 2);
        assert_ne!(key(&prefix), key(&prefix[1..]));
        assert_ne!(key(&prefix), key(&prefix[..576]));
        assert_ne!(key(&[]), key(&[0]));
        assert_ne!(key(&[64]), key(&[0]));
    }

    #[test]
    fn clearing_takes_the_bounds_back() {
        let mut bits = Bits::new(200);
        (0..130).for_each(|index| bits.set(index));
        (60..130).rev().for_each(|index| bits.clear(index));
        assert!(bits.get(59) && !bits.get(60));
        assert_eq!(bits.key_len(), 2);
        (0..60).for_each(|index| bits.clear(index));
        assert_eq!(bits.key_len(), 1);
    }
}
