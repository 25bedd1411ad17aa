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
use super::conn::{Conn, Disconnected, OUTPUT_BYTES};
use super::pipeline_batch::{Found, Slot, is_long, read_batch};
use super::server::Stats;
use super::transaction::{Item, Plan};
use crate::aside;
use crate::backend::Backend;
use crate::commands::{Args, ErrorReply, Handler, ReplyFormat, range_head};

/// Values of an array that are written before others on the thread go on: some tenths of a millisecond.
const PIECE_VALUES: usize = 4096;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Executes the segment that was collected, and puts its answers in order.
    pub(super) async fn finish(&mut self) -> Result<(), Disconnected> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = mem::take(&mut self.batch);
        let resp = self.resp;
        let Some(backend) = resp.api.backend() else {
            // Nothing for the store is taken on before there is one.
            self.out.put(&batch.ready);
            return Ok(());
        };
        // All are in line before the first one is waited for.
        let commands = batch.commands.drain(..);
        let submit = || commands.map(|command| backend.write(command)).collect();
        let outcomes: Vec<_> = match aside::is_long(batch.steps) {
            true => Box::pin(resp.server.aside.run(batch.steps, submit)).await,
            false => submit(),
        };
        let mut outcomes = outcomes.into_iter();
        let mut started = Instant::now();
        let deadline = started + resp.api.answer_within();
        let writes = outcomes.len();
        let mut found = mem::take(&mut batch.found);
        let mut failed = None;
        for slot in batch.slots.drain(..) {
            let (name, format, silent, plan) = match slot {
                Slot::Ready(length) => {
                    let ready = batch.ready.split_to(length);
                    self.out.put(&ready);
                    continue;
                }
                Slot::Op {
                    name,
                    format,
                    silent,
                } => (name, format, silent, None),
                Slot::Exec { plan, silent } => ("exec", ReplyFormat::Plain, silent, Some(plan)),
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
                    let queries = mem::take(&mut batch.queries);
                    let asked = queries.len();
                    let values = mem::take(&mut found);
                    let stale = self.session.stale_reads;
                    match resp.read_batch(stale, queries, values).await {
                        Ok((values, left)) => (found, batch.queries) = (values, left),
                        Err(failure) => failed = Some(failure),
                    }
                    let answered = asked - batch.queries.len();
                    let now = Instant::now();
                    resp.api.latency().read(now - started, answered);
                    // What one look has not come to is another's.
                    started = now;
                }
                found
                    .pop_front()
                    .ok_or_else(|| failed.clone().unwrap_or(ErrorReply::SYNTAX))
            };
            match plan {
                Some(plan) => Box::pin(self.write_exec(&plan, value, silent)).await?,
                None if silent => {}
                None => self.write_answer(name, &format, value).await?,
            }
            if self.out.len() >= OUTPUT_BYTES {
                self.flush().await?;
            }
        }
        batch.found = found;
        batch.recycle();
        self.batch = batch;
        Ok(())
    }

    /// Writes what the store answered, aside if that takes long. Some of it may have been sent.
    async fn write_answer(
        &mut self,
        name: &str,
        format: &ReplyFormat,
        mut value: Result<ReplyValue, ErrorReply>,
    ) -> Result<(), Disconnected> {
        if let (ReplyFormat::Plain, Ok(ReplyValue::Array(values))) = (format, &mut value) {
            return self.write_array(name, mem::take(values)).await;
        }
        if let (ReplyFormat::Range, Ok(ReplyValue::Array(parts))) = (format, &mut value)
            && let [ReplyValue::Array(items), ReplyValue::Integer(more)] = &mut parts[..]
        {
            let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
            range_head(&mut reply, items, *more != 0);
            return self.write_array(name, mem::take(items)).await;
        }
        let steps = value.as_ref().map_or(0, |value| format.steps(value));
        if steps == 0 {
            self.write_value(name, format, value);
            return Ok(());
        }
        let server = &self.resp.server;
        let write = || self.write_value(name, format, value);
        server.aside.run(steps, write).await;
        Ok(())
    }

    /// Writes an array in pieces, between which others on this thread go on, and sends it meanwhile.
    /// What was written is freed.
    async fn write_array(
        &mut self,
        name: &str,
        values: Vec<ReplyValue>,
    ) -> Result<(), Disconnected> {
        ReplyWriter::new(&mut self.out, self.session.protocol).array(values.len());
        for (at, value) in values.into_iter().enumerate() {
            let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
            if let Err(failure) = ReplyFormat::Plain.write(&mut reply, name, &value) {
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

    fn write_value(
        &mut self,
        name: &str,
        format: &ReplyFormat,
        value: Result<ReplyValue, ErrorReply>,
    ) {
        let start = self.out.mark();
        let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
        let result = value.and_then(|value| format.write(&mut reply, name, &value));
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
        value: Result<ReplyValue, ErrorReply>,
        silent: bool,
    ) -> Result<(), Disconnected> {
        let start = self.out.mark();
        match value {
            Ok(ReplyValue::Array(values)) => {
                let mut values = values.into_iter();
                let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
                reply.array(plan.items.len());
                for item in &plan.items {
                    match item {
                        Item::Step { name, format } => {
                            let value = values.next().ok_or(ErrorReply::SYNTAX);
                            if !silent {
                                self.write_answer(name, format, value).await?;
                            }
                        }
                        Item::Local(spec, request) => match spec.handler {
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
                            self.write_value("exec", &ReplyFormat::Plain, failed);
                        }
                    }
                    if !silent && self.out.len() >= OUTPUT_BYTES {
                        self.flush().await?;
                    }
                }
            }
            other => self.write_value("exec", &ReplyFormat::Plain, other),
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
    async fn read_batch(
        &self,
        stale: bool,
        queries: VecDeque<Query>,
        values: VecDeque<ReplyValue>,
    ) -> Result<Found, ErrorReply> {
        let Some(backend) = self.api.backend() else {
            return Err(ErrorReply::loading());
        };
        // What looks at many keys is read in pieces, and by itself.
        if queries.front().is_some_and(is_long) {
            let (mut queries, mut values) = (queries, values);
            let first = queries.drain(..1).collect();
            let answers = self.api.read_all(backend, stale, first).await;
            values.extend(answers.map_err(|error| ErrorReply::from(&error))?.values);
            return Ok((values, queries));
        }
        if stale {
            let read = |store: &Store| read_batch(store, queries, values, || backend.now_ms(store));
            return backend
                .read_old(read)
                .map_err(|error| ErrorReply::from(&error));
        }
        let clock = backend.clone();
        self.linearizable(move |store| read_batch(store, queries, values, || clock.now_ms(store)))
            .await
    }

    pub(super) async fn linearizable<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, ErrorReply> {
        let api = &self.api;
        let Some(backend) = api.backend() else {
            return Err(ErrorReply::loading());
        };
        let result = api.read(backend, api.answer_within(), read).await;
        result.map_err(|error| ErrorReply::from(&error))
    }

    /// A transaction that only reads: one state, no log entry.
    pub(super) async fn read_all(
        &self,
        stale: bool,
        steps: Vec<Step>,
    ) -> Result<ReplyValue, ErrorReply> {
        let queries = steps.into_iter().filter_map(|step| match step {
            Step::Read(query) => Some(query),
            Step::Write(_) => None,
        });
        let queries: Vec<Query> = queries.collect();
        if queries.is_empty() {
            return Ok(ReplyValue::Array(Vec::new()));
        }
        let Some(backend) = self.api.backend() else {
            return Err(ErrorReply::loading());
        };
        let answers = self.api.read_all(backend, stale, queries).await;
        let answers = answers.map_err(|error| ErrorReply::from(&error))?;
        Ok(ReplyValue::Array(answers.values))
    }
}

/// A write's answer, or why there is none.
fn written(name: &str, outcome: Result<Reply, RequestError>) -> Result<ReplyValue, ErrorReply> {
    match outcome {
        Ok(reply) => Ok(reply.value),
        Err(RequestError::Unknown { detail }) => Err(unknown(name, &detail)),
        Err(error) => Err(ErrorReply::from(&error)),
    }
}

fn no_outcome(name: &str) -> ErrorReply {
    unknown(name, "it took longer than request_timeout_ms")
}

fn unknown(name: &str, detail: &str) -> ErrorReply {
    let name = name.to_uppercase();
    let text = format!("outcome of {name} is not known: {detail}; check before retrying");
    ErrorReply::of(ErrorCode::Unknown, &text)
}
