//! Which endpoint gets a request, and what happens after a failure.
//!
//! A write goes to one endpoint at a time, and to the next one only if it certainly was not
//! executed. A read may go to several: if one does not answer soon, the next is asked as well. When
//! all have failed and nothing was executed, all are asked again after a pause: nodes that have just
//! been started do not listen yet, and a cluster without a leader elects one.
//!
//! Never exceeds the deadline of the call. Invariant: after a write that may have been executed
//! nothing more is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Endpoints;
use crate::answer::{self, Answer, Success};
use crate::connection::{Call, Failed, Pool, Reply};
use crate::error::{Attempt, Error, Operation};

/// A read that is not answered after this is sent to the next endpoint too: longer than an answer
/// takes in a healthy cluster, short enough to ask three nodes within the default deadline.
const COMPANY_AFTER: Duration = Duration::from_secs(1);

/// Pause before all endpoints are asked again, unless a node names another one.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause that a node may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What is told of the endpoints that failed, before they are asked again.
pub(crate) type OnRetry = Box<dyn Fn(&[Attempt]) + Send + Sync>;

/// The endpoints of a client and the connections to them.
pub(crate) struct Router {
    pub(crate) pool: Arc<Pool>,
    pub(crate) endpoints: Endpoints,
    pub(crate) on_retry: Option<OnRetry>,
    /// Place of the endpoint that answered last.
    preferred: AtomicUsize,
}

/// A failed attempt, and how its request may go on.
enum Outcome {
    Done(Option<Success>),
    Refused(Error),
    /// Not executed: another endpoint may be asked, and this one again after a pause.
    Next(Attempt, Duration),
    Lost(Attempt),
}

/// The failures of one call.
#[derive(Default)]
struct Failures {
    attempts: Vec<Attempt>,
    /// Set while it makes sense to ask all nodes again.
    pause: Option<Duration>,
    /// The longest that a node held the request before it refused.
    held: Duration,
}

impl Failures {
    /// Notes a failure after which the same endpoint may be asked again, and returns how long it
    /// held the request: a connection that was never made says nothing about that.
    fn again(&mut self, attempt: Attempt, pause: Duration, took: Duration) -> Duration {
        let held = attempt.problem.as_ref().map_or(Duration::ZERO, |_| took);
        self.pause = self.pause.max(Some(pause));
        self.held = self.held.max(held);
        self.note(attempt);
        held
    }

    fn note(&mut self, attempt: Attempt) {
        // Rounds repeat themselves: the last word of each endpoint is enough.
        self.attempts
            .retain(|earlier| earlier.endpoint != attempt.endpoint);
        self.attempts.push(attempt);
    }
}

impl Router {
    pub(crate) fn new(endpoints: Endpoints) -> Self {
        Self {
            pool: Arc::new(Pool::new(endpoints.is_tls())),
            endpoints,
            on_retry: None,
            preferred: AtomicUsize::new(0),
        }
    }

    /// Gets `call` answered: the response, or None for an absent key.
    pub(crate) async fn run(
        &self,
        operation: &Operation,
        call: Call,
        deadline: Instant,
    ) -> Result<Option<Success>, Error> {
        let mut failures = Failures::default();
        loop {
            let done = if operation.is_write() {
                self.write_round(operation, &call, deadline, &mut failures)
                    .await?
            } else {
                self.read_round(operation, &call, deadline, &mut failures)
                    .await?
            };
            if let Some(answer) = done {
                return Ok(answer);
            }
            match failures.pause.take() {
                Some(pause) if is_time(failures.held, pause, deadline) => {
                    if let Some(tell) = &self.on_retry {
                        tell(&failures.attempts);
                    }
                    sleep(pause).await;
                }
                _ => break,
            }
        }
        Err(Error::Unavailable {
            operation: operation.clone(),
            attempts: failures.attempts,
        })
    }

    /// The endpoints, beginning with the preferred one.
    fn order(&self) -> impl Iterator<Item = (usize, String)> + use<> {
        let addrs = self.endpoints.addrs();
        let first = self.preferred.load(Ordering::Relaxed);
        let indexes = (0..addrs.len()).map(|at| (first + at) % addrs.len());
        let order: Vec<_> = indexes.map(|index| (index, addrs[index].clone())).collect();
        order.into_iter()
    }

