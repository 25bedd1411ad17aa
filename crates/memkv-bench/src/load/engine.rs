//! The event loop: one thread, non-blocking sockets, one read and one write per connection and
//! wake-up. Independent of the protocol.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use memkv_black_box::Random;
use mio::{Events, Poll, Token};

use super::connection::{Connection, Flight, Landed};
use super::timer::Timer;
use super::{Keys, LoadError, Measured, Pace, Work};
use crate::protocol::{Client, key};

/// Room for the replies of one wake-up: a pipeline of 64 values of 4 KiB.
const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;

/// With no answer at all for this long the run has failed: longer than any election.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a run at a fixed rate waits at its end for requests in flight. A request without a reply
/// then counts with the time that it has waited so far.
const DRAIN: Duration = Duration::from_secs(2);

/// Does the work with connections that `client` makes; calls `mark` when the measured time begins
/// and when it ends.
pub(crate) fn run<C: Client>(
    work: &Work,
    client: impl Fn() -> C,
    mut mark: impl FnMut(),
) -> Result<Measured, LoadError> {
    let mut poll = Poll::new().map_err(LoadError::Events)?;
    let mut engine = Engine::new(work, client, &poll)?;
    engine.begin()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut marked = false;
    loop {
        let now = Instant::now();
        if !marked && now >= engine.start {
            mark();
            marked = true;
        }
        if engine.finished(now)? {
            break;
        }
        let wait = engine.wait(now);
        match poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome.map_err(LoadError::Events)?,
        }
        for event in &events {
            engine.event(event.token(), event.is_writable(), event.is_readable())?;
        }
        engine.keep_pace()?;
    }
    mark();
    engine.answered(Instant::now());
    let seconds = match work.keys {
        Keys::Random(_) => work.duration,
        Keys::Each(_) => engine.start.elapsed(),
    };
    if let Pace::Rate(_) = work.pace {
        let limit = Instant::now() + DRAIN;
        while engine.in_flight() > 0 && Instant::now() < limit {
            let wait = limit.saturating_duration_since(Instant::now());
            poll.poll(&mut events, Some(wait))
                .map_err(LoadError::Events)?;
            for event in &events {
                engine.event(event.token(), event.is_writable(), event.is_readable())?;
            }
            engine.keep_pace()?;
        }
        engine.count_unanswered();
    }
    engine.measured.seconds = seconds.as_secs_f64();
    engine.measured.complaint = engine.connections.iter().find_map(Connection::complaint);
    Ok(engine.measured)
}

struct Engine<'a, C> {
    work: &'a Work,
    connections: Vec<Connection<C>>,
    random: Random,
    /// Of [`Keys::Each`], the next key.
    next_key: u64,
    start: Instant,
    end: Instant,
    last_answer: Instant,
    schedule: Option<Schedule>,
    buffer: Vec<u8>,
    landed: Vec<Landed>,
    measured: Measured,
}

/// Of an open loop: when requests are due, and which connections may send them.
struct Schedule {
    timer: Timer,
    interval: Duration,
    /// When the next request is due.
    due: Instant,
    /// The index of a connection, once per request that it may send.
    free: VecDeque<usize>,
}

