//! Sorts the requests of a connection: each joins the batch that is being collected, is queued by
//! MULTI, or is answered at once. Never waits for the store but to run the batch before it.
//!
//! Invariant: answers leave in the order of the requests. A request that is not for the store
//! therefore either puts its answer into the batch, or has the batch run first.

use std::collections::BTreeSet;
use std::mem;

use bytes::Bytes;
use memkv_proto::ErrorCode;
use memkv_resp::{Output, ReplyWriter, Request};
use memkv_store::{Command, Query, ReplyError, check_steps};
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::{Conn, Disconnected};
use super::pipeline_batch::Slot;
use super::server::Stats;
use super::session::{MAX_QUEUED, MAX_QUEUED_BYTES, Queue, WATCHED_BYTES, Watched};
use super::transaction::{Plan, guards, writes};
use crate::aside::{is_long, step_aside, steps_of};
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::commands::{
    Args, Call, Data, ErrorReply, Handler, Op, ReplyFormat, Spec, TransactionControl, flag,
    in_database, resolve,
};
use crate::ledger::{Class, Held};

/// Why a command is not queued, or a key not watched.
const QUEUES_ARE_FULL: &str = "the transactions that all clients have begun take too much memory; \
                               nothing was executed; try again later, or ask another node";

/// Commands that a RESP2 connection with subscriptions may still send.
const SUBSCRIBERS_COMMANDS: [&str; 9] = [
    "subscribe",
    "unsubscribe",
    "psubscribe",
    "punsubscribe",
    "ssubscribe",
    "sunsubscribe",
    "ping",
    "quit",
    "reset",
];

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Takes the next request.
    pub(super) async fn dispatch(&mut self, request: Request) -> Result<(), Disconnected> {
        #[cfg(memkv_bugs)]
        memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Command);
        if self.leaves {
            self.refuse(&request, &ErrorReply::stopping());
            self.session.command_done();
            return Ok(());
        }
        if self.session.is_outdated() {
            // The commands so far go under the table by which they were judged.
            Box::pin(self.run_batch()).await?;
            if !Box::pin(self.can_be_judged(&request)).await {
                let why = ErrorReply::from(&self.resp.service.knows_no_users());
                self.refuse(&request, &why);
                self.session.command_done();
                return Ok(());
            }
            if !self.session.renew() {
                return Err(Disconnected);
            }
        }
        match self.admit(&request) {
            Err(error) => self.refuse(&request, &error),
            Ok(spec) => {
                self.session.command = spec.name;
                if spec.has(flag::ADMIN) {
                    self.note_admin(spec);
                }
                let is_control = matches!(spec.handler, Handler::TransactionControl(_))
                    || matches!(spec.name, "quit" | "reset");
                match (&self.session.queue, is_control) {
                    (Some(_), false) => {
                        // What was sent before may make room.
                        if spec.has(flag::DENYOOM) && self.refuses_growth() {
                            self.run_batch().await?;
                        }
                        self.enqueue(spec, request);
                    }
                    _ => {
                        self.route(spec, &request).await?;
                        self.parser.recycle(request);
                    }
                }
            }
        }
        self.session.command_done();
        Ok(())
    }

    /// Answers a request that is not executed, nor queued.
    fn refuse(&mut self, request: &Request, error: &ErrorReply) {
        if is_exec(request) {
            self.session.queue = None;
            self.session.watched.clear();
            return self.fail(&error.of_exec());
        }
        if let Some(queue) = &mut self.session.queue {
            queue.give_up();
        }
        self.fail(error);
    }

    /// Tells the audit log of a command that acts on more than keys.
    fn note_admin(&self, spec: &Spec) {
        let kind = match spec.name {
            "config|set" | "config|resetstat" => audit::Kind::Settings,
            "client|kill" => audit::Kind::Connections,
            "shutdown" => audit::Kind::Shutdown,
            _ => return,
        };
        audit::record(&Event {
            kind,
            allowed: true,
            user: &String::from_utf8_lossy(&self.session.user_name()),
            origin: Some(self.session.client.addr),
            detail: spec.name,
        });
    }

    /// The command's line in the table, if it may be executed now.
    fn admit(&self, request: &Request) -> Result<&'static Spec, ErrorReply> {
        let spec = resolve(request)?;
        if let Handler::Forbidden(why) = spec.handler {
            return Err(ErrorReply::new(why));
        }
        if !self.session.is_authenticated() && !spec.has(flag::NO_AUTH) {
            return Err(ErrorReply::NO_AUTH);
        }
        if !self.session.may_do_all() {
            self.session.judge_name(spec, request)?;
        }
        if spec.has(flag::NO_MULTI) && self.session.queue.is_some() {
            let text = "ERR Command not allowed inside a transaction";
            return Err(ErrorReply::new(text));
        }
        let needs_node = matches!(spec.handler, Handler::Data(_)) || !spec.has(flag::LOADING);
        if needs_node && self.resp.service.backend().is_none() {
            return Err(ErrorReply::loading());
        }
        if self.session.only_listens() && !SUBSCRIBERS_COMMANDS.contains(&spec.name) {
            return Err(ErrorReply::with(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context",
                spec.name
            )));
        }
        Ok(spec)
    }

    async fn route(&mut self, spec: &'static Spec, request: &Request) -> Result<(), Disconnected> {
        let args = Args {
            request,
            name: spec.name,
            db: self.session.db,
        };
        if let Handler::Data(data) = spec.handler {
            return self.data(data, spec, &args).await;
        }
        // The others are judged at the moment of their execution.
        let is_judged_now = matches!(
            spec.handler,
            Handler::TransactionControl(_) | Handler::Wait(_) | Handler::Account(_)
        );
        if is_judged_now && let Err(error) = self.session.judge_aside(spec, &args, None) {
            self.fail(&error);
            return Ok(());
        }
        match spec.handler {
            Handler::TransactionControl(control) => self.control(control, request).await,
            Handler::Publish(publish) => self.publish(publish, spec, &args).await,
            Handler::Wait(wait) => {
                self.run_batch().await?;
                let waiting = wait(&args);
                self.wait_copies(waiting, true).await
            }
            Handler::Account(account) => {
                self.run_batch().await?;
                Box::pin(self.account(account, spec, request)).await;
                Ok(())
            }
            _ => {
                self.run_batch().await?;
                match self.judge_now(spec, &args).await? {
                    Ok(()) => self.answer_locally(spec, request).await,
                    Err(error) => self.fail(&error),
                }
                Ok(())
            }
        }
    }

    async fn data(
        &mut self,
        data: Data,
        spec: &'static Spec,
        args: &Args<'_>,
    ) -> Result<(), Disconnected> {
        let steps = steps_of(args.len(), args.request.byte_count());
        let max = self.resp.server.settings.max_value_bytes;
        let op = match (self.session.may_do_all(), is_long(steps)) {
            (true, false) => prepare(data, args, max),
            (true, true) => {
                let work = || prepare(data, args, max);
                Box::pin(self.resp.server.aside.run(steps, work)).await
            }
            (false, _) => {
                let steps = steps.saturating_add(self.session.judging_steps(args.request));
                let session = &self.session;
                let work = || {
                    let op = prepare(data, args, max);
                    // As in Redis, what is not allowed is said before what is wrong.
                    let judged = session.judge(spec, args, op.as_ref().ok());
                    judged.map_err(|denied| ErrorReply::denied(&denied))?;
                    op
                };
                Box::pin(self.resp.server.aside.run(steps, work)).await
            }
        };
        match op {
            Ok(Op::Write(command, format)) => self.write(spec.name, command, steps, format).await,
            Ok(Op::Read(query, format)) => self.read(spec.name, query, format).await,
            Err(error) => {
                self.fail(&error);
                Ok(())
            }
        }
    }

    async fn write(
        &mut self,
        name: &'static str,
        command: Command,
        steps: usize,
        format: ReplyFormat,
    ) -> Result<(), Disconnected> {
        let silent = self.session.is_silent();
        self.add_write(
            command,
            steps,
            Slot::Op {
                name,
                format,
                silent,
            },
        )
        .await
    }

    async fn add_write(
        &mut self,
        command: Command,
        steps: usize,
        slot: Slot,
    ) -> Result<(), Disconnected> {
        if !self.batch.takes_write(&command) {
            self.run_batch().await?;
        }
        self.batch.write(command, steps, slot);
        Ok(())
    }

    async fn read(
        &mut self,
        name: &'static str,
        query: Query,
        format: ReplyFormat,
    ) -> Result<(), Disconnected> {
        if !self.batch.takes_read() {
            self.run_batch().await?;
        }
        let silent = self.session.is_silent();
        self.batch.read(
            query,
            Slot::Op {
                name,
                format,
                silent,
            },
        );
        Ok(())
    }

    /// Puts an answer behind those to earlier requests.
    fn answer(&mut self, write: impl FnOnce(&mut ReplyWriter<'_, dyn Output>)) {
        if self.session.is_silent() {
            return;
        }
        let protocol = self.session.protocol;
        if self.batch.is_empty() {
            return write(&mut ReplyWriter::new(&mut self.out, protocol));
        }
        let ready = &mut self.batch.ready;
        let before = ready.len();
        write(&mut ReplyWriter::new(ready, protocol));
        let written = ready.len() - before;
        self.batch.slots.push(Slot::Ready(written));
    }

    pub(super) fn fail(&mut self, error: &ErrorReply) {
        Stats::add(&self.resp.server.stats.errors, 1);
        self.answer(|reply| reply.error(error.as_bytes()));
    }

    /// Answers at once, aside if that takes long. Only while no batch is being collected.
    pub(super) async fn answer_locally(&mut self, spec: &'static Spec, request: &Request) {
        let steps = steps_of(request.arg_count(), request.byte_count());
        if !is_long(steps) {
            return self.call_local(spec, request);
        }
        let server = &self.resp.server;
        Box::pin(server.aside.run(steps, || self.call_local(spec, request))).await;
    }

    fn call_local(&mut self, spec: &'static Spec, request: &Request) {
        let (Handler::Local(local) | Handler::ContainerOr(local)) = spec.handler else {
            return self.fail(&ErrorReply::arity(spec.name));
        };
        let start = self.out.mark();
        let args = Args {
            request,
            name: spec.name,
            db: self.session.db,
        };
        let result = local(&mut Call {
            args,
            session: &mut self.session,
            server: &self.resp.server,
            out: &mut self.out,
        });
        if result.is_err() || self.session.is_silent() {
            self.out.truncate(start);
        }
        if let Err(error) = result {
            self.fail(&error);
        }
    }

    /// Whether the store refuses what may grow the keys, as far as this node has applied.
    fn refuses_growth(&self) -> bool {
        let backend = self.resp.service.backend();
        backend.is_some_and(|backend| backend.refuses_growth())
    }

    /// Whether a call may be queued: as in Redis it is judged now, and at EXEC again.
    fn judge_queued(&self, spec: &'static Spec, request: &Request) -> Result<(), ErrorReply> {
        if self.session.may_do_all() {
            return Ok(());
        }
        let args = Args {
            request,
            name: spec.name,
            db: self.session.db,
        };
        let op = match spec.handler {
            Handler::Data(data) => data(&args).ok(),
            _ => None,
        };
        self.session.judge_aside(spec, &args, op.as_ref())
    }

    /// Queues a command in memory of its own: it must not keep the buffer that it was read into.
    fn enqueue(&mut self, spec: &'static Spec, request: Request) {
        let is_refused = spec.has(flag::DENYOOM) && self.refuses_growth();
        let judged = self.judge_queued(spec, &request);
        let Some(queue) = &mut self.session.queue else {
            return;
        };
        if let Err(error) = judged {
            queue.is_broken = true;
            return self.fail(&error);
        }
        // It will not be executed, so nothing more is kept of it.
        if queue.is_broken {
            return self.answer(|reply| reply.simple(b"QUEUED"));
        }
        let bytes = request.byte_count();
        let memory = queue.memory + request.memory();
        let most = self.resp.service.ledger().most_of_one(Class::Queued);
        if queue.requests.len() >= MAX_QUEUED || queue.bytes + bytes > MAX_QUEUED_BYTES.min(most) {
            queue.give_up();
            return self.fail(&ErrorReply::with(format!(
                "ERR a transaction takes at most {MAX_QUEUED} commands and {} bytes",
                MAX_QUEUED_BYTES.min(most)
            )));
        }
        if is_refused {
            queue.give_up();
            return self.fail(&ErrorReply::OUT_OF_MEMORY);
        }
        if !self
            .session
            .queued
            .try_set(memory + self.session.watched_bytes)
        {
            queue.give_up();
            return self.fail(&ErrorReply::of(ErrorCode::Overloaded, QUEUES_ARE_FULL));
        }
        let detached = step_aside(steps_of(0, bytes), || request.detached());
        queue.bytes += bytes;
        queue.memory = memory;
        queue.requests.push((spec, detached));
        self.answer(|reply| reply.simple(b"QUEUED"));
    }

    async fn control(
        &mut self,
        control: TransactionControl,
        request: &Request,
    ) -> Result<(), Disconnected> {
        let is_open = self.session.queue.is_some();
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
            TransactionControl::Watch => return self.watch(request).await,
            TransactionControl::Exec => return self.exec().await,
        }
        Ok(())
    }

    async fn watch(&mut self, request: &Request) -> Result<(), Disconnected> {
        self.run_batch().await?;
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

    async fn exec(&mut self) -> Result<(), Disconnected> {
        let Some(queue) = self.session.queue.take() else {
            self.fail(&ErrorReply::new("ERR EXEC without MULTI"));
            return Ok(());
        };
        let watched = mem::take(&mut self.session.watched);
        if queue.is_broken {
            self.fail(&ErrorReply::EXEC_ABORT);
            return Ok(());
        }
        if self.resp.service.backend().is_none() {
            self.fail(&ErrorReply::loading());
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
            self.fail(&ErrorReply::executed(error, "exec").of_exec());
            return Ok(());
        }
        if watched.is_empty() && !writes(&operations) {
            self.run_batch().await?;
            let (stale, principal) = (self.session.stale_reads, self.session.principal());
            let mut memory = self.resp.service.ledger().hold(Class::Output);
            let values = self
                .resp
                .read_all(stale, principal, operations, &mut memory)
                .await;
            self.write_exec(&plan, values, silent).await?;
            return self.flush().await;
        }
        let command = Command::Transaction {
            guards: guards(watched),
            operations,
            otherwise: Vec::new(),
        };
        self.add_write(command, steps, Slot::Exec { plan, silent })
            .await?;
        if is_last {
            self.run_batch().await?;
        }
        Ok(())
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

/// Understands a request and checks it, for the connection's database.
fn prepare(data: Data, args: &Args<'_>, max_value_bytes: usize) -> Result<Op, ErrorReply> {
    match data(args)? {
        Op::Write(command, format) => {
            check(&command, max_value_bytes)?;
            Ok(Op::Write(in_database(command, args.db), format))
        }
        Op::Read(query, format) => {
            let checked = query.check_limits();
            checked.map_err(|error| ErrorReply::executed(error, args.name))?;
            Ok(Op::Read(query.in_database(args.db), format))
        }
    }
}

/// Whether the command is within the limits, so that what cannot succeed costs no log entry.
fn check(command: &Command, max: usize) -> Result<(), ErrorReply> {
    let (_, value) = command.longest();
    if value > max {
        let detail = crate::failure::too_large_value(value, max);
        return Err(ErrorReply::of(ErrorCode::ValueTooLarge, &detail));
    }
    if let Command::SetRange { offset, patch, .. } = command
        && !patch.is_empty()
        && offset.saturating_add(patch.len() as u64) > max as u64
    {
        return Err(ErrorReply::executed(
            ReplyError::StringTooLong,
            command.name(),
        ));
    }
    let checked = command.check_limits();
    checked.map_err(|error| ErrorReply::executed(error, command.name()))
}

/// Whether the client ends a transaction with this, whatever else is wrong with it.
fn is_exec(request: &Request) -> bool {
    request
        .arg(0)
        .is_some_and(|name| name.eq_ignore_ascii_case(b"exec"))
}
