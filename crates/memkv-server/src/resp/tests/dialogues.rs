//! The dialogues of `tests/scripts/redis/`, which redis-server and a cluster are held to as well.

use memkv_black_box::dialogue::{Side, dialogues};

use super::start;

#[tokio::test]
async fn the_dialogues_hold_without_a_cluster() {
    let mut differences = String::new();
    for dialogue in dialogues() {
        let addr = start().await.addr;
        let play = move || dialogue.differences(&[addr], Side::Memkv).concat();
        differences += &tokio::task::spawn_blocking(play).await.unwrap();
    }
    assert!(differences.is_empty(), "answered otherwise:\n{differences}");
}