impl<'a, C: Client> Engine<'a, C> {
    fn new(
        work: &'a Work,
        client: impl Fn() -> C,
        poll: &Poll,
    ) -> Result<Engine<'a, C>, LoadError> {
        let mut connections = Vec::with_capacity(work.connections);
        for index in 0..work.connections {
            let addr = work.targets[index % work.targets.len()];
            let token = Token(index);
            connections.push(Connection::open(addr, client(), poll.registry(), token)?);
        }
        let schedule = match work.pace {
            Pace::Batch | Pace::Window => None,
            Pace::Rate(rate) => {
                let token = Token(work.connections);
                let indexes = (0..work.depth).flat_map(|_| 0..work.connections);
                Some(Schedule {
                    timer: Timer::new(poll.registry(), token).map_err(LoadError::Events)?,
                    interval: Duration::from_secs_f64(1.0 / rate),
                    due: Instant::now(),
                    free: indexes.collect(),
                })
            }
        };
        let now = Instant::now();
        let start = now + work.warm_up;
        Ok(Engine {
            work,
            connections,
            // The same keys in each run, for every system.
            random: Random::new(4),
            next_key: 0,
            start,
            end: start + work.duration,
            last_answer: now,
            schedule,
            buffer: vec![0; READ_BYTES],
            landed: Vec::new(),
            measured: Measured::default(),
        })
    }

    /// Sends the first requests.
    fn begin(&mut self) -> Result<(), LoadError> {
        if self.schedule.is_some() {
            return self.keep_pace();
        }
        for index in 0..self.connections.len() {
            self.fill(index, Instant::now())?;
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.connections.iter().map(Connection::in_flight).sum()
    }

    fn finished(&self, now: Instant) -> Result<bool, LoadError> {
        if now.duration_since(self.last_answer) > SILENCE {
            return Err(LoadError::Silent {
                limit: SILENCE,
                in_flight: self.in_flight(),
            });
        }
        Ok(match self.work.keys {
            Keys::Random(_) => now >= self.end,
            Keys::Each(count) => self.next_key >= count && self.in_flight() == 0,
        })
    }

    /// How long the loop may wait for events.
    fn wait(&self, now: Instant) -> Duration {
        let until = if now < self.start {
            self.start
        } else {
            self.end
        };
        match self.work.keys {
            Keys::Random(_) => until.saturating_duration_since(now),
            Keys::Each(_) => SILENCE,
        }
    }

    fn event(&mut self, token: Token, writable: bool, readable: bool) -> Result<(), LoadError> {
        // The timer's event needs no more than the wake-up.
        let Some(connection) = self.connections.get_mut(token.0) else {
            return Ok(());
        };
        if writable {
            connection.flush()?;
        }
        if !readable {
            return Ok(());
        }
        connection.receive(&mut self.buffer, &mut self.landed)?;
        let now = Instant::now();
        if !self.landed.is_empty() {
            self.answered(now);
        }
        for landed in self.landed.drain(..) {
            self.measured
                .count(&landed, now, self.start, self.end, self.work);
            if let Some(schedule) = &mut self.schedule {
                schedule.free.push_back(token.0);
            }
        }
        match self.schedule {
            Some(_) => self.connections[token.0].flush(),
            None => self.fill(token.0, now),
        }
    }

    /// Notes that there was a reply; the part of a gap outside the measured time does not count.
    fn answered(&mut self, now: Instant) {
        let gap = now
            .min(self.end)
            .saturating_duration_since(self.last_answer.max(self.start));
        self.measured.longest_gap = self.measured.longest_gap.max(gap);
        self.last_answer = now;
    }

    /// Sends the requests that a connection without a schedule may send now.
    fn fill(&mut self, index: usize, now: Instant) -> Result<(), LoadError> {
        let in_flight = self.connections[index].in_flight();
        let room = match self.work.pace {
            Pace::Batch if in_flight > 0 => 0,
            _ => self.work.depth - in_flight,
        };
        for _ in 0..room {
            self.request(index, now);
        }
        self.connections[index].send()
    }

    /// Sends the requests that are due by the schedule, as far as connections are free.
    fn keep_pace(&mut self) -> Result<(), LoadError> {
        let Some(mut schedule) = self.schedule.take() else {
            return Ok(());
        };
        let now = Instant::now();
        while schedule.due <= now && schedule.due < self.end {
            let Some(index) = schedule.free.pop_front() else {
                break;
            };
            self.request(index, schedule.due);
            self.connections[index].send()?;
            schedule.due += schedule.interval;
        }
        if schedule.due > now && schedule.due < self.end {
            let set = schedule.timer.set(schedule.due - now);
            set.map_err(LoadError::Events)?;
        }
        self.schedule = Some(schedule);
        Ok(())
    }

    fn request(&mut self, index: usize, since: Instant) {
        let number = match self.work.keys {
            Keys::Random(count) => self.random.below(count) as u64,
            Keys::Each(count) if self.next_key >= count => return,
            Keys::Each(_) => {
                self.next_key += 1;
                self.next_key - 1
            }
        };
        let percent = self.work.reads_percent;
        let write = percent < 100 && (percent == 0 || self.random.below(100) >= percent);
        self.connections[index].request(&key(number), Flight { since, write });
    }

    /// At the end of an open loop: a request that was due and not answered has waited at least until now.
    fn count_unanswered(&mut self) {
        let now = Instant::now();
        let (start, end) = (self.start, self.end);
        let waiting = self.connections.iter().flat_map(Connection::flights);
        let waiting: Vec<Instant> = waiting.map(|flight| flight.since).collect();
        let mut late = |since: Instant| {
            if since >= start {
                self.measured.unanswered += 1;
                self.measured.writes.add(now - since);
            }
        };
        waiting.into_iter().for_each(&mut late);
        if let Some(schedule) = &self.schedule {
            let mut due = schedule.due;
            while due < end {
                late(due);
                due += schedule.interval;
            }
        }
    }
}

impl Measured {
    fn count(&mut self, landed: &Landed, now: Instant, start: Instant, end: Instant, work: &Work) {
        let counts = match (work.keys, work.pace) {
            (Keys::Each(_), _) => true,
            // Every request that was due within the time counts, whenever it is answered.
            (_, Pace::Rate(_)) => landed.flight.since >= start && landed.flight.since < end,
            _ => now >= start && now < end,
        };
        if !counts {
            return;
        }
        if !landed.ok {
            self.failed += 1;
        } else if landed.flight.write {
            self.writes.add(now - landed.flight.since);
        } else {
            self.reads.add(now - landed.flight.since);
        }
    }
}
