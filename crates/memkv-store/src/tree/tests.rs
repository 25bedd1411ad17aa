//! The tree beside plain vectors and maps, under random changes, with copies that must not change.

use std::collections::BTreeSet;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::node::{MAX_CHILDREN, Node};
use super::*;

#[derive(Debug)]
struct Plain;
impl Shape for Plain {
    type Key = ();
}

/// Few sort keys, so that names decide often.
#[derive(Debug)]
struct Sorted;
impl Shape for Sorted {
    type Key = u32;
}

#[derive(Debug)]
struct Numbers;
impl Shape for Numbers {
    type Key = (u32, u64);
    const HAS_CONTENT: bool = false;
}

impl<S: Shape> Tree<S> {
    /// Panics where an invariant does not hold; returns the weight of all leaves and their number.
    fn check(&self) -> (usize, usize) {
        let mut leaves = (0, 0);
        let sums = check(&self.root, true, &mut leaves);
        assert_eq!(sums.1, (self.len, self.content_bytes));
        leaves
    }
}

/// Depth and sums of a node.
fn check<S: Shape>(
    node: &Node<S>,
    is_root: bool,
    leaves: &mut (usize, usize),
) -> (usize, (u64, u64)) {
    match node {
        Node::Leaf(leaf) => {
            assert!(is_root || leaf.len() > 0, "an empty leaf");
            assert!(leaf.weight() <= leaf::MAX_WEIGHT, "{}", leaf.weight());
            *leaves = (leaves.0 + leaf.memory_bytes(), leaves.1 + 1);
            (0, node.sums())
        }
        Node::Inner(inner) => {
            let children = inner.children.len();
            assert!((1 + usize::from(is_root)..=MAX_CHILDREN).contains(&children));
            let below = inner.children.iter().map(|child| {
                let (depth, sums) = check(&child.node, false, leaves);
                assert_eq!(sums, (child.len, child.node.sums().1));
                depth
            });
            let depths: BTreeSet<usize> = below.collect();
            assert_eq!(depths.len(), 1, "leaves at different depths");
            (depths.first().map_or(0, |it| it + 1), node.sums())
        }
    }
}

fn contents<S: Shape>(tree: &Tree<S>) -> Vec<Vec<u8>> {
    let all = tree.walk(0).map(|item| item.content().to_vec());
    let all: Vec<_> = all.collect();
    let mut back: Vec<_> = tree
        .walk_back(u64::MAX)
        .map(|it| it.content().to_vec())
        .collect();
    back.reverse();
    assert_eq!(all, back);
    all
}

#[derive(Debug, Clone)]
enum Change {
    Insert(u16, Vec<u8>),
    Replace(u16, Vec<u8>),
    Remove(u16),
    /// So many from a position on.
    RemoveMany(u16, u8),
    /// The part before or behind a position goes.
    Cut(u16, bool),
    Append(u8, Vec<u8>),
    Prepend(u8, Vec<u8>),
    Copy,
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![8 => 0..24_usize, 2 => 200..300_usize, 1 => 1000..3000_usize];
    (len, any::<u8>()).prop_map(|(len, byte)| vec![byte; len])
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = prop_oneof![
        12 => (any::<u16>(), content()).prop_map(|(at, it)| Change::Insert(at, it)),
        4 => (any::<u16>(), content()).prop_map(|(at, it)| Change::Replace(at, it)),
        4 => any::<u16>().prop_map(Change::Remove),
        3 => (any::<u16>(), any::<u8>()).prop_map(|(at, n)| Change::RemoveMany(at, n)),
        1 => (any::<u16>(), any::<bool>()).prop_map(|(at, it)| Change::Cut(at, it)),
        3 => (any::<u8>(), content()).prop_map(|(n, it)| Change::Append(n, it)),
        3 => (any::<u8>(), content()).prop_map(|(n, it)| Change::Prepend(n, it)),
        1 => Just(Change::Copy),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]

