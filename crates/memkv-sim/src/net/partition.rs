//! Shapes of partitions: which node reaches which, as directed links.
//! Never draws anything by itself except from the rng that it is given.

use memkv_node::Lane;

use crate::rng::Rng;

/// Which directed links are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuts {
    nodes: usize,
    cut: Vec<bool>,
    lanes: Lanes,
}

/// Which lanes the cuts stop: each is a connection of its own, and one may get through while the
/// others wait for their next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lanes {
    All,
    AllBut(Lane),
    Only(Lane),
}

impl Cuts {
    /// No link is cut.
    pub fn none(nodes: usize) -> Self {
        Self {
            nodes,
            cut: vec![false; nodes * nodes],
            lanes: Lanes::All,
        }
    }

    /// The same cuts, but for one lane.
    #[must_use]
    pub fn sparing(mut self, lane: Lane) -> Self {
        self.lanes = Lanes::AllBut(lane);
        self
    }

    /// The same cuts, of one lane only.
    #[must_use]
    pub fn only(mut self, lane: Lane) -> Self {
        self.lanes = Lanes::Only(lane);
        self
    }

    /// Whether what `from` sends on a lane does not arrive at `to`.
    pub fn stops(&self, from: usize, to: usize, lane: Lane) -> bool {
        let is_concerned = match self.lanes {
            Lanes::All => true,
            Lanes::AllBut(spared) => spared != lane,
            Lanes::Only(cut) => cut == lane,
        };
        is_concerned && self.is_cut(from, to)
    }

    /// Whether the link that leads from `from` to `to` is cut.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        from != to && self.cut[from * self.nodes + to]
    }

    /// Cuts or heals one directed link.
    pub fn set(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.nodes + to] = cut;
    }

    /// Cuts a link in both directions.
    pub fn cut_both(&mut self, a: usize, b: usize) {
        self.set(a, b, true);
        self.set(b, a, true);
    }
}

/// A shape of partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Two groups, nothing between them.
    Symmetric,
    /// Two groups; only one direction is cut.
    Asymmetric,
    /// Two groups that share exactly one node: reachability is not transitive.
    Bridge,
    /// Each node reaches its two neighbours on a ring.
    Ring,
    /// One node alone.
    Isolated,
    /// One node that receives from all and reaches none.
    Mute,
    /// One node that reaches all and receives from none.
    Deaf,
    /// Every link is cut or not as a coin falls.
    Random,
}

impl Topology {
    /// All shapes.
    pub const ALL: [Topology; 8] = [
        Topology::Symmetric,
        Topology::Asymmetric,
        Topology::Bridge,
        Topology::Ring,
        Topology::Isolated,
        Topology::Mute,
        Topology::Deaf,
        Topology::Random,
    ];

    /// Name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Topology::Symmetric => "partition symmetric",
            Topology::Asymmetric => "partition asymmetric",
            Topology::Bridge => "partition bridge",
            Topology::Ring => "partition ring",
            Topology::Isolated => "partition isolated",
            Topology::Mute => "partition mute",
            Topology::Deaf => "partition deaf",
            Topology::Random => "partition random",
        }
    }

    /// Draws the cuts of this shape; `victim` is the node of the shapes that have one.
    pub fn draw(self, nodes: usize, victim: usize, rng: &Rng) -> Cuts {
        let mut cuts = Cuts::none(nodes);
        let others = || (0..nodes).filter(move |node| *node != victim);
        match self {
            Topology::Symmetric | Topology::Asymmetric => {
                let left = halves(nodes, rng);
                for (a, b) in pairs(nodes).filter(|(a, b)| left[*a] && !left[*b]) {
                    cuts.set(a, b, true);
                    cuts.set(b, a, self == Topology::Symmetric);
                }
            }
            Topology::Bridge => {
                let left = halves(nodes, rng);
                let apart = |a: usize, b: usize| left[a] != left[b] && a != victim && b != victim;
                pairs(nodes)
                    .filter(|(a, b)| apart(*a, *b))
                    .for_each(|(a, b)| cuts.cut_both(a, b));
            }
            Topology::Ring => {
                let gap = |a: usize, b: usize| a.abs_diff(b).min(nodes - a.abs_diff(b));
                pairs(nodes)
                    .filter(|(a, b)| gap(*a, *b) > 1)
                    .for_each(|(a, b)| cuts.cut_both(a, b));
            }
            Topology::Isolated => others().for_each(|other| cuts.cut_both(victim, other)),
            Topology::Mute => others().for_each(|other| cuts.set(victim, other, true)),
            Topology::Deaf => others().for_each(|other| cuts.set(other, victim, true)),
            Topology::Random => pairs(nodes).for_each(|(a, b)| cuts.set(a, b, rng.coin())),
        }
        cuts
    }
}

/// All ordered pairs of different nodes.
fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (0..nodes).filter(move |b| a != *b).map(move |b| (a, b)))
}

/// Which nodes are on the left; neither side is empty if there are two nodes or more.
fn halves(nodes: usize, rng: &Rng) -> Vec<bool> {
    let mut left: Vec<bool> = (0..nodes).map(|_| rng.coin()).collect();
    let (first, second) = (rng.index(nodes), rng.index(nodes.saturating_sub(1).max(1)));
    left[first] = true;
    if nodes > 1 {
        left[if second >= first { second + 1 } else { second }] = false;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(cuts: &Cuts) -> usize {
        pairs(cuts.nodes)
            .filter(|(a, b)| cuts.is_cut(*a, *b))
            .count()
    }

    #[test]
    fn shapes_cut_what_they_say() {
        let rng = Rng::new(1, "test");
        for nodes in 2..=5 {
            for victim in 0..nodes {
                let draw = |shape: Topology| shape.draw(nodes, victim, &rng);
                let halves = draw(Topology::Symmetric);
                assert!(pairs(nodes).all(|(a, b)| halves.is_cut(a, b) == halves.is_cut(b, a)));
                assert!(count(&halves) >= 2);
                let one_way = draw(Topology::Asymmetric);
                assert!(pairs(nodes).all(|(a, b)| !one_way.is_cut(a, b) || !one_way.is_cut(b, a)));
                assert!(count(&one_way) >= 1);
                let bridge = draw(Topology::Bridge);
                assert!((0..nodes).all(|b| !bridge.is_cut(victim, b) && !bridge.is_cut(b, victim)));
                assert_eq!(count(&draw(Topology::Isolated)), 2 * (nodes - 1));
                assert_eq!(count(&draw(Topology::Mute)), nodes - 1);
                assert!((0..nodes).all(|b| !draw(Topology::Mute).is_cut(b, victim)));
                assert!((0..nodes).all(|b| !draw(Topology::Deaf).is_cut(victim, b)));
            }
        }
        let spares = Topology::Isolated.draw(3, 0, &rng).sparing(Lane::Read);
        assert!(spares.stops(0, 1, Lane::Append) && !spares.stops(0, 1, Lane::Read));
        let only = Topology::Isolated.draw(3, 0, &rng).only(Lane::Append);
        assert!(only.stops(0, 1, Lane::Append) && !only.stops(0, 1, Lane::Control));
        assert_eq!(count(&Topology::Ring.draw(5, 0, &rng)), 10);
        assert_eq!(count(&Cuts::none(5)), 0);
    }
}
