//! What becomes of a segment: its writes are submitted together or its reads share one look, and
//! the answers are put in order, those that the node gives by itself among them.

use std::collections::VecDeque;
use std::mem;

use memkv_proto::ErrorCode;
use memkv_raft::RequestError;
use memkv_raft::store::{Query, Reply, ReplyValue, Step, Store};
use memkv_resp::ReplyWriter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Resp;
use super::conn::{Conn, Gone, OUTPUT_BYTES};
use super::segment::{Found, Slot, is_long, look};
use super::server::Stats;
use super::transaction::{Item, Plan};
use crate::backend::Backend;
use crate::commands::{Args, Failure, Handler, Shape};

/// Values of an array that are written before others on the thread go on: some tenths of a millisecond.
const PIECE_VALUES: usize = 4096;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Executes the segment that was collected, and puts its answers in order.
    pub(super) async fn finish(&mut self) -> Result<(), Gone> {
        if self.segment.is_empty() {
            return Ok(());
        }
        let mut segment = mem::take(&mut self.segment);
        let resp = self.resp;
        let Some(backend) = resp.api.backend() else {
            // Nothing for the store is taken on before there is one.
            self.out.extend_from_slice(&segment.ready);
            return Ok(());
        };
        // All are in line before the first one is waited for.
        let commands = segment.commands.drain(..);
        let mut outcomes = commands
            .map(|command| backend.write(command))
            .collect::<Vec<_>>()
            .into_iter();
        let mut started = Instant::now();
        let deadline = started + resp.api.answer_within();
        let writes = outcomes.len();
        let mut found = mem::take(&mut segment.found);
        let mut failed = None;
        for slot in segment.slots.drain(..) {
            let (name, shape, silent, plan) = match slot {
                Slot::Ready(length) => {
                    let ready = segment.ready.split_to(length);
                    self.out.extend_from_slice(&ready);
                    continue;
                }
                Slot::Op {
                    name,
                    shape,
                    silent,
                } => (name, shape, silent, None),
                Slot::Exec { plan, silent } => ("exec", Shape::Plain, silent, Some(plan)),
                Slot::Published { receivers, silent } => {
                    self.write_receivers(receivers, silent).await;
                    continue;
                }
            };
            let value = if let Some(outcome) = outcomes.next() {
                let outcome = self.patience.wait(deadline, outcome).await;
                if outcomes.len() == 0 {
                    resp.api.latency().wrote(started.elapsed(), writes);
                }
                outcome.map_or_else(|| Err(no_outcome(name)), |outcome| written(name, outcome))
            } else {
                if found.is_empty() && failed.is_none() {
                    let queries = mem::take(&mut segment.queries);
                    let asked = queries.len();
                    let values = mem::take(&mut found);
                    let stale = self.session.stale_reads;
                    match resp.look(stale, queries, values).await {
                        Ok((values, left)) => (found, segment.queries) = (values, left),
                        Err(failure) => failed = Some(failure),
                    }
                    let answered = asked - segment.queries.len();
                    let now = Instant::now();
                    resp.api.latency().read(now - started, answered);
                    // What one look has not come to is another's.
                    started = now;
                }
                found
                    .pop_front()
                    .ok_or_else(|| failed.clone().unwrap_or(Failure::SYNTAX))
            };
            match plan {
                Some(plan) => self.write_exec(&plan, value, silent).await,
                None if silent => {}
                None => self.write_answer(name, &shape, value).await,
            }
            if self.out.len() >= OUTPUT_BYTES {
                self.flush().await?;
            }
        }
        segment.found = found;
        segment.recycle();
        self.segment = segment;
        Ok(())
    }

    /// Writes what the store answered, aside if that takes long.
    async fn write_answer(
        &mut self,
        name: &str,
        shape: &Shape,
        value: Result<ReplyValue, Failure>,
    ) {
        if let (Shape::Plain, Ok(ReplyValue::Array(values))) = (shape, &value)
            && values.len() > PIECE_VALUES
        {
            return self.write_many(name, values).await;
        }
        let steps = value.as_ref().map_or(0, |value| shape.steps(value));
        if steps == 0 {
            return self.write_value(name, shape, value);
        }
        let server = &self.resp.server;
        let write = || self.write_value(name, shape, value);
        server.aside.run(steps, write).await;
    }

    /// Writes an array in pieces, between which others on this thread go on.
    async fn write_many(&mut self, name: &str, values: &[ReplyValue]) {
        ReplyWriter::new(&mut self.out, self.session.protocol).array(values.len());
        for piece in values.chunks(PIECE_VALUES) {
            for value in piece {
                let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
                if let Err(failure) = Shape::Plain.write(&mut reply, name, value) {
                    reply.error(failure.as_bytes());
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn write_value(&mut self, name: &str, shape: &Shape, value: Result<ReplyValue, Failure>) {
        let start = self.out.len();
        let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
        let result = value.and_then(|value| shape.write(&mut reply, name, &value));
        if let Err(failure) = result {
            self.out.truncate(start);
            Stats::add(&self.resp.server.stats.errors, 1);
            ReplyWriter::new(&mut self.out, self.session.protocol).error(failure.as_bytes());
        }
    }

    /// Answers EXEC: the store's answers, and in their places what the node answers by itself.
    pub(super) async fn write_exec(
        &mut self,
        plan: &Plan,
        value: Result<ReplyValue, Failure>,
        silent: bool,
    ) {
        let start = self.out.len();
        match value {
            Ok(ReplyValue::Array(values)) => {
                let mut values = values.into_iter();
                let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
                reply.array(plan.items.len());
                for item in &plan.items {
                    match item {
                        Item::Step { name, shape } => {
                            let value = values.next().ok_or(Failure::SYNTAX);
                            self.write_answer(name, shape, value).await;
                        }
                        Item::Edge(spec, request) => match spec.handler {
                            Handler::Publish(publish) => {
                                self.publish_in_exec(publish, request, spec.name).await;
                            }
                            Handler::Wait(wait) => {
                                let args = Args {
                                    request,
                                    name: spec.name,
                                    db: self.session.db,
                                };
                                let waiting = wait(&args);
                                // It does not wait, so the client cannot go meanwhile.
                                let _ = self.wait_copies(waiting, false).await;
                            }
                            _ => self.edge(spec, request),
                        },
                        Item::Failed(failure) => {
                            let failed = Err(failure.clone());
                            self.write_value("exec", &Shape::Plain, failed);
                        }
                    }
                }
            }
            other => self.write_value("exec", &Shape::Plain, other),
        }
        if silent {
            self.out.truncate(start);
        }
    }
}

/// Reading, which needs nothing of the connection but whether old answers will do.
impl<B: Backend> Resp<B> {
    /// Answers as many queries as one look at the store allows; `values` is where, and empty.
    async fn look(
        &self,
        stale: bool,
        queries: VecDeque<Query>,
        values: VecDeque<ReplyValue>,
    ) -> Result<Found, Failure> {
        let Some(backend) = self.api.backend() else {
            return Err(Failure::loading());
        };
        // What looks at many keys is read in pieces, and by itself.
        if queries.front().is_some_and(is_long) {
            let (mut queries, mut values) = (queries, values);
            let first = queries.drain(..1).collect();
            let answers = self.api.read_all(backend, stale, first).await;
            values.extend(answers.map_err(|error| Failure::from(&error))?.values);
            return Ok((values, queries));
        }
        if stale {
            let read = |store: &Store| look(store, queries, values, || backend.now_ms(store));
            return backend
                .read_old(read)
                .map_err(|error| Failure::from(&error));
        }
        let clock = backend.clone();
        self.linearizable(move |store| look(store, queries, values, || clock.now_ms(store)))
            .await
    }

    pub(super) async fn linearizable<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let api = &self.api;
        let Some(backend) = api.backend() else {
            return Err(Failure::loading());
        };
        let result = api.read(backend, api.answer_within(), read).await;
        result.map_err(|error| Failure::from(&error))
    }

    /// A transaction that only reads: one state, no log entry.
    pub(super) async fn read_all(
        &self,
        stale: bool,
        steps: Vec<Step>,
    ) -> Result<ReplyValue, Failure> {
        let queries = steps.into_iter().filter_map(|step| match step {
            Step::Read(query) => Some(query),
            Step::Write(_) => None,
        });
        let queries: Vec<Query> = queries.collect();
        if queries.is_empty() {
            return Ok(ReplyValue::Array(Vec::new()));
        }
        let Some(backend) = self.api.backend() else {
            return Err(Failure::loading());
        };
        let answers = self.api.read_all(backend, stale, queries).await;
        let answers = answers.map_err(|error| Failure::from(&error))?;
        Ok(ReplyValue::Array(answers.values))
    }
}

/// A write's answer, or why there is none.
fn written(name: &str, outcome: Result<Reply, RequestError>) -> Result<ReplyValue, Failure> {
    match outcome {
        Ok(reply) => Ok(reply.value),
        Err(RequestError::Unknown { detail }) => Err(unknown(name, &detail)),
        Err(error) => Err(Failure::from(&error)),
    }
}

fn no_outcome(name: &str) -> Failure {
    unknown(name, "it took longer than request_timeout_ms")
}

fn unknown(name: &str, detail: &str) -> Failure {
    let name = name.to_uppercase();
    let text = format!("outcome of {name} is not known: {detail}; check before retrying");
    Failure::of(ErrorCode::Unknown, &text)
}
