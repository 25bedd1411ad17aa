//! Runs the batch that a connection has collected: its writes are submitted together or its reads
//! share one hold of the store's lock, and the answers are written in the order of the requests,
//! those that the node gives by itself among them.
//!
//! Invariants: all writes are in line before the first one is waited for; a request whose outcome
//! did not come by the deadline is answered as unknown, and never as not executed.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;
use std::vec;

use memkv_node::RequestError;
use memkv_proto::ErrorCode;
use memkv_resp::{Output, ReplyWriter, Request};
use memkv_store::{Principal, Query, Reply, ReplyError, ReplyValue, Step};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Resp;
use super::conn::{Conn, Disconnected, OUTPUT_BYTES};
use super::counted::Executed;
use super::deadline_timer::DeadlineTimer;
use super::pipeline_batch::{PipelineBatch, Slot};
use super::transaction::{Item, Plan};
use crate::backend::Backend;
use crate::commands::{Args, ErrorReply, Handler, ReplyFormat, Spec, range_head};
use crate::ledger::{Class, Held};
use crate::read_batch::ReadBatch;
use crate::report::Run;
use crate::service::{Service, memory_of};

/// The user of a read is not as it was when the read was judged. It happens once for each change.
const CHANGED: ErrorReply =
    ErrorReply::new("TRYAGAIN the user was changed while this was read; try again");

/// Values of an array that are written before others on the thread go on: some tenths of a millisecond.
const PIECE_VALUES: usize = 4096;

/// The outcomes of writes that answer with values, all of which are there. The store may have let go of the
/// values, so they are counted until the client has read them.
struct Values {
    /// Each with what it holds; none where it did not come in time.
    outcomes: VecDeque<(usize, Option<Result<Reply, RequestError>>)>,
    /// Of those that are left, and of the one that is being written.
    bytes: usize,
    /// Of the one that is being written.
    written: usize,
    held: Held,
}

impl Values {
    fn push(&mut self, outcome: Option<Result<Reply, RequestError>>) {
        let bytes = match &outcome {
            Some(Ok(reply)) => memory_of(&reply.value),
            Some(Err(_)) | None => 0,
        };
        self.bytes = self.bytes.saturating_add(bytes);
        self.held.set(self.bytes);
        self.outcomes.push_back((bytes, outcome));
    }

    /// The next one; what came before it has been written.
    fn pop(&mut self) -> Option<Option<Result<Reply, RequestError>>> {
        self.bytes = self.bytes.saturating_sub(self.written);
        self.held.set(self.bytes);
        let (bytes, outcome) = self.outcomes.pop_front()?;
        self.written = bytes;
        Some(outcome)
    }
}

/// The store's answers to a batch, in order, as they come in.
struct Answers<'a, B, F> {
    service: &'a Service<B>,
    /// Reads may be old.
    stale: bool,
    /// For whom everything is executed.
    principal: Option<Principal>,
    /// Writes that were submitted, and how many they were.
    outcomes: vec::IntoIter<F>,
    writes: usize,
    /// Their outcomes instead, where some answer with values.
    values: Option<Box<Values>>,
    /// Reads, as far as the store was asked.
    reads: ReadBatch,
    /// Why the store cannot be asked further.
    failed: Option<ErrorReply>,
    /// When the writes were submitted, or the store was asked last.
    started: Instant,
    /// From then to the last answer of those that were asked for.
    took: Duration,
    /// The revision of the last write.
    revision: u64,
    deadline: Instant,
}

