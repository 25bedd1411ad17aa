//! Tests of the log clock: its reading after everything that can happen to it.

use std::sync::atomic::AtomicU64;

use futures_util::FutureExt;
use memkv_disk::Layout;
use memkv_disk::disk::Disk;
use memkv_disk::disk::sim::SimDisk;

use super::*;

/// A clock on a machine with this wall clock, and a boot clock of 500 ms.
fn clock(wall: &Arc<AtomicU64>, saved: Option<ClockReading>) -> LogClock {
    clock_with(wall, saved, None)
}

fn clock_with(
    wall: &Arc<AtomicU64>,
    saved: Option<ClockReading>,
    file: Option<ClockFile>,
) -> LogClock {
    let wall = wall.clone();
    let env = Env {
        wall_clock_ms: Arc::new(move || wall.load(Ordering::Relaxed)),
        boot_clock: Arc::new(|| Some((7, 500))),
        ..Env::real()
    };
    LogClock::resume(env, saved, file)
}

/// Opens the clock's file, again and again the same one, and reads it.
fn clock_file() -> impl Fn() -> (ClockFile, Option<ClockReading>) {
    let disk = SimDisk::new(1);
    let layout = Layout::under(std::path::Path::new("/memkv"));
    disk.create_dir_all(&layout.metadata).unwrap();
    move || ClockFile::open(&disk, &layout).unwrap()
}

/// The reading that the cluster tells.
fn synchronized(log_ms: u64) -> Reading {
    Reading {
        log_ms,
        synchronized: true,
    }
}