    #[test]
    fn a_tree_by_position_is_a_vector(changes in changes()) {
        let (mut tree, mut model) = (Tree::<Plain>::default(), Vec::<Vec<u8>>::new());
        let mut copies = Vec::new();
        for change in changes {
            let at = |at: u16, len: usize| usize::from(at) % len.max(1);
            match change {
                Change::Insert(to, it) => {
                    let to = at(to, model.len() + 1);
                    tree.insert_at(to as u64, &it);
                    model.insert(to, it);
                }
                Change::Replace(to, it) if !model.is_empty() => {
                    let to = at(to, model.len());
                    tree.replace(to as u64, (), &it);
                    model[to] = it;
                }
                Change::Remove(from) if !model.is_empty() => {
                    let from = at(from, model.len());
                    tree.remove(from as u64);
                    model.remove(from);
                }
                Change::RemoveMany(from, n) => {
                    let from = at(from, model.len());
                    let n = usize::from(n).min(model.len() - from.min(model.len()));
                    (0..n).for_each(|_| tree.remove(from as u64));
                    model.drain(from..from + n);
                }
                Change::Cut(from, keeps_left) => {
                    let from = at(from, model.len() + 1);
                    let right = tree.split_off(from as u64);
                    let rest = model.split_off(from);
                    prop_assert_eq!(contents(&right), rest.clone());
                    right.check();
                    if !keeps_left {
                        (tree, model) = (right, rest);
                    }
                }
                Change::Append(n, it) => (0..n).for_each(|_| {
                    tree.insert_at(u64::MAX, &it);
                    model.push(it.clone());
                }),
                Change::Prepend(n, it) => {
                    (0..n).for_each(|_| tree.insert_at(0, &it));
                    model.splice(0..0, (0..n).map(|_| it.clone()));
                }
                Change::Copy => copies.push((tree.clone(), model.clone())),
                Change::Replace(..) | Change::Remove(_) => {}
            }
            tree.check();
            prop_assert_eq!(tree.len(), model.len() as u64);
        }
        copies.push((tree, model));
        for (tree, model) in copies {
            prop_assert_eq!(tree.content_bytes(), model.concat().len() as u64);
            for (at, it) in model.iter().enumerate() {
                prop_assert_eq!(tree.get(at as u64).map(|it| it.content().to_vec()), Some(it.clone()));
            }
            prop_assert!(tree.get(tree.len()).is_none());
            let from = tree.len() / 3;
            let walked: Vec<_> = tree.walk(from).map(|it| it.to_bytes().to_vec()).collect();
            prop_assert_eq!(&walked[..], &model[from as usize..]);
            prop_assert_eq!(contents(&tree), model);
        }
    }