impl<B: Backend, F: Future<Output = Result<Reply, RequestError>>> Answers<'_, B, F> {
    /// The answer to the next read, if the store has given it already. Nearly always it has, in a pipeline
    /// of reads; a future for each of them costs a node 7 % more CPU time per GET.
    fn ready(&mut self) -> Option<ReplyValue> {
        match self.outcomes.len() {
            0 => self.reads.values.pop_front(),
            _ => None,
        }
    }

    /// Waits for the outcomes of all writes, and counts what they hold.
    async fn collect(&mut self, timer: &mut DeadlineTimer) {
        let mut values = Box::new(Values {
            outcomes: VecDeque::with_capacity(self.writes),
            bytes: 0,
            written: 0,
            held: self.service.ledger().hold(Class::Output),
        });
        for outcome in mem::take(&mut self.outcomes) {
            let outcome = timer.wait(self.deadline, outcome).await;
            self.note_revision(outcome.as_ref());
            values.push(outcome);
        }
        self.wrote();
        self.values = Some(values);
    }

    /// The answer to the next write or read, which is the command called `name`.
    async fn next(
        &mut self,
        timer: &mut DeadlineTimer,
        name: &'static str,
    ) -> Result<ReplyValue, ErrorReply> {
        let there = self.values.as_mut().and_then(|values| values.pop());
        if let Some(outcome) = there {
            return answer(name, outcome);
        }
        if let Some(outcome) = self.outcomes.next() {
            let outcome = timer.wait(self.deadline, outcome).await;
            self.note_revision(outcome.as_ref());
            if self.outcomes.len() == 0 {
                self.wrote();
            }
            return answer(name, outcome);
        }
        if self.reads.values.is_empty() && self.failed.is_none() {
            self.read().await;
        }
        let value = self.reads.values.pop_front();
        value.ok_or_else(|| self.failed.clone().unwrap_or(ErrorReply::SYNTAX))
    }

    fn note_revision(&mut self, outcome: Option<&Result<Reply, RequestError>>) {
        if let Some(Ok(reply)) = outcome {
            self.revision = reply.revision;
        }
    }

    /// All writes have their outcomes.
    fn wrote(&mut self) {
        self.took = self.started.elapsed();
        self.service.latency().wrote(self.took, self.writes);
    }

    /// How long the commands took that were answered last.
    fn took(&self) -> Duration {
        match self.outcomes.len() {
            0 => self.took,
            _ => self.started.elapsed(),
        }
    }

    /// Asks the store for as many answers as it gives at once.
    async fn read(&mut self) {
        let reads = mem::take(&mut self.reads);
        let asked = reads.queries.len();
        match self.service.read(self.stale, reads).await {
            Ok(_) if !self.service.is_unchanged(self.principal) => {
                self.reads = ReadBatch::default();
                self.failed = Some(CHANGED);
            }
            Ok(reads) => self.reads = reads,
            Err(error) => self.failed = Some(ErrorReply::from(&error)),
        }
        let now = Instant::now();
        let answered = asked.saturating_sub(self.reads.queries.len());
        self.took = now - self.started;
        self.service.latency().read(self.took, answered);
        // Queries that are left are asked again later, and their time begins then.
        self.started = now;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Executes the batch that was collected, and writes its answers in order.
    pub(super) async fn run_batch(&mut self) -> Result<(), Disconnected> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = mem::take(&mut self.batch);
        let service = &*self.resp.service;
        let principal = self.session.principal();
        let submitted = service
            .submit(&mut batch.commands, batch.steps, principal)
            .await;
        let Ok(outcomes) = submitted else {
            // Before there is a node, nothing for the store is taken into a batch.
            self.out.put(&batch.ready);
            return Ok(());
        };
        let started = Instant::now();
        let mut answers = Answers {
            service,
            stale: self.session.stale_reads,
            principal,
            writes: outcomes.len(),
            outcomes: outcomes.into_iter(),
            values: None,
            reads: mem::take(&mut batch.reads),
            failed: None,
            started,
            took: Duration::ZERO,
            revision: 0,
            deadline: started + service.answer_within(),
        };
        if batch.answers_values() {
            Box::pin(answers.collect(&mut self.deadline_timer)).await;
        }
        let commands = batch.slots.len();
        self.write_answers(&mut batch, &mut answers).await?;
        let executed = Executed {
            started,
            took: answers.took(),
            revision: answers.revision,
            more: commands.saturating_sub(1),
        };
        batch.reads = answers.reads;
        if let Some((spec, request)) = batch.head.take() {
            self.note_slow(spec, &request, &executed);
            self.parser.recycle(request);
        }
        batch.recycle();
        self.batch = batch;
        Ok(())
    }

    /// Writes the answers of a batch as they come, in order, and counts its calls.
    async fn write_answers<F: Future<Output = Result<Reply, RequestError>>>(
        &mut self,
        batch: &mut PipelineBatch,
        answers: &mut Answers<'_, B, F>,
    ) -> Result<(), Disconnected> {
        let mut run = Run::default();
        for slot in batch.slots.drain(..) {
            let failures = self.failures;
            let (spec, failed) = match slot {
                Slot::Ready(length) => {
                    let ready = batch.ready.split_to(length);
                    self.out.put(&ready);
                    continue;
                }
                Slot::Published {
                    spec,
                    receivers,
                    silent,
                } => {
                    run.end(&self.resp.server.calls, answers.took());
                    let since = self.since();
                    self.write_receivers(receivers, silent).await?;
                    self.executed(spec, None, &since);
                    continue;
                }
                Slot::Op {
                    spec,
                    format,
                    silent,
                } => {
                    if run.ends_with(spec) {
                        run.end(&self.resp.server.calls, answers.took());
                    }
                    let value = match answers.ready() {
                        Some(value) => Ok(value),
                        None => answers.next(&mut self.deadline_timer, spec.name).await,
                    };
                    if !silent {
                        self.write_answer(spec.name, &format, value).await?;
                    }
                    (spec, self.failures > failures)
                }
                Slot::Exec { spec, plan, silent } => {
                    run.end(&self.resp.server.calls, answers.took());
                    let value = answers.next(&mut self.deadline_timer, spec.name).await;
                    let took = answers.took();
                    // A command of it that fails is its own failure.
                    let failed = !matches!(value, Ok(ReplyValue::Array(_) | ReplyValue::Nil));
                    Box::pin(self.write_exec(&plan, value, silent, took)).await?;
                    (spec, failed)
                }
            };
            run.add(spec, failed);
            if self.out.len() >= OUTPUT_BYTES {
                self.flush().await?;
            }
        }
        run.end(&self.resp.server.calls, answers.took());
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
            if let Err(error) = ReplyFormat::Plain.write(&mut reply, name, &value) {
                reply.error(error.as_bytes());
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
        if let Err(error) = result {
            self.out.truncate(start);
            self.note_error(&error);
            ReplyWriter::new(&mut self.out, self.session.protocol).error(error.as_bytes());
        }
    }

    /// Executes a command of a transaction that the node executes by itself, and answers in its place. Its user
    /// may have lost the right while the transaction was under way.
    async fn run_local(
        &mut self,
        spec: &'static Spec,
        request: &Request,
    ) -> Result<(), Disconnected> {
        let args = Args {
            request,
            name: spec.name,
            db: self.session.db,
        };
        if let Err(error) = self.judge_now(spec, &args).await? {
            self.count_refused(spec, &error);
            self.write_value("exec", &ReplyFormat::Plain, Err(error));
            return Ok(());
        }
        let since = self.since();
        match spec.handler {
            Handler::Publish(publish) => self.publish_in_exec(publish, request, spec.name).await,
            Handler::Wait(wait) => {
                let waiting = wait(&args);
                // It does not wait, so the client cannot go meanwhile.
                let _ = self.wait_copies(waiting, false).await;
            }
            Handler::Account(account) => Box::pin(self.account(account, spec, request)).await,
            _ => {
                self.answer_locally(spec, request).await;
                return Ok(());
            }
        }
        self.executed(spec, None, &since);
        Ok(())
    }

    /// Answers EXEC, which took so long: the store's answers, and in their places what the node answers by
    /// itself. A silent one sends nothing.
    pub(super) async fn write_exec(
        &mut self,
        plan: &Plan,
        value: Result<ReplyValue, ErrorReply>,
        silent: bool,
        took: Duration,
    ) -> Result<(), Disconnected> {
        let start = self.out.mark();
        match value {
            Ok(ReplyValue::Array(values)) => {
                let mut values = values.into_iter();
                let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
                reply.array(plan.items.len());
                for item in &plan.items {
                    match item {
                        Item::Step { spec, format } => {
                            let failures = self.failures;
                            let value = values.next().ok_or(ErrorReply::SYNTAX);
                            if !silent {
                                self.write_answer(spec.name, format, value).await?;
                            }
                            let failed = u64::from(self.failures > failures);
                            self.resp.server.calls.count(spec, took, 1, failed);
                        }
                        Item::Local(spec, request) => {
                            Box::pin(self.run_local(spec, request)).await?;
                        }
                        Item::Failed(spec, error) => {
                            self.count_refused(spec, error);
                            let failed = Err(error.clone());
                            self.write_value("exec", &ReplyFormat::Plain, failed);
                        }
                    }
                    if silent {
                        self.out.truncate(start);
                    } else if self.out.len() >= OUTPUT_BYTES {
                        self.flush().await?;
                    }
                }
            }
            Ok(ReplyValue::Error(error @ ReplyError::OutOfMemory)) => {
                let refused = ErrorReply::executed(error, "exec").of_exec();
                self.write_value("exec", &ReplyFormat::Plain, Err(refused));
            }
            other => self.write_value("exec", &ReplyFormat::Plain, other),
        }
        if silent {
            self.out.truncate(start);
        }
        Ok(())
    }
}

