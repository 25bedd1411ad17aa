//! Where a node gets what a simulation must control and tokio does not provide: wall and boot
//! clock, randomness, and a place for work that blocks. Never a monotonic clock: that is tokio's, which
//! the simulator pauses.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::time::precise_timer::PreciseTimer;

/// Work that takes longer than the consensus thread may be away.
pub type BlockingWork = Box<dyn FnOnce() + Send>;

/// Runs work on another thread.
pub type Elsewhere = Arc<dyn Fn(BlockingWork) -> BoxFuture<'static, ()> + Send + Sync>;

/// A node's surroundings. Real in `memkv-server`, seeded in the simulator.
#[derive(Clone)]
pub struct Env {
    /// Milliseconds since the Unix epoch. May jump.
    pub wall_clock_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The machine's boot id and the milliseconds since that boot, suspension included; `None`
    /// where the operating system does not tell. It carries log time over a restart.
    pub boot_clock: Arc<dyn Fn() -> Option<(u128, u64)> + Send + Sync>,
    /// Memory of this process in RAM, in bytes; `None` where the operating system does not tell.
    pub resident: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    /// 128 random bits, for cluster and request identities.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
    /// Runs work that may wait for a disk, away from the consensus thread, and resolves when it is
    /// done.
    pub blocking: Elsewhere,
    /// The same for work that takes a processor for long and never waits for a disk.
    pub busy: Elsewhere,
    /// Starts what drives the WAL: a thread of its own in production, a task in the simulator.
    pub drive_wal: Arc<dyn Fn(memkv_disk::WalWorker, memkv_disk::WalHandle) + Send + Sync>,
    /// Where rounds of reads run: on the clients' threads in production, because it is there that
    /// they are waited for.
    pub reads: Handle,
    /// A timer for waits below a millisecond.
    pub precise_timer: Arc<dyn Fn() -> PreciseTimer + Send + Sync>,
}

impl Env {
    /// The real surroundings of a process. Must be called, and used, inside a tokio runtime.
    pub fn real() -> Self {
        let blocking: Elsewhere = Arc::new(|work| {
            Box::pin(async move {
                // A panic in the work ends the process, or has been reported in a test.
                let _ = tokio::task::spawn_blocking(work).await;
            })
        });
        Self {
            wall_clock_ms: Arc::new(|| {
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |since| {
                        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                    })
            }),
            boot_clock: Arc::new(memkv_disk::boot_clock),
            // A file of the system tells, which this crate does not open.
            resident: Arc::new(|| None),
            random: Arc::new(rand::random),
            busy: blocking.clone(),
            blocking,
            drive_wal: Arc::new(|worker, _handle| {
                // The thread ends by itself when the WAL is shut down; the name is for `top -H`.
                let spawned = std::thread::Builder::new()
                    .name("memkv-wal".to_owned())
                    .spawn(move || worker.run());
                if let Err(error) = spawned {
                    tracing::error!(%error, "cannot start the WAL thread");
                }
            }),
            reads: Handle::current(),
            precise_timer: Arc::new(PreciseTimer::precise),
        }
    }
}

/// Runs `work` where it may wait for a disk and gives back its result. Fails only if the surroundings
/// are being torn down.
pub(crate) async fn blocking<T: Send + 'static>(
    env: &Env,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    run(&env.blocking, work).await
}

/// The same for work that takes a processor for long and never waits for a disk.
pub(crate) async fn busy<T: Send + 'static>(
    env: &Env,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    run(&env.busy, work).await
}

async fn run<T: Send + 'static>(
    elsewhere: &Elsewhere,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    let (tx, rx) = tokio::sync::oneshot::channel();
    let work = move || {
        #[cfg(memkv_bugs)]
        memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Blocking);
        work()
    };
    elsewhere(Box::new(move || drop(tx.send(work())))).await;
    rx.await
        .map_err(|_| std::io::Error::other("the work was dropped: the node is stopping"))
}
