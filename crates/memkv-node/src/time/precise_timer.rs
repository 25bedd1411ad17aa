//! A timer that resolves microseconds, for waits that are shorter than the runtime's milliseconds.
//!
//! Never early. Where the kernel has no such timer, or none to spare, the runtime's does: late by a
//! millisecond, which costs time and nothing else. In the simulator it is always the runtime's.

use std::time::Duration;

use tokio::time::Instant;

/// The timer; one wait at a time.
pub enum PreciseTimer {
    /// The runtime's, late by up to a millisecond.
    Runtime,
    /// The kernel's (`timerfd_create(2)`).
    #[cfg(target_os = "linux")]
    Kernel(linux::Timer),
}

impl PreciseTimer {
    /// The best that there is here. Must be called inside a tokio runtime.
    pub fn precise() -> Self {
        #[cfg(target_os = "linux")]
        match linux::Timer::new() {
            Ok(timer) => return Self::Kernel(timer),
            Err(error) => tracing::debug!(%error, "no timer from the kernel"),
        }
        Self::Runtime
    }

    /// Waits until then. Waiting anew after dropping an earlier wait is fine.
    pub(crate) async fn wait_until(&self, at: Instant) {
        #[cfg(target_os = "linux")]
        if let Self::Kernel(timer) = self {
            let after = at.saturating_duration_since(Instant::now());
            match timer.wait(after.max(Duration::from_nanos(1))).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "the kernel's timer failed"),
            }
        }
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// A `timerfd` on the runtime's event queue.
    pub struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "sound for a descriptor that it owns, and its successor is unsafe"
            )]
            let fd = AsyncFd::new(fd)?;
            Ok(Self(fd))
        }

        /// Waits for this time, which must not be zero: that would stop the timer.
        pub(super) async fn wait(&self, after: Duration) -> io::Result<()> {
            let time = Itimerspec {
                it_interval: Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: Timespec {
                    tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: after.subsec_nanos().into(),
                },
            };
            // Forgets an earlier wait, its ring included: a read then finds nothing.
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &time)?;
            loop {
                let mut ready = self.0.readable().await?;
                let mut rings = [0; 8];
                let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut rings)?));
                match read {
                    Ok(read) => return read.map(drop),
                    Err(_would_block) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timer_is_never_early_and_forgets_waits_that_were_dropped() {
        for timer in [PreciseTimer::Runtime, PreciseTimer::precise()] {
            let start = Instant::now();
            let short = timer.wait_until(start + Duration::from_micros(100));
            tokio::select! {
                biased;
                () = short => panic!("a select polls in this order"),
                () = std::future::ready(()) => {}
            }
            // The dropped one rings meanwhile.
            while start.elapsed() < Duration::from_millis(1) {
                tokio::task::yield_now().await;
            }
            timer.wait_until(start + Duration::from_millis(3)).await;
            assert!(start.elapsed() >= Duration::from_millis(3));
            timer.wait_until(start).await;
        }
    }
}
