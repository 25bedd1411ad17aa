//! Gives free memory back to the system while nothing happens.
//!
//! The allocator keeps freed memory for a second, and gives it back only at later requests for memory:
//! a node that was emptied and is then idle would keep all of it. It also gives memory back when a
//! thread ends, and has no other way that needs no unsafe code. So a thread ends now and then. Never
//! touches memory itself.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

/// A thread's start and end take some 60 us of CPU time, so this is a ten thousandth of a core.
const PERIOD: Duration = Duration::from_secs(1);

/// Runs for ever.
pub(crate) async fn give_back() {
    loop {
        tokio::time::sleep(PERIOD).await;
        // The allocator knows threads only from their first allocation on.
        let ending = || drop(black_box(Box::new(0_u8)));
        let thread = thread::Builder::new().name("memkv-memory".to_owned());
        if let Err(error) = thread.spawn(ending) {
            tracing::debug!(%error, "no thread could be started; free memory stays with the process");
        }
    }
}
