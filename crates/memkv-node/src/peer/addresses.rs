//! Where members are, beside what the member table says: a node that has moved tells its address before the log
//! can, because without the log's majority nothing enters the log.
//!
//! Four sources, tried in this order: what a member has told of itself in its newest life, the table of a node that
//! serves, this node's table, and the configuration; the second and the last until this node serves itself. The next one is tried
//! when no connection comes about; a node that is not the right one refuses its connection, so a wrong address does
//! no harm. Never changes the table: the leader does, after it has dialled the address (`membership/reconcile.rs`).
//! Invariants: only members have an entry, so the map is as small as the table; only what a member has told of
//! itself is told to others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use memkv_store::MemberTable;

use crate::Peer;
use crate::peer::message::MemberInfo;
use crate::sync::lock::RwLock;

/// A member's address as it was told, and the life of the member that told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) addr: String,
    pub(crate) boot: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Location {
    told: Option<Told>,
    /// What the table of a node that serves says, until this node's says it.
    heard: Option<String>,
    /// The address to dial now, if that is not the table's.
    now: Option<String>,
}

/// A member, where to dial it now, and the table's address if that is another one.
pub(crate) type Located = (MemberInfo, Option<String>);

/// The addresses at which members are dialled.
#[derive(Default)]
pub(crate) struct Addresses {
    configured: Vec<Peer>,
    locations: RwLock<BTreeMap<u64, Location>>,
    /// The table is as new as the configuration: what the log says, this node has read.
    table_is_current: AtomicBool,
    /// Whether there is a location at all. Calls look at this alone where nothing has moved.
    any: AtomicBool,
    /// Which of the members that have moved is looked at next.
    turn: AtomicUsize,
}

impl Addresses {
    /// With the other nodes as the configuration names them.
    pub(crate) fn new(configured: Vec<Peer>) -> Self {
        Self {
            configured,
            ..Self::default()
        }
    }

    /// Where to dial a member of the table.
    pub(crate) fn locate(&self, mut member: MemberInfo) -> Located {
        let mut table = None;
        if self.any.load(Ordering::Relaxed) {
            let locations = self.locations.read();
            let location = locations.get(&member.id);
            if let Some(addr) = location.and_then(|location| location.now.clone()) {
                table = Some(std::mem::replace(&mut member.addr, addr));
            }
        }
        (member, table)
    }

    /// Notes what a member has told of itself. Whether that is new; word of an earlier life is not.
    pub(crate) fn note(&self, id: u64, told: Told) -> bool {
        let mut locations = self.locations.write();
        let location = locations.entry(id).or_default();
        let is_older = |before: &Told| told.boot < before.boot;
        if location.told.as_ref().is_some_and(is_older) {
            return false;
        }
        let is_new = location.told.as_ref().map(|told| &told.addr) != Some(&told.addr);
        // What is told again and again must not undo what was found out by dialling.
        if is_new {
            location.now = Some(told.addr.clone());
        }
        location.told = Some(told);
        self.any.store(true, Ordering::Relaxed);
        is_new
    }

    /// Notes what the table of a node that serves says.
    pub(crate) fn hear(&self, id: u64, addr: String) {
        if self.trusts_table() {
            return;
        }
        let mut locations = self.locations.write();
        let location = locations.entry(id).or_default();
        let is_new = location.heard.as_ref() != Some(&addr);
        if is_new && location.told.is_none() {
            location.now = Some(addr.clone());
        }
        location.heard = Some(addr);
        self.any.store(true, Ordering::Relaxed);
    }

    /// No connection came about at this address of a member: the next source comes to its turn.
    pub(crate) fn failed(&self, (tried, table): &Located) {
        let mut locations = self.locations.write();
        let location = locations.get(&tried.id).cloned().unwrap_or_default();
        let table = table.as_ref().unwrap_or(&tried.addr);
        // Several lanes fail together; the first of them has moved on already.
        if *location.now.as_ref().unwrap_or(table) != tried.addr {
            return;
        }
        let told = location.told.as_ref().map(|told| &told.addr);
        let is_asked = !self.trusts_table();
        let configured = self.configured.iter().filter(|_| is_asked);
        let configured = configured.filter(|peer| peer.name == tried.name);
        let heard = location.heard.as_ref().filter(|_| is_asked);
        let sources = told.into_iter().chain(heard).chain([table]);
        let mut distinct: Vec<&String> = Vec::new();
        for addr in sources.chain(configured.map(|peer| &peer.addr)) {
            if !distinct.contains(&addr) {
                distinct.push(addr);
            }
        }
        // What was tried may be no source any more.
        let at = distinct.iter().position(|addr| **addr == tried.addr);
        let next = at.map_or(0, |at| (at + 1) % distinct.len());
        let now = distinct.get(next).map(|addr| (*addr).clone());
        if now.as_ref() == Some(&tried.addr) {
            return;
        }
        locations.insert(tried.id, Location { now, ..location });
        self.any.store(true, Ordering::Relaxed);
    }