impl<B: Backend> Resp<B> {
    /// The answers to a transaction that only reads: one state, no log entry.
    pub(super) async fn read_all(
        &self,
        stale: bool,
        principal: Option<Principal>,
        steps: Vec<Step>,
        memory: &mut Held,
    ) -> Result<ReplyValue, ErrorReply> {
        let queries = steps.into_iter().filter_map(|step| match step {
            Step::Read(query) => Some(query),
            Step::Write(_) => None,
        });
        let queries: Vec<Query> = queries.collect();
        if queries.is_empty() {
            return Ok(ReplyValue::Array(Vec::new()));
        }
        let answers = self.service.read_all(stale, queries, memory).await;
        let answers = answers.map_err(|error| ErrorReply::from(&error))?;
        if !self.service.is_unchanged(principal) {
            return Err(CHANGED);
        }
        Ok(ReplyValue::Array(answers.values))
    }
}

/// A write's answer, or why there is none; without an outcome it did not come in time.
fn answer(
    name: &str,
    outcome: Option<Result<Reply, RequestError>>,
) -> Result<ReplyValue, ErrorReply> {
    match outcome {
        Some(Ok(reply)) => Ok(reply.value),
        Some(Err(RequestError::Unknown { detail })) => Err(unknown(name, &detail)),
        Some(Err(error)) => Err(ErrorReply::from(&error)),
        None => Err(no_outcome(name)),
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
