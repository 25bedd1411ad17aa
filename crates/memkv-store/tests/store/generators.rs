//! Random commands, queries and guards, in a few databases of a few keys.

use bytes::Bytes;
use memkv_store::{Command, Compare, Condition, ExpireIf, Expiry, Guard, Query, SetIf, Step};
use proptest::prelude::*;

/// Few keys, so that they meet: no two of them share a slot of the table of deletes, or a guard
/// could fail without a reason that the reference knows.
pub(crate) fn key() -> impl Strategy<Value = Bytes> {
    (0u8..12).prop_map(|n| Bytes::from(vec![b'a' + n / 4; 1 + usize::from(n % 4)]))
}

pub(crate) fn database() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0u8), 2 => Just(1u8), 1 => Just(15u8)]
}

/// Integers, also at the edges, text that is none, and large values, which readers share.
pub(crate) fn value() -> impl Strategy<Value = Bytes> {
    let edges = [i64::MAX, i64::MIN, 0, 1, -1].map(|n| n.to_string());
    prop_oneof![
        4 => (-1000i64..1000).prop_map(|n| Bytes::from(n.to_string())),
        1 => prop::sample::select(edges.to_vec()).prop_map(Bytes::from),
        1 => prop::sample::select(vec!["", "01", "+", "x", " 1"]).prop_map(Bytes::from),
        1 => (4090usize..4100).prop_map(|len| Bytes::from(vec![b'v'; len])),
    ]
}

pub(crate) fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        2 => Just(Expiry::None),
        2 => Just(Expiry::Keep),
        6 => (-3i64..60).prop_map(|ms| Expiry::In { ms }),
        4 => (-3i64..300).prop_map(|ms| Expiry::At { ms }),
        1 => prop::sample::select(vec![i64::MAX, i64::MAX - 100, i64::MIN])
            .prop_map(|ms| Expiry::In { ms }),
        1 => prop::sample::select(vec![i64::MAX, i64::MIN]).prop_map(|ms| Expiry::At { ms }),
    ]
}

pub(crate) fn set_if() -> impl Strategy<Value = SetIf> {
    prop_oneof![
        2 => Just(SetIf::Always),
        1 => Just(SetIf::Absent),
        1 => Just(SetIf::Present),
        1 => value().prop_map(SetIf::Equal),
        1 => value().prop_map(SetIf::Differs),
    ]
}

pub(crate) fn expire_if() -> impl Strategy<Value = ExpireIf> {
    prop::sample::select(vec![
        ExpireIf::Always,
        ExpireIf::NoDeadline,
        ExpireIf::HasDeadline,
        ExpireIf::Later,
        ExpireIf::Sooner,
        ExpireIf::HasDeadlineSooner,
    ])
}

