//! Sends steps to both servers and has the replies judged. Both get the same bytes at the same
//! time; nothing else is sent until both have answered.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::resp::{Frame, Resp, encode};
use crate::wait::poll;

use super::compare::Comparer;
use super::rules::Rules;
use super::tally::Tally;
use super::{Sent, Step, Unit};

/// How long a key may outlive its deadline: far more than promised, because the machine is shared.
const EXPIRY_LIMIT: Duration = Duration::from_secs(10);

/// Steps of an iteration after which it is taken to be endless.
const SCAN_STEPS: usize = 100_000;

/// Why steps ended early.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// A reply differs from the oracle's.
    Differs(String),
    /// The oracle did not answer as the steps foresee: a fault of the steps.
    Oracle(String),
}

/// Both servers with their connections.
pub(crate) struct Stage<'a> {
    ours: Vec<String>,
    oracle: String,
    rules: &'a Rules,
    lanes: Vec<Lane<'a>>,
    sent: usize,
    /// How long the slowest pipeline took. The time of a command within it is unknown, so
    /// deadlines that it set may differ by as much.
    slowest: Duration,
}

/// One connection, twice.
struct Lane<'a> {
    ours: Resp,
    oracle: Resp,
    comparer: Comparer<'a>,
    resp3: bool,
}

impl<'a> Stage<'a> {
    /// Connects, and empties both stores.
    pub(crate) fn open(
        ours: &[String],
        oracle: &str,
        connections: usize,
        rules: &'a Rules,
    ) -> Stage<'a> {
        let mut stage = Stage {
            ours: ours.to_vec(),
            oracle: oracle.to_owned(),
            rules,
            lanes: Vec::new(),
            sent: 0,
            slowest: Duration::ZERO,
        };
        for number in 0..connections {
            let lane = stage.connect(number);
            stage.lanes.push(lane);
        }
        let first = &mut stage.lanes[0];
        for side in [&mut first.ours, &mut first.oracle] {
            let reply = side.call(&["FLUSHALL"]).unwrap();
            assert_eq!(reply.text(), b"OK", "FLUSHALL: {reply}");
        }
        stage
    }

    /// Every second connection speaks RESP3.
    fn connect(&self, number: usize) -> Lane<'a> {
        let connect = |addr: &str| {
            let mut resp = Resp::connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}"));
            if number % 2 == 1 {
                let hello = resp.call(&["HELLO", "3"]).unwrap();
                assert_eq!(hello.kind, b'%', "HELLO 3: {hello}");
            }
            resp
        };
        Lane {
            ours: connect(&self.ours[number % self.ours.len()]),
            oracle: connect(&self.oracle),
            comparer: Comparer::new(self.rules),
            resp3: number % 2 == 1,
        }
    }

    /// Changes how long an answer is waited for.
    pub(crate) fn set_timeout(&self, limit: Duration) {
        for lane in &self.lanes {
            lane.ours.set_timeout(limit).unwrap();
            lane.oracle.set_timeout(limit).unwrap();
        }
    }

    /// Commands that were sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// Does the steps in order; an error names the difference.
    pub(crate) fn play(&mut self, units: &[Unit], tally: &mut Tally) -> Result<(), Trouble> {
        let mut waiting: Vec<Sent> = Vec::new();
        for (index, unit) in units.iter().enumerate() {
            let next = units.get(index + 1);
            let lane = &mut self.lanes[unit.connection];
            match &unit.step {
                Step::Commands(commands) => waiting.extend(commands.iter().cloned()),
                Step::Expire { commands, .. } => waiting.extend(commands.iter().cloned()),
                Step::Scan(_) => {}
                Step::Quit => waiting.push(Sent::new(&["QUIT"])),
            }
            let goes_on = |next: &Unit| {
                next.connection == unit.connection && matches!(next.step, Step::Commands(_))
            };
            if matches!(unit.step, Step::Commands(_)) && next.is_some_and(goes_on) {
                continue;
            }
            let pipeline = std::mem::take(&mut waiting);
            self.sent += pipeline.len();
            lane.round(&pipeline, &mut self.slowest, tally)?;
            match &unit.step {
                Step::Commands(_) => {}
                Step::Expire { keys, .. } => lane.wait_expired(keys, tally)?,
                Step::Scan(options) => lane.scan(options, tally)?,
                Step::Quit => {
                    if !lane.ours.at_end().unwrap_or_default() {
                        let what = "the connection is open after QUIT".to_owned();
                        return Err(Trouble::Differs(what));
                    }
                    let lane = self.connect(unit.connection);
                    self.lanes[unit.connection] = lane;
                }
            }
        }
        Ok(())
    }
}

