//! Collections beside plain ones, under random changes, through the packed form and back.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SEED: u64 = 7;

/// Checks a collection against itself through its packed form.
fn check(all: &Collection) {
    let Some(packed) = all.pack() else {
        assert!(all.len() > 20 || all.bytes() > 200, "small: {all:?}");
        return;
    };
    assert!(packed.len() <= MAX_PACKED_BYTES && all.len() <= MAX_PACKED_ITEMS);
    assert_eq!(packed::packed_sums(&packed), (all.len(), all.bytes()));
    let again = Collection::unpack(all.kind(), SEED, &packed);
    assert_eq!(again.pack().as_ref(), Some(&packed));
    assert_eq!(
        (again.cost(), again.encoding()),
        (all.cost(), all.encoding())
    );
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0..60u32).prop_map(|n| n.to_string().into_bytes()),
        4 => (0..40u32).prop_map(|n| format!("name:{n}").into_bytes()),
        1 => (60..70usize, 0..2u8).prop_map(|(len, n)| vec![b'a' + n; len]),
        1 => (250..300usize, 0..2u8).prop_map(|(len, n)| vec![b'a' + n; len]),
        1 => Just(Vec::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 150 }))]

    #[test]
    fn a_set_is_a_set(steps in prop::collection::vec((names(), any::<bool>()), 1..400)) {
        let (mut set, mut model) = (Set::new(SEED), BTreeSet::new());
        for (member, inserts) in steps {
            prop_assert_eq!(set.contains(&member), model.contains(&member));
            match inserts {
                true => prop_assert_eq!(set.insert(&member), model.insert(member)),
                false => prop_assert_eq!(set.remove(&member), model.remove(&member)),
            }
        }
        prop_assert_eq!(set.bytes(), model.iter().map(|it| it.len() as u64).sum::<u64>());
        prop_assert_eq!(set.is_of_integers(), model.iter().all(|it| is_integer(it)));
        let found: BTreeSet<Vec<u8>> = set.walk(0).map(|it| it.content().to_vec()).collect();
        prop_assert_eq!(&found, &model);
        // A scan that goes on behind each hash sees every member once.
        let (mut scanned, mut from) = (Vec::new(), Some(0));
        while let Some(next) = from.and_then(|from| set.scan(from).next().map(|it| it.key)) {
            scanned.extend(set.scan(next).take_while(|it| it.key == next).map(|it| it.content().to_vec()));
            from = next.checked_add(1);
        }
        prop_assert_eq!(scanned.len(), model.len());
        check(&Collection::Set(set));
    }

    #[test]
    fn a_hash_is_a_map(steps in prop::collection::vec((names(), prop::option::of(names())), 1..400)) {
        let (mut hash, mut model) = (Hash::new(SEED), BTreeMap::new());
        for (field, value) in steps {
            let found = hash.get(&field).map(|it| it.value_bytes().to_vec());
            prop_assert_eq!(found, model.get(&field).cloned());
            match value {
                Some(value) => {
                    prop_assert_eq!(hash.insert(&field, &value), model.insert(field, value).is_none());
                }
                None => prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some()),
            }
        }
        let found = hash.walk(0).map(|it| (it.name().to_vec(), it.value().to_vec()));
        prop_assert_eq!(&found.collect::<BTreeMap<_, _>>(), &model);
        prop_assert_eq!(hash.len(), model.len() as u64);
        let parts = || model.iter().flat_map(|(field, value)| [field, value]);
        prop_assert_eq!(hash.bytes(), parts().map(|it| it.len() as u64).sum::<u64>());
        prop_assert_eq!(hash.has_long(), parts().any(|it| it.len() > 64));
        check(&Collection::Hash(hash));
    }

    #[test]
    fn a_sorted_set_is_sorted(steps in prop::collection::vec((names(), prop::option::of(-3..4i8)), 1..500)) {
        // The few scores are in the order of the numbers.
        const SCORES: [f64; 7] = [f64::NEG_INFINITY, -2.5, -1e-300, 0.0, 1.0, 2.0, f64::INFINITY];
        let score_of = |n: i8| SCORES[(n + 3) as usize];
        let (mut set, mut model) = (SortedSet::new(SEED), BTreeMap::<Vec<u8>, i8>::new());
        for (member, score) in steps {
            prop_assert_eq!(set.score(&member), model.get(&member).map(|n| score_of(*n)));
            let old = match score {
                Some(n) => {
                    let score = if n == 0 { -0.0 } else { score_of(n) };
                    let old = model.insert(member.clone(), n);
                    prop_assert_eq!(set.insert(&member, score), old.map(score_of));
                    old
                }
                None => {
                    let old = model.remove(&member);
                    prop_assert_eq!(set.remove(&member), old.map(score_of));
                    old
                }
            };
            prop_assert!(old.is_some() || set.len() as usize == model.len());
        }
        let mut sorted: Vec<(i8, Vec<u8>)> = model.into_iter().map(|(it, n)| (n, it)).collect();
        sorted.sort();
        let all: Vec<_> = set.walk(0).map(|it| (it.score(), it.member().to_vec())).collect();
        let wanted: Vec<_> = sorted.iter().map(|(n, it)| (score_of(*n), it.clone())).collect();
        prop_assert_eq!(&all, &wanted);
        let mut back: Vec<_> = set.walk_back(u64::MAX).map(|it| (it.score(), it.member().to_vec())).collect();
        back.reverse();
        prop_assert_eq!(back, wanted);
        for (rank, (_, member)) in sorted.iter().enumerate() {
            prop_assert_eq!(set.rank(member), Some(rank as u64));
        }
        for from in -3..4 {
            for to in -3..4 {
                let below = |n: i8| sorted.partition_point(|it| it.0 < n) as u64;
                let with = set.ranks_of_scores(Bound::With(score_of(from)), Bound::With(score_of(to)));
                prop_assert_eq!(with, below(from)..below(to + 1).max(below(from)));
                let without = set.ranks_of_scores(Bound::Without(score_of(from)), Bound::Without(score_of(to)));
                prop_assert_eq!(without, below(from + 1)..below(to).max(below(from + 1)));
            }
        }
        prop_assert_eq!(set.ranks_of_scores(Bound::Open, Bound::Open), 0..set.len());
        check(&Collection::SortedSet(set));
    }

    #[test]
    fn names_of_one_score_have_ranges(all in prop::collection::btree_set(names(), 0..80), from in names(), to in names()) {
        let mut set = SortedSet::new(SEED);
        all.iter().for_each(|it| { set.insert(it, 1.5); });
        let sorted: Vec<_> = all.into_iter().collect();
        let below = |name: &[u8]| sorted.partition_point(|it| &it[..] < name) as u64;
        let through = |name: &[u8]| sorted.partition_point(|it| &it[..] <= name) as u64;
        prop_assert_eq!(set.ranks_of_names(Bound::Open, Bound::Open), 0..set.len());
        let with = set.ranks_of_names(Bound::With(&from), Bound::With(&to));
        prop_assert_eq!(with, below(&from)..through(&to).max(below(&from)));
        let without = set.ranks_of_names(Bound::Without(&from), Bound::Without(&to));
        prop_assert_eq!(without, through(&from)..below(&to).max(through(&from)));
    }

    #[test]
    fn what_is_kept_of_a_list_is_its_middle(len in 0..3000u64, from in 0..3000u64, to in 0..3000u64) {
        let mut list = List::default();
        (0..len).for_each(|n| list.push_back(n.to_string().as_bytes()));
        let (from, to) = (from.min(len), to.min(len));
        let [before, behind] = list.keep(from.min(to), to);
        let numbers = |list: &List| list.walk(0).map(|it| String::from_utf8_lossy(it.content()).parse().unwrap()).collect::<Vec<u64>>();
        prop_assert_eq!(numbers(&before), (0..from.min(to)).collect::<Vec<_>>());
        prop_assert_eq!(numbers(&list), (from.min(to)..to).collect::<Vec<_>>());
        prop_assert_eq!(numbers(&behind), (to..len).collect::<Vec<_>>());
        check(&Collection::List(list));
    }
}

