//! What becomes of a segment: its writes are submitted together or its reads share one look, and
//! the answers are put in order, those that the node gives by itself among them.

use std::collections::VecDeque;
use std::mem;

use memkv_node::RequestError;
use memkv_proto::ErrorCode;
use memkv_resp::{Output, ReplyWriter};
use memkv_store::{Query, Reply, ReplyValue, Step, Store};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Resp;
use super::conn::{Conn, Gone, OUTPUT_BYTES};
use super::segment::{Found, Slot, is_long, look};
use super::server::Stats;
use super::transaction::{Item, Plan};
use crate::aside;
use crate::backend::Backend;
use crate::commands::{Args, Failure, Handler, Shape, range_head};

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
            self.out.put(&segment.ready);
            return Ok(());
        };
        // All are in line before the first one is waited for.
        let commands = segment.commands.drain(..);
        let submit = || commands.map(|command| backend.write(command)).collect();
        let outcomes: Vec<_> = match aside::is_long(segment.steps) {
            true => Box::pin(resp.server.aside.run(segment.steps, submit)).await,
            false => submit(),
        };
        let mut outcomes = outcomes.into_iter();
        let mut started = Instant::now();
        let deadline = started + resp.api.answer_within();
        let writes = outcomes.len();
        let mut found = mem::take(&mut segment.found);
        let mut failed = None;
        for slot in segment.slots.drain(..) {
            let (name, shape, silent, plan) = match slot {
                Slot::Ready(length) => {
                    let ready = segment.ready.split_to(length);
                    self.out.put(&ready);
                    continue;
                }
                Slot::Op {
                    name,
                    shape,
                    silent,
                } => (name, shape, silent, None),
                Slot::Exec { plan, silent } => ("exec", Shape::Plain, silent, Some(plan)),
                Slot::Published { receivers, silent } => {
                    self.write_receivers(receivers, silent).await?;
                    continue;
                }
            };
            let value = if let Some(outcome) = outcomes.next() {
                let outcome = self.deadline_timer.wait(deadline, outcome).await;
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
                Some(plan) => Box::pin(self.write_exec(&plan, value, silent)).await?,
                None if silent => {}
                None => self.write_answer(name, &shape, value).await?,
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

    /// Writes what the store answered, aside if that takes long. Some of it may have been sent.
    async fn write_answer(
        &mut self,
        name: &str,
        shape: &Shape,
        mut value: Result<ReplyValue, Failure>,
    ) -> Result<(), Gone> {
        if let (Shape::Plain, Ok(ReplyValue::Array(values))) = (shape, &mut value) {
            return self.write_array(name, mem::take(values)).await;
        }
        if let (Shape::Range, Ok(ReplyValue::Array(parts))) = (shape, &mut value)
            && let [ReplyValue::Array(items), ReplyValue::Integer(more)] = &mut parts[..]
        {
            let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
            range_head(&mut reply, items, *more != 0);
            return self.write_array(name, mem::take(items)).await;
        }
        let steps = value.as_ref().map_or(0, |value| shape.steps(value));
        if steps == 0 {
            self.write_value(name, shape, value);
            return Ok(());
        }
        let server = &self.resp.server;
        let write = || self.write_value(name, shape, value);
        server.aside.run(steps, write).await;
        Ok(())
    }

    /// Writes an array in pieces, between which others on this thread go on, and sends it meanwhile.
    /// What was written is freed.
    async fn write_array(&mut self, name: &str, values: Vec<ReplyValue>) -> Result<(), Gone> {
        ReplyWriter::new(&mut self.out, self.session.protocol).array(values.len());
        for (at, value) in values.into_iter().enumerate() {
            let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
            if let Err(failure) = Shape::Plain.write(&mut reply, name, &value) {
                reply.error(failure.as_bytes());
            }
            if self.out.len() >= OUTPUT_BYTES {
                Box::pin(self.flush()).await?;
            }
            if at % PIECE_VALUES == PIECE_VALUES - 1 {
                yield_now().await;
            }
        }
        Ok(())
    }

    fn write_value(&mut self, name: &str, shape: &Shape, value: Result<ReplyValue, Failure>) {
        let start = self.out.mark();
        let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
        let result = value.and_then(|value| shape.write(&mut reply, name, &value));
        if let Err(failure) = result {
            self.out.truncate(start);
            Stats::add(&self.resp.server.stats.errors, 1);
            ReplyWriter::new(&mut self.out, self.session.protocol).error(failure.as_bytes());
        }
    }

    /// Answers EXEC: the store's answers, and in their places what the node answers by itself. A
    /// silent one sends nothing.
    pub(super) async fn write_exec(
        &mut self,
        plan: &Plan,
        value: Result<ReplyValue, Failure>,
        silent: bool,
    ) -> Result<(), Gone> {
        let start = self.out.mark();
        match value {
            Ok(ReplyValue::Array(values)) => {
                let mut values = values.into_iter();
                let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
                reply.array(plan.items.len());
                for item in &plan.items {
                    match item {
                        Item::Step { name, shape } => {
                            let value = values.next().ok_or(Failure::SYNTAX);
                            if !silent {
                                self.write_answer(name, shape, value).await?;
                            }
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
                            _ => self.edge(spec, request).await,
                        },
                        Item::Failed(failure) => {
                            let failed = Err(failure.clone());
                            self.write_value("exec", &Shape::Plain, failed);
                        }
                    }
                    if !silent && self.out.len() >= OUTPUT_BYTES {
                        self.flush().await?;
                    }
                }
            }
            other => self.write_value("exec", &Shape::Plain, other),
        }
        if silent {
            self.out.truncate(start);
        }
        Ok(())
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