    #[test]
    fn a_sorted_tree_is_a_sorted_set(steps in prop::collection::vec((0..4u32, 0..900u32, any::<bool>()), 1..1500)) {
        let (mut tree, mut model) = (Tree::<Sorted>::default(), BTreeSet::new());
        for (key, number, inserts) in steps {
            // Names of one length and of others, which begin alike.
            let name = format!("name-{}", "0".repeat((number % 7) as usize) + &number.to_string());
            match (tree.find(key, name.as_bytes()), inserts) {
                (Ok((at, found)), false) => {
                    prop_assert_eq!(found.content(), name.as_bytes());
                    prop_assert!(model.remove(&(key, name)));
                    tree.remove(at);
                }
                (Ok(_), true) => prop_assert!(model.contains(&(key, name))),
                (Err(at), _) => {
                    prop_assert!(!model.contains(&(key, name.clone())));
                    prop_assert_eq!(at, model.range(..(key, name.clone())).count() as u64);
                    if inserts {
                        tree.insert(key, name.as_bytes());
                        model.insert((key, name));
                    }
                }
            }
        }
        tree.check();
        let items: Vec<_> = tree.walk(0).map(|it| (it.key, String::from_utf8_lossy(it.content()).into_owned())).collect();
        prop_assert_eq!(items, model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn sort_keys_without_contents_may_be_equal(numbers in prop::collection::vec((0..40u32, 0..5u64), 1..2000)) {
        let mut tree = Tree::<Numbers>::default();
        for (tag, number) in &numbers {
            tree.insert((*tag, *number), &[]);
        }
        let mut model = numbers;
        model.sort_unstable();
        tree.check();
        for tag in 0..40 {
            let from = tree.find((tag, 0), &[]).map_or_else(|at| at, |(at, _)| at);
            let from_model = model.partition_point(|it| it.0 < tag) as u64;
            prop_assert!(from >= from_model && from <= from_model + model.iter().filter(|it| **it == (tag, 0)).count() as u64);
        }
        prop_assert_eq!(tree.walk(0).map(|it| it.key).collect::<Vec<_>>(), model);
    }
}

/// Bytes of memory for each item, inner nodes left out: they are a thirtieth.
fn bytes_each<S: Shape>(tree: &Tree<S>) -> f64 {
    let (bytes, _) = tree.check();
    bytes as f64 / tree.len() as f64
}

const MANY: u64 = if cfg!(miri) { 300 } else { 100_000 };

#[test]
fn items_take_little_more_memory_than_their_bytes() {
    let content = |n: u64| format!("{n:010}");
    let (mut list, mut front) = (Tree::<Plain>::default(), Tree::<Plain>::default());
    let mut set = Tree::<Sorted>::default();
    for n in 0..MANY {
        list.insert_at(u64::MAX, content(n).as_bytes());
        front.insert_at(0, content(n).as_bytes());
        set.insert(xxh3_64(&n.to_le_bytes()) as u32, content(n).as_bytes());
    }
    assert!(bytes_each(&list) < 13.5, "{}", bytes_each(&list));
    assert!(bytes_each(&front) < 13.5, "{}", bytes_each(&front));
    // Filled at random, a leaf is full by 69 % on average.
    assert!(bytes_each(&set) < 27.0, "{}", bytes_each(&set));
    // One in two goes, then all of one half.
    for n in (0..MANY).step_by(2) {
        let key = xxh3_64(&n.to_le_bytes()) as u32;
        if let Ok((at, _)) = set.find(key, content(n).as_bytes()) {
            set.remove(at);
        }
        list.remove(n / 2);
    }
    assert_eq!((set.len(), list.len()), (MANY / 2, MANY / 2));
    assert!(bytes_each(&list) < 30.0, "{}", bytes_each(&list));
    assert!(bytes_each(&set) < 40.0, "{}", bytes_each(&set));
}

/// Items that always come at the same place leave no nodes behind that hold next to nothing.
#[test]
fn no_order_of_insertions_fills_leaves_badly() {
    let name = |n: u64| format!("{n:010}");
    type Order = fn(u64) -> u64;
    let orders: [(&str, Order); 4] = [
        ("ascending", |n| MANY + n),
        ("descending", |n| MANY - n),
        ("descending towards the middle", |n| {
            if n < 1000 { n } else { 2 * MANY - n }
        }),
        ("ascending towards the middle", |n| {
            if n < 1000 { 2 * MANY + n } else { n }
        }),
    ];
    for (order, at) in orders {
        let mut tree = Tree::<Sorted>::default();
        (0..MANY).for_each(|n| tree.insert(7, name(at(n)).as_bytes()));
        assert_eq!(tree.len(), MANY);
        let each = bytes_each(&tree);
        assert!(each < 35.0, "{order}: {each}");
    }
}

#[test]
fn a_copy_shares_what_was_not_changed_since() {
    let mut tree = Tree::<Plain>::default();
    (0..MANY).for_each(|n| tree.insert_at(u64::MAX, &n.to_le_bytes()));
    let copy = tree.clone();
    tree.insert_at(MANY / 2, b"new");
    let shared = shared(&tree.root, &copy.root);
    let (_, leaves) = tree.check();
    assert!(shared.0 + 4 > leaves, "{shared:?} of {leaves}");
    assert_eq!(copy.len(), MANY);
}

/// Leaves of both, of one node and another at its place.
fn shared<S: Shape>(one: &Arc<Node<S>>, other: &Arc<Node<S>>) -> (usize,) {
    fn leaves<S: Shape>(node: &Arc<Node<S>>, found: &mut BTreeSet<usize>) {
        match &**node {
            Node::Leaf(_) => {
                found.insert(Arc::as_ptr(node) as usize);
            }
            Node::Inner(inner) => inner.children.iter().for_each(|it| leaves(&it.node, found)),
        }
    }
    let (mut these, mut those) = (BTreeSet::new(), BTreeSet::new());
    leaves(one, &mut these);
    leaves(other, &mut those);
    (these.intersection(&those).count(),)
}
