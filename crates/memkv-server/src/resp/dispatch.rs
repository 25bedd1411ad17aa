//! Sorts the requests of a connection: each joins the batch that is being collected, is queued by
//! MULTI, or is answered at once. Never waits for the store but to run the batch before it.
//!
//! Invariant: answers leave in the order of the requests. A request that is not for the store
//! therefore either puts its answer into the batch, or has the batch run first.

use memkv_proto::ErrorCode;
use memkv_resp::{Output, ReplyWriter, Request};
use memkv_store::{Command, ReplyError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::{Conn, Disconnected};
use super::pipeline_batch::Slot;
use super::session::{MAX_QUEUED, MAX_QUEUED_BYTES};
use crate::aside::{is_long, step_aside, steps_of};
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::commands::{
    Args, Call, Data, ErrorReply, Handler, Local, Op, ReplyFormat, Spec, flag, in_database, named,
    resolve,
};
use crate::ledger::Class;

/// Why a command is not queued, or a key not watched.
pub(super) const QUEUES_ARE_FULL: &str = "the transactions that all clients have begun take too much memory; \
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
                        if self.batch.waits_for_store() && self.batch.head.is_none() {
                            self.batch.head = Some((spec, request));
                        } else {
                            self.parser.recycle(request);
                        }
                    }
                }
            }
        }
        self.session.command_done();
        Ok(())
    }

    /// Answers a request that is not executed, nor queued.
    fn refuse(&mut self, request: &Request, error: &ErrorReply) {
        if let Ok(spec) = named(request) {
            self.resp.server.calls.reject(spec);
        }
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
            self.fail_of(spec, &error);
            return Ok(());
        }
        match spec.handler {
            Handler::TransactionControl(control) => self.control(control, spec, request).await,
            Handler::Publish(publish) => self.publish(publish, spec, &args).await,
            Handler::Wait(wait) => {
                self.run_batch().await?;
                let since = self.since();
                let waiting = wait(&args);
                self.wait_copies(waiting, true).await?;
                self.executed(spec, None, &since);
                Ok(())
            }
            Handler::Account(account) => {
                self.run_batch().await?;
                let since = self.since();
                Box::pin(self.account(account, spec, request)).await;
                self.executed(spec, Some(request), &since);
                Ok(())
            }
            _ => {
                self.run_batch().await?;
                match self.judge_now(spec, &args).await? {
                    Ok(()) => self.answer_locally(spec, request).await,
                    Err(error) => self.fail_of(spec, &error),
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
            Ok(Op::Write(command, format)) => {
                if !self.batch.takes_write(&command) {
                    self.run_batch().await?;
                }
                let slot = self.slot(spec, format);
                self.batch.write(command, steps, slot);
            }
            Ok(Op::Read(query, format)) => {
                if !self.batch.takes_read() {
                    self.run_batch().await?;
                }
                let slot = self.slot(spec, format);
                self.batch.read(query, slot);
            }
            Ok(Op::Here(_)) => {
                self.run_batch().await?;
                self.answer_locally(spec, args.request).await;
            }
            Err(error) => self.fail_of(spec, &error),
        }
        Ok(())
    }

    fn slot(&self, spec: &'static Spec, format: ReplyFormat) -> Slot {
        Slot::Op {
            spec,
            format,
            silent: self.session.is_silent(),
        }
    }

    /// Takes a write into the batch.
    pub(super) async fn add_write(
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

    /// Puts an answer behind those to earlier requests.
    pub(super) fn answer(&mut self, write: impl FnOnce(&mut ReplyWriter<'_, dyn Output>)) {
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
        self.note_error(error);
        self.answer(|reply| reply.error(error.as_bytes()));
    }

    /// The same for a call of this command that is not executed.
    pub(super) fn fail_of(&mut self, spec: &'static Spec, error: &ErrorReply) {
        self.count_refused(spec, error);
        self.fail(error);
    }

    /// Answers at once, aside if that takes long. Only while no batch is being collected.
    pub(super) async fn answer_locally(&mut self, spec: &'static Spec, request: &Request) {
        let steps = steps_of(request.arg_count(), request.byte_count());
        let since = self.since();
        if is_long(steps) {
            let server = &self.resp.server;
            Box::pin(server.aside.run(steps, || self.call_local(spec, request))).await;
        } else {
            self.call_local(spec, request);
        }
        self.executed(spec, Some(request), &since);
    }

    fn call_local(&mut self, spec: &'static Spec, request: &Request) {
        let args = Args {
            request,
            name: spec.name,
            db: self.session.db,
        };
        let Some(local) = local(spec, &args) else {
            return self.fail(&ErrorReply::arity(spec.name));
        };
        let start = self.out.mark();
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
            return self.fail_of(spec, &error);
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
            return self.fail_of(spec, &ErrorReply::OUT_OF_MEMORY);
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
        Op::Here(local) => Ok(Op::Here(local)),
    }
}

/// The function that answers a call by itself.
fn local(spec: &Spec, args: &Args<'_>) -> Option<Local> {
    match spec.handler {
        Handler::Local(local) | Handler::ContainerOr(local) => Some(local),
        Handler::Data(data) => match data(args) {
            Ok(Op::Here(local)) => Some(local),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the command is within the limits, so that what cannot succeed costs no log entry.
pub(super) fn check(command: &Command, max: usize) -> Result<(), ErrorReply> {
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
