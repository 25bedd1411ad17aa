//! Times the pieces with criterion: `cargo bench -p memkv-hot-path [NAME]`.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use memkv_hot_path::pieces;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for piece in pieces() {
        let mut group = criterion.benchmark_group(piece.name);
        group.throughput(Throughput::Elements(piece.operations));
        let mut run = (piece.prepare)();
        group.bench_function("run", |bencher| bencher.iter(&mut run));
        group.finish();
    }
    criterion.final_summary();
}
