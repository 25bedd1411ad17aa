//! MULTI, EXEC, DISCARD and WATCH: what a connection queues, and how it is executed.
//!
//! Invariant: the commands between MULTI and EXEC are judged twice, and executed together or not at all.

use std::collections::BTreeSet;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use memkv_proto::ErrorCode;
use memkv_resp::Request;
use memkv_store::{Command, check_steps};
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::{Conn, Disconnected};
use super::dispatch::{QUEUES_ARE_FULL, check};
use super::pipeline_batch::Slot;
use super::session::{MAX_QUEUED, Queue, WATCHED_BYTES, Watched};
use super::transaction::{Plan, guards, writes};
use crate::backend::Backend;
use crate::commands::{Args, ErrorReply, Op, Spec, TransactionControl};
use crate::ledger::{Class, Held};

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    pub(super) async fn control(
        &mut self,
        control: TransactionControl,
        spec: &'static Spec,
        request: &Request,
    ) -> Result<(), Disconnected> {
        let is_open = self.session.queue.is_some();
        let since = self.since();
        match control {
            TransactionControl::Multi if is_open => {
                self.fail(&ErrorReply::new("ERR MULTI calls can not be nested"));
            }
            TransactionControl::Multi => {
                self.session.queue = Some(Queue::default());
                self.answer(|reply| reply.ok());
            }
            TransactionControl::Discard => {
                if self.session.queue.take().is_some() {
                    self.session.watched.clear();
                    self.answer(|reply| reply.ok());
                } else {
                    self.fail(&ErrorReply::new("ERR DISCARD without MULTI"));
                }
            }
            TransactionControl::Watch if is_open => {
                self.fail(&ErrorReply::new("ERR WATCH inside MULTI is not allowed"));
            }
            TransactionControl::Watch => {
                self.run_batch().await?;
                let since = self.since();
                self.watch(request).await?;
                self.executed(spec, Some(request), &since);
                return Ok(());
            }
            TransactionControl::Exec => return Box::pin(self.exec(spec, request)).await,
        }
        self.executed(spec, None, &since);
        Ok(())
    }

    /// Only while no batch is being collected.
    async fn watch(&mut self, request: &Request) -> Result<(), Disconnected> {
        let db = self.session.db;
        let watched = &self.session.watched;
        let (steps, server) = (request.byte_count(), &self.resp.server);
        let keys = Box::pin(server.aside.run(steps, || new_keys(watched, db, request))).await;
        let Some(keys) = keys else {
            self.fail(&ErrorReply::with(format!(
                "ERR a connection watches at most {MAX_QUEUED} keys"
            )));
            return Ok(());
        };
        let bytes = keys
            .iter()
            .map(|key| key.len() + WATCHED_BYTES)
            .sum::<usize>();
        let bytes = self.session.watched_bytes + bytes;
        if !self.session.queued.try_set(bytes) {
            self.fail(&ErrorReply::of(ErrorCode::Overloaded, QUEUES_ARE_FULL));
            return Ok(());
        }
        self.session.watched_bytes = bytes;
        let query = |key: &Bytes| Watched::query(db, key.clone());
        let queries = keys.iter().map(query).collect();
        let mut answers_memory = Held::default();
        let read = self
            .resp
            .service
            .read_all(false, queries, &mut answers_memory);
        match read.await {
            Ok(answers) => {
                let seen = keys.into_iter().zip(&answers.values);
                let watched =
                    seen.map(|(key, value)| Watched::new(db, key, value, answers.revision));
                self.session.watched.extend(watched);
                self.answer(|reply| reply.ok());
            }
            Err(error) => self.fail(&ErrorReply::from(&error)),
        }
        Ok(())
    }

    async fn exec(&mut self, spec: &'static Spec, request: &Request) -> Result<(), Disconnected> {
        let Some(queue) = self.session.queue.take() else {
            self.fail_exec(spec, &ErrorReply::new("ERR EXEC without MULTI"));
            return Ok(());
        };
        let watched = mem::take(&mut self.session.watched);
        if queue.is_broken {
            self.fail_exec(spec, &ErrorReply::EXEC_ABORT);
            return Ok(());
        }
        if self.resp.service.backend().is_none() {
            self.fail_exec(spec, &ErrorReply::loading());
            return Ok(());
        }
        let db = self.session.db;
        let steps = queue.steps();
        let requests = queue.requests.iter().map(|(_, request)| request);
        let judging = requests.map(|request| self.session.judging_steps(request));
        let judging = judging.fold(steps, usize::saturating_add);
        let max = self.resp.server.settings.max_value_bytes;
        let session = &self.session;
        let judge = |spec, args: &Args<'_>, op: Option<&Op>| {
            let judged = session.judge(spec, args, op);
            judged.map_err(|denied| ErrorReply::denied_in_exec(&denied))
        };
        let plan = || Plan::new(queue, db, |command| check(command, max), judge);
        let (plan, operations) = Box::pin(self.resp.server.aside.run(judging, plan)).await;
        let is_last = plan.has_local();
        let silent = self.session.is_silent();
        if let Err(error) = check_steps(watched.len(), &operations) {
            self.fail_exec(spec, &ErrorReply::executed(error, "exec").of_exec());
            return Ok(());
        }
        if watched.is_empty() && !writes(&operations) {
            self.run_batch().await?;
            let since = self.since();
            let (stale, principal) = (self.session.stale_reads, self.session.principal());
            let mut memory = self.resp.service.ledger().hold(Class::Output);
            let values = self
                .resp
                .read_all(stale, principal, operations, &mut memory)
                .await;
            let (executed, failed) = (since.executed(), u64::from(values.is_err()));
            let calls = &self.resp.server.calls;
            calls.count(spec, executed.took, 1, failed);
            self.note_slow(spec, request, &executed);
            self.write_exec(&plan, values, silent, executed.took)
                .await?;
            return self.flush().await;
        }
        let command = Command::Transaction {
            guards: guards(watched),
            operations,
            otherwise: Vec::new(),
        };
        self.add_write(command, steps, Slot::Exec { spec, plan, silent })
            .await?;
        if is_last {
            self.run_batch().await?;
        }
        Ok(())
    }

    /// Answers an EXEC that executes nothing.
    fn fail_exec(&mut self, spec: &'static Spec, error: &ErrorReply) {
        self.fail(error);
        let calls = &self.resp.server.calls;
        calls.count(spec, Duration::ZERO, 1, 1);
    }
}

/// The keys that a request names and that are not watched yet, each once; none if they are too many.
/// Compares each with few others, since keys may be long and alike.
fn new_keys(watched: &[Watched], db: u8, request: &Request) -> Option<Vec<Bytes>> {
    let here = watched.iter().filter(|watched| watched.db == db);
    let known: BTreeSet<&[u8]> = here.map(|watched| &watched.key[..]).collect();
    let mut new = BTreeSet::new();
    for key in request.args().skip(1) {
        if !known.contains(key) && new.insert(key) && watched.len() + new.len() > MAX_QUEUED {
            return None;
        }
    }
    Some(new.into_iter().map(Bytes::copy_from_slice).collect())
}