pub(crate) fn plain() -> impl Strategy<Value = Command> {
    let sets = prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Command::Set { key, value }),
        6 => (key(), value(), set_if(), expiry(), any::<bool>()).prop_map(
            |(key, value, condition, expiry, get)| Command::SetWith {
                key, value, condition, expiry, get,
            }
        ),
        1 => (prop::collection::vec((key(), value()), 0..4), any::<bool>()).prop_map(
            |(pairs, if_none_exists)| Command::SetMany { pairs, if_none_exists }
        ),
        1 => (key(), 0u64..40, value(), expiry()).prop_map(
            |(key, revision, value, expiry)| Command::CompareAndSet {
                key, revision, value, expiry,
            }
        ),
    ];
    let deletes = prop_oneof![
        2 => prop::collection::vec(key(), 0..3).prop_map(|keys| Command::Del { keys }),
        1 => (key(), set_if()).prop_map(|(key, condition)| Command::DelIf { key, condition }),
        1 => key().prop_map(|key| Command::GetDel { key }),
        1 => (key(), 0u64..40).prop_map(|(key, revision)| Command::DelRevision { key, revision }),
    ];
    let changes = prop_oneof![
        2 => (key(), prop_oneof![-5i64..5, Just(i64::MAX), Just(i64::MIN)])
            .prop_map(|(key, by)| Command::IncrBy { key, by }),
        2 => (key(), value()).prop_map(|(key, suffix)| Command::Append { key, suffix }),
        2 => (key(), prop_oneof![8 => 0u64..20, 1 => Just(u64::MAX)], value())
            .prop_map(|(key, offset, patch)| Command::SetRange { key, offset, patch }),
        2 => (key(), key(), any::<bool>()).prop_map(|(from, to, if_absent)| Command::Rename {
            from, to, if_absent,
        }),
        2 => (key(), key(), database(), any::<bool>()).prop_map(
            |(from, to, to_database, replace)| Command::Copy { from, to, to_database, replace }
        ),
    ];
    let times = prop_oneof![
        2 => (key(), expiry()).prop_map(|(key, expiry)| Command::GetEx { key, expiry }),
        4 => (key(), expiry(), expire_if()).prop_map(|(key, expiry, condition)| Command::Expire {
            key, expiry, condition,
        }),
        1 => (key(), -3000..3000i64).prop_map(|(key, by_ms)| Command::Prolong { key, by_ms }),
        1 => key().prop_map(|key| Command::Persist { key }),
    ];
    let others = prop_oneof![
        2 => Just(Command::Noop),
        2 => Just(Command::Tick),
        2 => Just(Command::FlushDatabase),
        1 => Just(Command::FlushAll),
        4 => prop::option::of(0u64..3_000).prop_map(|cap| Command::SetMemory { cap, policy: None }),
    ];
    prop_oneof![24 => sets, 8 => deletes, 12 => changes, 12 => times, 2 => others]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    (database(), plain()).prop_map(|(database, command)| command.in_database(database))
}

pub(crate) fn query() -> impl Strategy<Value = Query> {
    let keys = || prop::collection::vec(key(), 0..4);
    let plain = prop_oneof![
        key().prop_map(|key| Query::Get { key }),
        keys().prop_map(|keys| Query::GetMany { keys }),
        keys().prop_map(|keys| Query::Exists { keys }),
        key().prop_map(|key| Query::StrLen { key }),
        (key(), -9i64..9, -9i64..9).prop_map(|(key, start, end)| Query::GetRange {
            key,
            start,
            end
        }),
        (key(), any::<bool>(), any::<bool>()).prop_map(|(key, seconds, absolute)| Query::Ttl {
            key,
            seconds,
            absolute
        }),
        (key(), any::<bool>()).prop_map(|(key, value)| Query::Meta { key, value }),
        (key(), prop::option::of(key()), 0u64..6, any::<bool>()).prop_map(
            |(start, end, limit, keys_only)| Query::Range {
                start,
                end,
                limit,
                keys_only
            }
        ),
        (key(), prop::option::of(key()), 0u64..6, any::<bool>()).prop_map(
            |(prefix, after, limit, keys_only)| {
                Query::prefix(&prefix, after.as_deref(), limit, keys_only)
            }
        ),
        Just(Query::DbSize),
    ];
    (database(), plain).prop_map(|(database, query)| query.in_database(database))
}

pub(crate) fn guard() -> impl Strategy<Value = Guard> {
    let compare = || {
        prop::sample::select(vec![
            Compare::Equal,
            Compare::NotEqual,
            Compare::Less,
            Compare::Greater,
        ])
    };
    let condition = prop_oneof![
        any::<bool>().prop_map(Condition::Exists),
        any::<bool>().prop_map(Condition::HasDeadline),
        (compare(), value()).prop_map(|(how, value)| Condition::Value(how, value)),
        (compare(), 0u64..40).prop_map(|(how, at)| Condition::ModRevision(how, at)),
        (compare(), 0u64..40).prop_map(|(how, at)| Condition::CreateRevision(how, at)),
    ];
    (database(), key(), condition).prop_map(|(database, key, holds)| Guard {
        database,
        key,
        holds,
    })
}

pub(crate) fn operations() -> impl Strategy<Value = Vec<Step>> {
    let operation = prop_oneof![
        2 => command().prop_map(Step::Write),
        1 => query().prop_map(Step::Read),
    ];
    prop::collection::vec(operation, 0..5)
}