const START: u64 = 10_000_000;
const A: Leader = Leader { term: 1, id: 1 };
const B: Leader = Leader { term: 2, id: 2 };
const HOUR: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_an_hour_moves_stamps_by_the_slew_only() {
    for jump in [HOUR, -HOUR] {
        let wall = Arc::new(AtomicU64::new(START));
        let clock = clock(&wall, None);
        let mut last = clock.stamp();
        assert_eq!(last, START);
        for second in 1..=10u64 {
            tokio::time::advance(Duration::from_secs(1)).await;
            let now = (START + second * 1000).saturating_add_signed(jump);
            wall.store(now, Ordering::Relaxed);
            let stamp = clock.stamp();
            let step = stamp - last;
            assert!((995..=1005).contains(&step), "a second took {step} ms");
            last = stamp;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_read_all_the_time_is_slewed_all_the_same() {
    for (jump, expected) in [(HOUR, 10_050), (-HOUR, 9_950)] {
        let wall = Arc::new(AtomicU64::new(START.saturating_add_signed(jump)));
        let clock = clock(&wall, None);
        clock.follow(A, synchronized(START), Instant::now());
        for _ in 0..1_000 {
            tokio::time::advance(Duration::from_millis(10)).await;
            clock.read();
            clock.applied(clock.stamp());
        }
        assert_eq!(clock.read().log_ms, START + expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_idle_does_not_step() {
    let wall = Arc::new(AtomicU64::new(START.saturating_add_signed(2 * HOUR)));
    let clock = clock(&wall, None);
    clock.follow(A, synchronized(START), Instant::now());
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(clock.stamp(), START + 3_600_000 + 5);
}

#[tokio::test(start_paused = true)]
async fn time_is_never_before_an_applied_stamp() {
    let wall = Arc::new(AtomicU64::new(1_000));
    let clock = clock(&wall, None);
    clock.applied(5_000);
    assert_eq!(clock.stamp(), 5_000);
    let late = synchronized(2_000);
    clock.follow(A, late, Instant::now());
    assert_eq!(clock.stamp(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_goes_on_and_a_rebooted_machine_asks_its_peers() {
    let wall = Arc::new(AtomicU64::new(START));
    let saved = |boot_id| {
        Some(ClockReading {
            boot_id,
            boot_ms: 200,
            log_ms: 1_000,
            is_second_hand: false,
        })
    };
    let same = clock(&wall, saved(7));
    assert_eq!(
        same.read(),
        synchronized(1_294),
        "300 ms later, less the slew and the margin"
    );
    same.learn(synchronized(9), 0);
    assert_eq!(
        same.read(),
        synchronized(1_294),
        "a peer does not step a synchronized clock"
    );

    let rebooted = clock(&wall, saved(8));
    let unsure = Reading {
        log_ms: START,
        synchronized: false,
    };
    assert_eq!(rebooted.read(), unsure);
    rebooted.learn(unsure, 0);
    assert_eq!(rebooted.read(), unsure);
    rebooted.learn(synchronized(1_300), 0);
    assert_eq!(rebooted.read(), synchronized(1_300));
    rebooted.learn(synchronized(1_200), 0);
    assert_eq!(rebooted.read(), synchronized(1_300), "that was late");
    rebooted.learn(synchronized(1_400), 0);
    assert_eq!(
        rebooted.read(),
        synchronized(1_400),
        "the one before was late"
    );
    rebooted.follow(A, synchronized(1_500), Instant::now());
    rebooted.learn(synchronized(1_600), 0);
    assert_eq!(
        rebooted.read(),
        synchronized(1_600),
        "the leader's was late"
    );
    rebooted.stamp();
    rebooted.learn(synchronized(9_000), 0);
    assert_eq!(
        rebooted.read(),
        synchronized(1_600),
        "what it led with is its own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_clock_is_written_down_before_anybody_goes_by_it() {
    let wall = Arc::new(AtomicU64::new(START));
    let become_sure: [fn(&LogClock, Reading); 3] = [
        |clock, _| {
            clock.stamp();
        },
        |clock, reading| clock.learn(reading, 0),
        |clock, reading| clock.follow(A, reading, Instant::now()),
    ];
    for act in become_sure {
        let open = clock_file();
        let (file, none) = open();
        assert_eq!(none, None);
        let clock = clock_with(&wall, None, Some(file));
        act(&clock, synchronized(START));
        assert!(
            clock.persisted().now_or_never().is_none(),
            "nothing goes by a clock that is not written down"
        );
        clock.write_down();
        assert!(clock.persisted().now_or_never().is_some());
        let (_, saved) = open();
        let restarted = clock_with(&Arc::new(AtomicU64::new(2 * START)), saved, None);
        assert_eq!(restarted.read().log_ms, START - MARGIN_MS);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_in_small_steps_is_written_down_too() {
    let wall = Arc::new(AtomicU64::new(START));
    let open = clock_file();
    let clock = clock_with(&wall, None, Some(open().0));
    clock.learn(synchronized(START), 0);
    for step in 1..=10 {
        clock.follow(A, synchronized(START + step * SET_MS / 2), Instant::now());
    }
    clock.applied(START + 1_000);
    clock.write_down();
    let (_, saved) = open();
    let restarted = LogClock::resume(clock.env.clone(), saved, None);
    assert_eq!(restarted.read(), synchronized(START + 1_000 - MARGIN_MS));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_is_not_ahead_of_the_one_before() {
    let wall = Arc::new(AtomicU64::new(START.saturating_add_signed(-HOUR)));
    let before = clock(&wall, None);
    before.follow(A, synchronized(START), Instant::now());
    let saved = ClockReading {
        boot_id: 7,
        boot_ms: 500,
        log_ms: before.read().log_ms,
        is_second_hand: true,
    };
    for _ in 0..100 {
        tokio::time::advance(Duration::from_millis(100)).await;
        before.stamp();
    }
    let env = Env {
        boot_clock: Arc::new(|| Some((7, 10_500))),
        ..Env::real()
    };
    let after = LogClock::resume(env, Some(saved), None);
    assert!(after.read().log_ms <= before.read().log_ms);
}

/// The one message that it heard may have been late, and what it heard later may be lost with the
/// disk.
#[tokio::test(start_paused = true)]
async fn a_second_hand_reading_stays_second_hand_over_a_restart() {
    let wall = Arc::new(AtomicU64::new(START));
    let open = clock_file();
    let before = clock_with(&wall, None, Some(open().0));
    before.follow(A, synchronized(START - 1_600), Instant::now());
    before.write_down();
    let after = clock(&wall, open().1);
    after.learn(synchronized(START), 0);
    assert_eq!(
        after.read(),
        synchronized(START),
        "a peer heard a message in time"
    );

    let led = clock_with(&wall, None, Some(open().0));
    led.stamp();
    led.write_down();
    let after = clock(&wall, open().1);
    let own = after.read();
    after.learn(synchronized(START + 1_000), 0);
    assert_eq!(after.read(), own, "a leader's time is its own");
}

/// Lets a clock hear a leader that is behind it by `behind_ms`, until it goes by that.
async fn hear_out(clock: &LogClock, leader: Leader, behind_ms: u64) {
    let began = Instant::now();
    let first = clock.read().log_ms - behind_ms;
    for message in 0..=HEARD_ENOUGH {
        // All but one are late.
        let late_ms = if message == 2 { 0 } else { 700 };
        let log_ms = first + millis(began.elapsed()) - late_ms;
        clock.follow(leader, synchronized(log_ms), Instant::now());
        tokio::time::advance(HEARD_FOR / HEARD_ENOUGH).await;
    }
    let now = clock.read().log_ms;
    let wanted = first + millis(began.elapsed());
    assert!(now.abs_diff(wanted) <= 8, "{now}, and the leader {wanted}");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_followed_backwards_too() {
    let wall = Arc::new(AtomicU64::new(START));
    let follower = clock(&wall, None);
    follower.follow(A, synchronized(5_000), Instant::now());
    for _ in 0..2 * HEARD_ENOUGH {
        follower.follow(A, synchronized(4_000), Instant::now());
    }
    assert_eq!(follower.read(), synchronized(5_000), "a link was stuck");
    // B was behind when it was elected; keys that it sets must not go early if this node leads
    // next.
    hear_out(&follower, B, 70).await;
    let now = follower.read().log_ms;
    follower.follow(B, synchronized(now - 70), Instant::now());
    assert!(follower.read().log_ms >= now - 2, "later messages are late");
}

/// Else a follower would be ahead of its stamps, and not know it.
#[tokio::test(start_paused = true)]
async fn a_new_leader_tells_the_time_that_it_will_stamp() {
    let wall = Arc::new(AtomicU64::new(START));
    let clocks = [0, 1].map(|_| clock(&wall, None));
    let [leader, follower] = &clocks;
    leader.follow(A, synchronized(START), Instant::now());
    leader.follow(B, synchronized(START - 55), Instant::now());
    leader.lead(A.term);
    assert_eq!(
        leader.read(),
        synchronized(START),
        "it is no leader any more"
    );
    leader.lead(B.term + 1);
    let c = Leader { term: 3, id: 3 };
    follower.follow(c, leader.read(), Instant::now());
    assert_eq!(leader.stamp(), START - 55);
    assert_eq!(follower.read(), synchronized(START - 55));
    leader.lead(B.term + 1);
    assert_eq!(leader.stamp(), START - 55, "it counts once");
}

/// B was restarted, and so was C, which had heard no node but B.
#[tokio::test(start_paused = true)]
async fn a_follower_that_is_ahead_of_two_leaders_in_turn_leads_behind_both() {
    const C: Leader = Leader { term: 3, id: 3 };
    let wall = Arc::new(AtomicU64::new(START));
    for is_heard_out in [false, true] {
        let follower = clock(&wall, None);
        follower.follow(A, synchronized(START), Instant::now());
        follower.follow(B, synchronized(START - 55), Instant::now());
        if is_heard_out {
            hear_out(&follower, C, 110).await;
        } else {
            follower.follow(C, synchronized(START - 110), Instant::now());
            assert_eq!(follower.stamp(), START - 110, "the only message counts");
        }
    }
    let follower = clock(&wall, None);
    follower.follow(A, synchronized(START), Instant::now());
    follower.applied(START - 50);
    follower.follow(B, synchronized(START - 1_000), Instant::now());
    assert_eq!(
        follower.stamp(),
        START - 50,
        "never before what was applied"
    );
    let stamp = follower.stamp();
    assert_eq!(follower.stamp(), stamp, "it counts once");
}

/// It was cut off while three leaders came, each restarted and behind the one before it.
#[tokio::test(start_paused = true)]
async fn a_follower_counts_the_leaders_that_it_has_not_heard() {
    let wall = Arc::new(AtomicU64::new(START));
    let follower = clock(&wall, None);
    follower.follow(A, synchronized(START), Instant::now());
    let last = Leader { term: 4, id: 3 };
    follower.follow(last, synchronized(START - 165), Instant::now());
    assert_eq!(follower.stamp(), START - 165);
    follower.follow(last, synchronized(START), Instant::now());
    let next = Leader { term: 5, id: 1 };
    follower.follow(next, synchronized(START - 1_000), Instant::now());
    assert_eq!(follower.stamp(), START - BEHIND_MS, "the rest is late");
}

/// A was restarted and is behind, and its keys go by that. One follower, with a reading of its own, is ahead of A
/// and has not heard enough to go by it when A is gone. Another one has its time from A alone, and asks the first
/// one for its vote.
#[tokio::test(start_paused = true)]
async fn a_candidate_does_not_go_by_a_peer_that_is_ahead_of_the_last_leader() {
    let wall = Arc::new(AtomicU64::new(START));
    let [peer, candidate] = [0, 1].map(|_| clock(&wall, None));
    peer.stamp();
    for _ in 0..2 * HEARD_ENOUGH {
        peer.follow(B, synchronized(START - 55), Instant::now());
    }
    assert_eq!(
        peer.read(),
        synchronized(START),
        "a link was stuck, perhaps"
    );
    candidate.follow(B, synchronized(START - 60), Instant::now());
    candidate.learn(peer.answer(), 0);
    candidate.lead(B.term + 1);
    assert_eq!(
        candidate.stamp(),
        START - 55,
        "the peer's message was less late, and that counts"
    );
}

/// The same, but no message of the last leader reached the peer.
#[tokio::test(start_paused = true)]
async fn a_candidate_does_not_go_by_a_peer_that_has_not_heard_the_last_leader() {
    let wall = Arc::new(AtomicU64::new(START));
    let [peer, candidate, rebooted] = [0, 1, 2].map(|_| clock(&wall, None));
    peer.stamp();
    candidate.follow(B, synchronized(START - 55), Instant::now());
    candidate.learn(peer.answer(), 1);
    assert_eq!(candidate.stamp(), START - 55);
    // The time that it heard is lost with the power, and its log is not.
    rebooted.learn(peer.answer(), 2);
    assert_eq!(rebooted.stamp(), START - 2 * BEHIND_MS);
}

/// It has not heard enough to go by what it heard, and the next process will not have heard it.
#[tokio::test(start_paused = true)]
async fn a_process_that_starts_again_is_not_ahead_of_the_last_leader() {
    let wall = Arc::new(AtomicU64::new(START));
    let open = clock_file();
    let clock = clock_with(&wall, None, Some(open().0));
    clock.stamp();
    clock.write_down();
    clock.follow(B, synchronized(START - 55), Instant::now());
    assert!(
        clock.persisted().now_or_never().is_none(),
        "nothing of the new leader is acknowledged before it is written down"
    );
    clock.write_down();
    let restarted = LogClock::resume(clock.env.clone(), open().1, None);
    assert_eq!(restarted.stamp(), START - 55 - MARGIN_MS);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_again_does_not_undo_what_set_it_back() {
    let wall = Arc::new(AtomicU64::new(START));
    let open = clock_file();
    let began = Instant::now();
    let env = Env {
        boot_clock: Arc::new(move || Some((7, 500 + millis(began.elapsed())))),
        ..clock(&wall, None).env
    };
    let clock = LogClock::resume(env.clone(), None, Some(open().0));
    clock.learn(synchronized(START), 0);
    clock.write_down();
    hear_out(&clock, A, 30).await;
    clock.write_down();
    let restarted = LogClock::resume(env, open().1, None);
    assert!(restarted.read().log_ms <= clock.read().log_ms);
}

#[tokio::test(start_paused = true)]
async fn what_a_request_waits_for_here_does_not_make_its_reading_late() {
    let wall = Arc::new(AtomicU64::new(START));
    let follower = clock(&wall, None);
    let arrived = Instant::now();
    tokio::time::advance(Duration::from_millis(300)).await;
    follower.follow(A, synchronized(5_000), arrived);
    assert_eq!(follower.read(), synchronized(5_300));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_late_hardly_sets_a_follower_back() {
    let wall = Arc::new(AtomicU64::new(START));
    let follower = clock(&wall, None);
    follower.follow(A, synchronized(5_000), Instant::now());
    tokio::time::advance(Duration::from_secs(10)).await;
    follower.follow(A, synchronized(13_000), Instant::now());
    assert_eq!(
        follower.read().log_ms,
        14_900,
        "2 s late, a hundredth of 10 s back"
    );
    follower.follow(A, synchronized(13_000), Instant::now());
    assert_eq!(follower.read().log_ms, 14_900, "once in a while only");
    follower.follow(A, synchronized(15_000), Instant::now());
    assert_eq!(follower.read().log_ms, 15_000, "ahead is right");
}

#[tokio::test(start_paused = true)]
async fn a_follower_shows_what_its_leader_shows() {
    let walls = [START, START + 3_600_000].map(|wall| Arc::new(AtomicU64::new(wall)));
    let [leader, follower] = walls.each_ref().map(|wall| clock(wall, None));
    leader.stamp();
    follower.follow(A, leader.read(), Instant::now());
    tokio::time::advance(Duration::from_secs(100)).await;
    let (old, new) = (leader.read().log_ms, follower.stamp());
    assert!(new.abs_diff(old) <= 500, "{new} after {old}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_is_written_down_without_waiting_for_the_disk() {
    let wall = Arc::new(AtomicU64::new(START));
    let disk = SimDisk::new(1);
    let layout = Layout::under(std::path::Path::new("/memkv"));
    disk.create_dir_all(&layout.metadata).unwrap();
    let (file, _) = ClockFile::open(&disk, &layout).unwrap();
    let clock = clock_with(&wall, None, Some(file));
    let _scope = memkv_disk::disk::guard::forbid();
    clock.learn(synchronized(START), 0);
    clock.follow(A, synchronized(2 * START), Instant::now());
    clock.applied(3 * START);
    clock.stamp();
    assert_eq!(disk.stats().forbidden, 0);
}