    async fn write_round(
        &self,
        operation: &Operation,
        call: &Call,
        deadline: Instant,
        failures: &mut Failures,
    ) -> Result<Option<Option<Success>>, Error> {
        for (index, addr) in self.order() {
            let started = Instant::now();
            let result = self.pool.exchange(&addr, call, deadline).await;
            match judge(operation, &addr, result) {
                Outcome::Done(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(Some(answer));
                }
                Outcome::Refused(error) => return Err(error),
                Outcome::Next(attempt, pause) => {
                    let held = failures.again(attempt, pause, started.elapsed());
                    if !is_time(held, Duration::ZERO, deadline) {
                        break;
                    }
                }
                Outcome::Lost(attempt) => {
                    failures.note(attempt);
                    let attempts = std::mem::take(&mut failures.attempts);
                    return Err(Error::Unknown {
                        operation: operation.clone(),
                        attempts,
                    });
                }
            }
        }
        Ok(None)
    }

    async fn read_round(
        &self,
        operation: &Operation,
        call: &Call,
        deadline: Instant,
        failures: &mut Failures,
    ) -> Result<Option<Option<Success>>, Error> {
        let mut order = self.order();
        let mut asked = JoinSet::new();
        let mut ask = |asked: &mut JoinSet<_>| {
            let Some((index, addr)) = order.next() else {
                return false;
            };
            let (pool, call, operation) = (self.pool.clone(), call.clone(), operation.clone());
            asked.spawn(async move {
                let started = Instant::now();
                let result = pool.exchange(&addr, &call, deadline).await;
                (index, started.elapsed(), judge(&operation, &addr, result))
            });
            true
        };
        let mut more = ask(&mut asked);
        let mut company = Instant::now() + COMPANY_AFTER;
        loop {
            tokio::select! {
                answered = asked.join_next() => match answered {
                    Some(Ok((index, _, Outcome::Done(answer)))) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(Some(answer));
                    }
                    Some(Ok((_, _, Outcome::Refused(error)))) => return Err(error),
                    Some(Ok((_, took, Outcome::Next(attempt, pause)))) => {
                        failures.again(attempt, pause, took);
                    }
                    Some(Ok((_, _, Outcome::Lost(attempt)))) => failures.note(attempt),
                    // The task was cancelled by a runtime that shuts down.
                    Some(Err(_)) => {}
                    None => return Ok(None),
                },
                () = sleep_until(company), if more => {}
            }
            // Somebody failed or is slow: the next endpoint is asked.
            more = more && ask(&mut asked);
            company = Instant::now() + COMPANY_AFTER;
        }
    }
}

/// Whether a node could hold the request once more before `deadline`, after a pause. Who asks again
/// without that time only turns a known outcome into an unknown one.
fn is_time(held: Duration, pause: Duration, deadline: Instant) -> bool {
    Instant::now() + pause + held < deadline
}

/// What the result of an exchange means for this operation.
fn judge(operation: &Operation, addr: &str, result: Result<Reply, Failed>) -> Outcome {
    let attempt = |reason: String, problem| Attempt {
        endpoint: addr.to_owned(),
        reason,
        problem,
    };
    let reply = match result {
        Ok(reply) => reply,
        Err(Failed { sent: true, reason }) => return Outcome::Lost(attempt(reason, None)),
        Err(Failed {
            sent: false,
            reason,
        }) => return Outcome::Next(attempt(reason, None), PAUSE),
    };
    match answer::read(reply) {
        Answer::Done(success) => Outcome::Done(Some(success)),
        Answer::Absent => Outcome::Done(None),
        Answer::Refused(problem) => Outcome::Refused(Error::Refused {
            operation: operation.clone(),
            endpoint: addr.to_owned(),
            problem: Box::new(problem),
        }),
        Answer::Later(problem) => {
            let asked = problem.retry_after_ms.map_or(PAUSE, Duration::from_millis);
            let reason = format!("{}: {}", problem.title, problem.detail);
            Outcome::Next(
                attempt(reason, Some(Box::new(problem))),
                asked.min(MAX_PAUSE),
            )
        }
        Answer::Maybe(problem) => {
            let reason = format!("{}: {}", problem.title, problem.detail);
            Outcome::Lost(attempt(reason, Some(Box::new(problem))))
        }
    }
}