    /// This node serves, so the table is current: the configuration is no source any more, since a wrong address in
    /// it would be tried by turns with the right one for as long as a member is down.
    pub(crate) fn trust_table(&self) {
        self.table_is_current.store(true, Ordering::Relaxed);
    }

    /// Whether the table is as new as what the log says.
    pub(crate) fn trusts_table(&self) -> bool {
        self.table_is_current.load(Ordering::Relaxed)
    }

    /// What members have told, for others.
    pub(crate) fn told(&self) -> Vec<(u64, Told)> {
        let locations = self.locations.read();
        let told = locations.iter();
        told.filter_map(|(id, location)| Some((*id, location.told.clone()?)))
            .collect()
    }

    /// The members that have told another address than the table has: id, and both addresses.
    pub(crate) fn moved(&self, table: &MemberTable) -> Vec<(u64, String, String)> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let locations = self.locations.read();
        let moved = locations.iter().filter_map(|(id, location)| {
            let told = location.told.as_ref()?;
            let seat = table.member(*id)?;
            (seat.addr != told.addr).then(|| (*id, seat.addr.clone(), told.addr.clone()))
        });
        moved.collect()
    }

    /// One of the members that have moved, by turns: one that cannot be written down must not keep the others waiting.
    pub(crate) fn turn(&self, members: usize) -> Option<usize> {
        self.turn.load(Ordering::Relaxed).checked_rem(members)
    }

    /// The member whose turn it was cannot be written down now.
    pub(crate) fn pass_over(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what the table says as well, and nodes that it has no more. Once this node serves, also what an earlier
    /// life of a member has told, by its `newest` boot: it would tell again if the table were wrong.
    pub(crate) fn tidy(&self, table: &MemberTable, newest: impl Fn(u64) -> u64) {
        if !self.any.load(Ordering::Relaxed) || table.cluster().is_none() {
            return;
        }
        let mut locations = self.locations.write();
        if self.trusts_table() {
            for (id, location) in locations.iter_mut() {
                location.heard = None;
                let newest = newest(*id);
                if location
                    .told
                    .as_ref()
                    .is_some_and(|told| told.boot < newest)
                {
                    *location = Location::default();
                }
            }
        }
        locations.retain(|id, location| {
            let is_other = |seat: &memkv_store::Member| {
                let told = location.told.as_ref().map(|told| &told.addr);
                let mut all = told.into_iter().chain(&location.heard).chain(&location.now);
                all.any(|addr| *addr != seat.addr)
            };
            table.member(*id).is_some_and(is_other)
        });
        self.any.store(!locations.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use memkv_store::{BatchBuilder, Store};

    use super::*;
    use crate::peer::fake::form;

    fn told(addr: &str, boot: u64) -> Told {
        Told {
            addr: addr.to_owned(),
            boot,
        }
    }

    /// Where n2, which the table has at `h:2`, is dialled by a call that comes now.
    fn n2(addresses: &Addresses) -> Located {
        addresses.locate(MemberInfo {
            id: 2,
            name: "n2".to_owned(),
            addr: "h:2".to_owned(),
        })
    }

    /// The addresses that are dialled if none answers.
    fn turns(addresses: &Addresses, count: usize) -> Vec<String> {
        let each = (0..count).map(|_| {
            let tried = n2(addresses);
            addresses.failed(&tried);
            tried.0.addr
        });
        each.collect()
    }

    /// A store with the table of a cluster of three.
    fn formed() -> Store {
        let mut store = Store::new();
        let mut batch = BatchBuilder::new(5);
        batch.system(&form(3));
        store.apply(1, &batch.finish(), &mut ());
        store
    }

    fn addresses(configured: &str) -> Addresses {
        Addresses::new(vec![Peer {
            name: "n2".to_owned(),
            addr: configured.to_owned(),
        }])
    }

    #[test]
    fn the_told_address_is_tried_before_the_table_and_the_configuration() {
        let addresses = addresses("config:2");
        assert_eq!(turns(&addresses, 3), ["h:2", "config:2", "h:2"]);
        assert!(addresses.note(2, told("new:2", 5)));
        assert_eq!(turns(&addresses, 4), ["new:2", "h:2", "config:2", "new:2"]);
        addresses.trust_table();
        assert_eq!(turns(&addresses, 4), ["h:2", "new:2", "h:2", "new:2"]);
    }

    #[test]
    fn a_table_that_is_heard_of_is_a_source_until_this_node_serves_and_is_not_told() {
        let addresses = addresses("h:2");
        addresses.hear(2, "table:2".to_owned());
        assert_eq!(turns(&addresses, 3), ["table:2", "h:2", "table:2"]);
        assert!(addresses.note(2, told("new:2", 5)));
        addresses.hear(2, "stale:2".to_owned());
        assert_eq!(turns(&addresses, 4), ["new:2", "stale:2", "h:2", "new:2"]);
        assert_eq!(addresses.told(), [(2, told("new:2", 5))]);
        addresses.trust_table();
        addresses.hear(2, "later:2".to_owned());
        assert_eq!(turns(&addresses, 4), ["stale:2", "new:2", "h:2", "new:2"]);
    }

    #[test]
    fn an_address_that_is_no_source_any_more_is_left() {
        let addresses = addresses("config:2");
        assert_eq!(turns(&addresses, 1), ["h:2"]);
        addresses.trust_table();
        assert_eq!(turns(&addresses, 3), ["config:2", "h:2", "h:2"]);
    }

    #[test]
    fn one_address_is_tried_again_and_again() {
        let addresses = addresses("h:2");
        assert_eq!(turns(&addresses, 2), ["h:2", "h:2"]);
        assert!(!addresses.any.load(Ordering::Relaxed));
    }

    #[test]
    fn lanes_that_fail_together_move_on_once() {
        let addresses = addresses("config:2");
        let tried = n2(&addresses);
        addresses.failed(&tried);
        addresses.failed(&tried);
        assert_eq!(n2(&addresses).0.addr, "config:2");
    }

    #[test]
    fn word_of_an_earlier_life_counts_for_nothing() {
        let addresses = addresses("h:2");
        assert!(addresses.note(2, told("new:2", 5)));
        assert!(!addresses.note(2, told("old:2", 4)));
        assert!(!addresses.note(2, told("new:2", 6)), "it is no news");
        assert_eq!(n2(&addresses).0.addr, "new:2");
        assert_eq!(addresses.told(), [(2, told("new:2", 6))]);
    }

    #[test]
    fn what_the_table_says_as_well_is_forgotten_and_so_are_nodes_that_are_gone() {
        let store = formed();
        let table = store.member_table();
        let addresses = addresses("h:2");
        assert!(addresses.note(2, told("new:2", 5)) && addresses.note(9, told("new:9", 1)));
        let (old, new) = ("h:2".to_owned(), "new:2".to_owned());
        assert_eq!(addresses.moved(table), [(2, old, new)]);
        addresses.tidy(Store::new().member_table(), |_| 0);
        assert_eq!(addresses.told().len(), 2, "there is no table yet");
        addresses.tidy(table, |_| 0);
        assert_eq!(addresses.told(), [(2, told("new:2", 5))]);
        addresses.note(2, told("h:2", 5));
        assert_eq!(addresses.moved(table), []);
        addresses.tidy(table, |_| 0);
        assert!(!addresses.any.load(Ordering::Relaxed));
    }

    #[test]
    fn what_an_earlier_life_has_told_goes_once_this_node_serves() {
        let store = formed();
        let table = store.member_table();
        let addresses = addresses("h:2");
        assert!(addresses.note(2, told("wrong:2", 5)));
        addresses.tidy(table, |_| 6);
        assert_eq!(
            n2(&addresses).0.addr,
            "wrong:2",
            "the table may be an old one"
        );
        addresses.trust_table();
        addresses.tidy(table, |_| 5);
        assert_eq!(n2(&addresses).0.addr, "wrong:2");
        addresses.tidy(table, |_| 6);
        assert_eq!(n2(&addresses).0.addr, "h:2");
        assert_eq!(addresses.moved(table), []);
    }

    #[test]
    fn what_is_told_again_undoes_nothing() {
        let addresses = addresses("h:2");
        assert!(addresses.note(2, told("wrong:2", 5)));
        assert_eq!(turns(&addresses, 1), ["wrong:2"]);
        assert!(!addresses.note(2, told("wrong:2", 5)));
        assert_eq!(n2(&addresses).0.addr, "h:2");
    }
}
