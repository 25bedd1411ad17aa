//! A node that is told to stop (SIGTERM) takes no request of another node's clients with it: they see
//! a pause and no error, also when it led. A rolling restart is that for each node in turn.

use memkv_black_box::{Cluster, RollingLoad};

#[test]
fn a_rolling_restart_under_load_fails_no_request_at_the_other_nodes() {
    let mut cluster = Cluster::start(3);
    let load = RollingLoad::start(&cluster, 100);
    load.restart_each(&mut cluster, |_| {});
    load.finish(&cluster);
}