impl Lane<'_> {
    /// One pipeline.
    fn round(
        &mut self,
        pipeline: &[Sent],
        slowest: &mut Duration,
        tally: &mut Tally,
    ) -> Result<(), Trouble> {
        if pipeline.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = pipeline
            .iter()
            .flat_map(|sent| encode(&sent.arguments))
            .collect();
        let count = pipeline.iter().map(|sent| sent.replies).sum();
        let started = Instant::now();
        let (ours, oracle) = thread::scope(|scope| {
            let ours = scope.spawn(|| exchange(&mut self.ours, &bytes, count));
            let oracle = exchange(&mut self.oracle, &bytes, count);
            (ours.join().unwrap(), oracle)
        });
        *slowest = started.elapsed().max(*slowest);
        self.comparer.allow_apart(*slowest);
        tally.sent(pipeline.len(), self.resp3);
        if oracle.0.len() != count {
            let text: Vec<String> = pipeline.iter().map(ToString::to_string).collect();
            let (text, got) = (text.join("\n"), oracle.0.len());
            return Err(Trouble::Oracle(format!(
                "{got} of {count} replies to\n{text}"
            )));
        }
        let mut first = 0;
        for sent in pipeline {
            let end = first + sent.replies;
            let Some(ours_part) = ours.0.get(first..end) else {
                let what = format!("{sent}: no reply ({:?})", ours.1);
                return Err(Trouble::Differs(what));
            };
            self.comparer
                .comparer(sent, ours_part, &oracle.0[first..end], tally)
                .map_err(Trouble::Differs)?;
            first = end;
        }
        Ok(())
    }

    /// Waits until the keys are absent on both sides.
    fn wait_expired(&mut self, keys: &[Vec<u8>], tally: &mut Tally) -> Result<(), Trouble> {
        let mut exists = vec![b"EXISTS".to_vec()];
        exists.extend(keys.iter().cloned());
        let wait = |side: &mut Resp| {
            let gone = poll(EXPIRY_LIMIT, || {
                let reply = side.call(&exists).ok()?;
                (reply.integer() == Some(0)).then_some(())
            });
            gone.ok_or_else(|| format!("{}: not expired", Sent::new(&exists)))
        };
        wait(&mut self.oracle).map_err(Trouble::Oracle)?;
        wait(&mut self.ours).map_err(Trouble::Differs)?;
        tally.expired(keys.len());
        Ok(())
    }

    /// A whole iteration on both sides; the keys are compared as sets, because one may be returned twice.
    fn scan(&mut self, options: &[Vec<u8>], tally: &mut Tally) -> Result<(), Trouble> {
        let oracle = iterate(&mut self.oracle, options).map_err(Trouble::Oracle)?;
        let ours = iterate(&mut self.ours, options).map_err(Trouble::Differs)?;
        if ours != oracle {
            let what = format!("whole SCAN {}", Sent::new(options));
            let sets = format!("{what}\n  memkv:  {ours:?}\n  oracle: {oracle:?}");
            return Err(Trouble::Differs(sets));
        }
        tally.scanned();
        Ok(())
    }
}

/// Writes the pipeline while its replies are read, so that neither side waits for the other.
/// Returns the received frames, and the error that ended the reading early.
fn exchange(resp: &mut Resp, bytes: &[u8], count: usize) -> (Vec<Frame>, Option<io::Error>) {
    let mut writer = resp.writer().unwrap();
    thread::scope(|scope| {
        // A server that closes early makes this fail; the missing replies tell.
        scope.spawn(move || drop(writer.write_all(bytes)));
        let mut frames = Vec::with_capacity(count);
        while frames.len() < count {
            match resp.receive() {
                Ok(frame) => frames.push(frame),
                Err(error) => return (frames, Some(error)),
            }
        }
        (frames, None)
    })
}

fn iterate(resp: &mut Resp, options: &[Vec<u8>]) -> Result<BTreeSet<Vec<u8>>, String> {
    let mut keys = BTreeSet::new();
    let mut cursor = b"0".to_vec();
    for _ in 0..SCAN_STEPS {
        let mut scan = vec![b"SCAN".to_vec(), cursor];
        scan.extend(options.iter().cloned());
        let reply = resp.call(&scan).map_err(|error| error.to_string())?;
        let [next, found] = &reply.items[..] else {
            return Err(format!("{}: {reply}", Sent::new(&scan)));
        };
        keys.extend(found.items.iter().map(|key| key.text().to_vec()));
        cursor = next.text().to_vec();
        if cursor == b"0" {
            return Ok(keys);
        }
    }
    Err(format!("no end after {SCAN_STEPS} steps"))
}