#[test]
fn only_the_shortest_text_of_an_integer_is_one() {
    let integers = ["0", "-1", "9223372036854775807", "-9223372036854775808"];
    let texts = [
        "",
        "-0",
        "+1",
        "01",
        " 1",
        "1.0",
        "9223372036854775808",
        "abc",
    ];
    assert!(integers.iter().all(|it| is_integer(it.as_bytes())));
    assert!(!texts.iter().any(|it| is_integer(it.as_bytes())));
}

#[test]
fn encodings_are_those_of_redis() {
    let mut set = Set::new(SEED);
    (0..512).for_each(|n| assert!(set.insert(n.to_string().as_bytes())));
    assert_eq!(Collection::Set(set.clone()).encoding(), "intset");
    set.insert(b"512");
    assert_eq!(Collection::Set(set.clone()).encoding(), "hashtable");
    set.remove(b"7");
    assert_eq!(Collection::Set(set).encoding(), "intset");
    let mut hash = Hash::new(SEED);
    hash.insert(b"field", &[b'v'; 64]);
    assert_eq!(Collection::Hash(hash.clone()).encoding(), "listpack");
    hash.insert(b"field", &[b'v'; 65]);
    assert_eq!(Collection::Hash(hash.clone()).encoding(), "hashtable");
    hash.insert(b"field", b"short");
    assert_eq!(Collection::Hash(hash).encoding(), "listpack");
    let mut sorted = SortedSet::new(SEED);
    (0..129).for_each(|n| {
        sorted.insert(n.to_string().as_bytes(), f64::from(n));
    });
    assert_eq!(Collection::SortedSet(sorted.clone()).encoding(), "skiplist");
    sorted.remove(b"7");
    assert_eq!(Collection::SortedSet(sorted).encoding(), "listpack");
}

#[test]
fn numbers_keep_the_order_of_scores() {
    let scores = [
        f64::NEG_INFINITY,
        -1e308,
        -1.0,
        -f64::MIN_POSITIVE,
        0.0,
        f64::MIN_POSITIVE,
        1.0,
        f64::INFINITY,
    ];
    let mut set = SortedSet::new(SEED);
    for (n, score) in scores.iter().enumerate().rev() {
        set.insert(n.to_string().as_bytes(), *score);
    }
    let found: Vec<f64> = set.walk(0).map(|it| it.score()).collect();
    assert_eq!(found, scores);
    set.insert(b"zero", -0.0);
    assert_eq!(set.score(b"zero").map(f64::to_bits), Some(0));
}
