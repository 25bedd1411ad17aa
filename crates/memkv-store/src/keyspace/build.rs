//! Builds the ordered index of a database that was loaded without it, in pieces that can be worked
//! on at the same time. It starts no thread: the caller of the loader runs the pieces.
//!
//! Keys are sorted by their first bytes behind the prefix that most of them share, as numbers, and by the
//! whole key only where these are equal. The result does not depend on how the pieces are run.

use super::database::Table;
use super::leaf::common;
use super::order::Order;
use super::records::Number;
use super::shard::Shard;

/// A piece of the work of loading; see [`Loader::finish_with`](crate::Loader::finish_with).
pub type Work<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs pieces of work, in any order, and returns when all are done.
pub(crate) type Runner<'r> = &'r dyn for<'a> Fn(Vec<Work<'a>>);

/// Pieces that a database is cut into: some for each of the threads of a small machine, as pieces
/// differ in size.
const PIECES: usize = 8;

/// Keys below which a database is one piece: its index is built in some milliseconds.
const SMALL: usize = 32 * 1024;

/// One key in this many is sampled to cut the keys into pieces.
const SAMPLED: usize = 256;

/// The first bytes of a key behind the common ones, as numbers in the order of the keys.
type First = [u64; 2];

/// A key as it is sorted: with its number and its hash.
type Item = (First, Number, u32);

pub(super) fn build(table: &Table, len: usize, run: Runner<'_>) -> Order {
    let pieces = if len < SMALL { 1 } else { PIECES };
    let prefix = table.common_prefix();
    let mut collected = vec![Vec::new(); pieces];
    let shards = table.shards().len();
    let collecting = collected.iter_mut().enumerate().map(|(piece, out)| {
        let shards = piece * shards / pieces..(piece + 1) * shards / pieces;
        Box::new(move || *out = table.items(shards, prefix)) as Work<'_>
    });
    run(collecting.collect());
    let mut bounds: Vec<First> = collected
        .iter()
        .flatten()
        .step_by(SAMPLED)
        .map(|item| item.0)
        .collect();
    bounds.sort_unstable();
    let bound = |piece: usize| bounds.get(piece * bounds.len() / pieces).copied();
    let mut built = Vec::new();
    built.resize_with(pieces, Vec::new);
    let building = built.iter_mut().enumerate().map(|(piece, out)| {
        let from = bound(piece).filter(|_| piece > 0);
        let to = bound(piece + 1).filter(|_| piece + 1 < pieces);
        let is_here = move |item: &&Item| {
            from.is_none_or(|from| item.0 >= from) && to.is_none_or(|to| item.0 < to)
        };
        let collected = &collected;
        Box::new(move || {
            let mut items: Vec<Item> = collected
                .iter()
                .flatten()
                .filter(is_here)
                .copied()
                .collect();
            items.sort_unstable_by(|one, other| {
                let first = one.0.cmp(&other.0);
                first.then_with(|| table.key(one.1).cmp(table.key(other.1)))
            });
            let keys = items
                .iter()
                .map(|(_, number, hash)| (table.key(*number), *hash));
            *out = Order::leaves(keys);
        }) as Work<'_>
    });
    run(building.collect());
    Order::of(built.into_iter().flatten().collect())
}

impl Table {
    /// The common prefix of one key of each shard: most likely that of all keys.
    fn common_prefix(&self) -> &[u8] {
        let sample = self.shards().iter().filter_map(|shard| shard.iter().next());
        let mut sample = sample.map(|number| self.key(number));
        let first = sample.next().unwrap_or_default();
        let common = sample.fold(first.len(), |len, key| common(&first[..len], key));
        &first[..common]
    }

    fn items(&self, shards: std::ops::Range<usize>, prefix: &[u8]) -> Vec<Item> {
        let numbers = self.shards()[shards].iter().flat_map(Shard::iter);
        let items = numbers.map(|number| {
            let key = self.key(number);
            (first(key, prefix), number, self.location(key).hash())
        });
        items.collect()
    }
}

/// A key without the prefix is below or above all that have it, or is compared by itself.
fn first(key: &[u8], prefix: &[u8]) -> First {
    let Some(rest) = key.strip_prefix(prefix) else {
        return if key < prefix { [0; 2] } else { [u64::MAX; 2] };
    };
    let mut bytes = rest.iter().chain(std::iter::repeat(&0));
    [(); 2].map(|()| {
        let number = bytes.by_ref().take(size_of::<u64>());
        number.fold(0, |number, byte| number << 8 | u64::from(*byte))
    })
}

/// Runs one piece after the other.
pub(crate) fn in_turn(work: Vec<Work<'_>>) {
    work.into_iter().for_each(|piece| piece());
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use crate::keyspace::build::{Work, in_turn};
    use crate::keyspace::database::Database;
    use crate::keyspace::entry::Record;

    #[test]
    fn an_index_built_in_pieces_in_any_order_has_all_keys_in_order() {
        // Long common beginnings, keys that lack them on both sides, zeros at the end.
        let mut keys: Vec<Vec<u8>> = (0..60_000u32)
            .map(|n| {
                format!(
                    "a long common beginning {:05}",
                    n.wrapping_mul(7919) % 60_000
                )
                .into_bytes()
            })
            .collect();
        keys.extend(
            [
                &b""[..],
                b"a",
                b"z",
                b"\xff\xff",
                b"a long common beginning ",
            ]
            .map(<[u8]>::to_vec),
        );
        keys.extend((1..9).map(|len| vec![0; len]));
        let backwards = |work: Vec<Work<'_>>| work.into_iter().rev().for_each(|piece| piece());
        let runs: [super::Runner<'_>; 2] = [&in_turn, &backwards];
        for run in runs {
            let mut database = Database::new(3);
            for key in &keys {
                let record = Record {
                    parts: &[key],
                    key_len: key.len(),
                    deadline_ms: None,
                    shared: None,
                };
                let location = database.location(key);
                database.insert_unordered(location, &record, &record.numbers(1, 1));
            }
            database.build_order(run);
            let found: Vec<&[u8]> = database
                .between(&[], Bound::Unbounded)
                .map(|entry| entry.key())
                .collect();
            let mut wanted = keys.clone();
            wanted.sort_unstable();
            assert_eq!(found, wanted);
        }
    }
}
