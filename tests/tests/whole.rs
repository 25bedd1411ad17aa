//! A command of many keys is seen whole or not at all, although it is executed in pieces: by reads of many
//! keys, which look in pieces themselves, and by short ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use memkv_black_box::{Cluster, Resp};

/// Some tens of pieces.
const KEYS: usize = 30_000;
/// States that must have been seen.
const STATES: usize = 12;

/// Ends the writer, also where the reader's thread panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn reads_see_commands_of_many_keys_whole() {
    let cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.clone();
    let keys: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Resp::connect(&addr).unwrap();
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let value = round.to_string();
                let mut command = vec!["MSET"];
                command.extend(keys.iter().flat_map(|key| [key.as_str(), &value]));
                assert!(!writer.call(&command).unwrap().is_error());
                if round % 4 == 3 {
                    let mut command = vec!["DEL"];
                    command.extend(keys.iter().map(String::as_str));
                    assert!(!writer.call(&command).unwrap().is_error());
                }
            }
        });
        let _end = End(&done);
        let mut reader = Resp::connect(&addr).unwrap();
        let mut states = BTreeSet::new();
        let mut mget = vec!["MGET"];
        mget.extend(keys.iter().map(String::as_str));
        let mut exists = vec!["EXISTS"];
        exists.extend(keys.iter().map(String::as_str));
        while states.len() < STATES {
            let found = reader.call(&mget).unwrap();
            assert_eq!(found.items.len(), KEYS);
            let first = &found.items[0];
            let other = found.items.iter().find(|item| *item != first);
            assert!(other.is_none(), "{first} beside {other:?}");
            states.insert(first.text().to_vec());
            // So does one that looks at few of them, in the midst of a command.
            let (first, last) = (&keys[0], &keys[KEYS - 1]);
            for _ in 0..100 {
                let found = reader.call(&["MGET", first, last]).unwrap();
                assert_eq!(found.items[0], found.items[1]);
            }
            // Two reads of one transaction see one state, too.
            for command in [&["MULTI"][..], &mget, &exists] {
                assert!(!reader.call(command).unwrap().is_error());
            }
            let both = reader.call(&["EXEC"]).unwrap();
            let there = both.items[0].items.iter().filter(|item| !item.is_null());
            let there = i64::try_from(there.count()).unwrap();
            assert!(there == 0 || there == KEYS as i64, "{there}");
            assert_eq!(both.items[1].integer(), Some(there));
        }
    });
}
