//! Crashes at every disk operation of scripted runs: acknowledged data is found again, and
//! nothing is found that was never written.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod script;

use std::sync::Arc;

use common::*;
use memkv_disk::disk::sim::SimDisk;
use script::{Run, enumerate, go_on};

#[test]
fn crash_at_every_operation_loses_nothing_acknowledged() {
    let (mut states, mut torn) = (0, 0);
    for seed in 0..6 {
        let (more, more_torn) = enumerate(seed, 70, 6);
        states += more;
        torn += more_torn;
    }
    println!("{states} crash states, {torn} torn tails");
    // Guards against an empty proof.
    assert!(states > 5_000, "only {states} crash states");
    assert!(torn > 100, "only {torn} torn tails were cut");
}

#[test]
fn crash_during_recovery_loses_nothing_either() {
    let options = options();
    let mut states = 0;
    for seed in 20..30 {
        let mut whole = Run::new(seed, SimDisk::new(seed));
        whole.run(&options, 60);
        let operations = whole.disk.op_count();
        for at in (operations / 4..operations).step_by(7) {
            let mut run = Run::new(seed, SimDisk::new(seed));
            run.disk.crash_at_op(at);
            run.run(&options, 60);
            let crashed = run.disk.fork().crash(at);
            let before = crashed.op_count();
            for during in 1..60 {
                let disk = crashed.fork();
                disk.crash_at_op(before + during);
                let opened = Node::open(Arc::new(disk.clone()), options.clone());
                if opened.is_ok() {
                    break;
                }
                let disk = disk.crash(during);
                let node = run.check(&disk, &options);
                go_on(node, &disk, during, &options);
                states += 1;
            }
        }
    }
    assert!(states > 500, "only {states} crashes during recovery");
}
