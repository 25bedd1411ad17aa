//! One RESP connection: reads requests, executes them in turns, writes the answers, again. `dispatch`
//! knows what a request does; this file moves bytes and keeps the limits.
//!
//! A client that does not read is not read from: its answers leave whenever they are more than a piece,
//! and its messages stay within its outbox. One that reads or sends too slowly is disconnected.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::poll;
use memkv_node::seldom::Seldom;
use memkv_node::yield_to_ready_tasks;
use memkv_proto::ErrorCode;
use memkv_proto::limits::MAX_KEY_BYTES;
use memkv_resp::{Limits, ReplyWriter, Request, RequestParser};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use super::Resp;
use super::deadline_timer::DeadlineTimer;
use super::out::Out;
use super::pipeline_batch::PipelineBatch;
use super::server::Stats;
use super::session::Session;
use crate::admission::Door;
use crate::aside::{is_long, steps_of};
use crate::backend::Backend;
use crate::commands::{ErrorReply, push_message};
use crate::ledger::{Class, Held};
use crate::pace::{Arrival, BYTES_PER_SECOND, Departure, GRACE};
use crate::report::Slow;

/// Requests executed before answers are written: a pipeline of a million is served in a thousand
/// turns, and others get theirs in between.
const TURN_REQUESTS: usize = 1024;

/// Bytes of requests after which a turn ends (1 MiB); one larger request is a turn of its own.
const TURN_BYTES: usize = 1024 * 1024;

/// Answers are collected up to this size before they are written.
pub(super) const OUTPUT_BYTES: usize = 64 * 1024;

/// Bytes that a connection moves before the others of its thread have their turn (128 KiB): the system
/// copies that much in some hundredths of a millisecond.
pub(super) const PIECE_BYTES: usize = 128 * 1024;

/// First buffer of a connection: most requests fit, and ten thousand idle ones are 40 MB.
const READ_BYTES: usize = 4 * 1024;

/// Room for the next read of a large argument, unless more of it has arrived already. So announcing a
/// length costs next to nothing.
const NEXT_READ_BYTES: usize = 32 * 1024;

/// Then the room is so many times what has arrived, of which nothing is touched before it is read into.
/// What has arrived is copied to there, so a small factor costs more copies.
const ROOM_FACTOR: usize = 7;

/// After a protocol error, what the client still sends is discarded for at most this long, so that
/// it reads the error and not a connection reset.
const LINGER: Duration = Duration::from_secs(1);

/// Why connections were closed, which their clients can cause again and again.
static HTTP: Seldom = Seldom::new();
static MEMORY: Seldom = Seldom::new();
static STALL: Seldom = Seldom::new();
static SLOW: Seldom = Seldom::new();

/// The connection has ended; nothing can be sent on it.
pub(super) struct Disconnected;

/// How a turn ended.
enum Turn {
    /// There may be more requests in the buffer.
    More,
    /// The next request has not arrived.
    Idle,
    /// The connection ends.
    Close,
    /// The same, because the input cannot be parsed.
    Refuse,
}

/// A connection and its buffers.
pub(super) struct Conn<'a, S, B> {
    pub(super) resp: &'a Resp<B>,
    pub(super) door: &'a Door,
    pub(super) stream: S,
    pub(super) input: BytesMut,
    /// Whether a large request lay in the input's memory, all of which stays as long as a byte of it is
    /// in use: it is given back before the connection waits.
    was_large: bool,
    /// What has arrived and is not executed.
    held: Held,
    pub(super) out: Out,
    /// What waits for a client that does not read.
    waiting: Held,
    /// The request that has arrived in part.
    arrival: Option<Arrival>,
    /// Bytes moved since others had their turn.
    moved: usize,
    pub(super) parser: RequestParser,
    pub(super) session: Session,
    pub(super) batch: PipelineBatch,
    /// Errors that were answered.
    pub(super) failures: u64,
    /// Slow commands whose answers have not been sent, with when they were there.
    pub(super) slow: Vec<(Instant, Slow)>,
    pub(super) deadline_timer: DeadlineTimer,
    /// Its requests are refused, because the node stops.
    pub(super) leaves: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'a, S, B> {
    pub(super) fn new(
        resp: &'a Resp<B>,
        door: &'a Door,
        stream: S,
        input: BytesMut,
        session: Session,
    ) -> Self {
        let ledger = resp.service.ledger();
        Self {
            resp,
            door,
            stream,
            input,
            was_large: false,
            held: ledger.hold(Class::Input),
            out: Out::default(),
            waiting: ledger.hold(Class::Output),
            arrival: None,
            moved: 0,
            parser: RequestParser::new(limits(resp, &session)),
            session,
            batch: PipelineBatch::counted(ledger.hold(Class::Output)),
            failures: 0,
            slow: Vec::new(),
            deadline_timer: DeadlineTimer::default(),
            // It came when the node was about to stop.
            leaves: resp.service.drain().has_begun(),
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) {
        loop {
            let mut end = self.turn().await;
            if matches!(end, Ok(Turn::Idle)) {
                end = self.wait().await;
            }
            match end {
                Ok(Turn::More | Turn::Idle) => {}
                Ok(Turn::Close) => {
                    // All answers have been sent, so a failure to close changes nothing.
                    let _ = self.stream.shutdown().await;
                    return;
                }
                Ok(Turn::Refuse) => return self.linger().await,
                Err(Disconnected) => return,
            }
        }
    }

    /// Executes the requests in the buffer, up to a limit, and writes the answers.
    async fn turn(&mut self) -> Result<Turn, Disconnected> {
        let (mut requests, mut bytes) = (0, 0);
        self.leaves |= self.resp.service.drain().refuses();
        let turn = loop {
            if self.session.is_closing {
                break Turn::Close;
            }
            if requests >= TURN_REQUESTS || bytes >= TURN_BYTES {
                break Turn::More;
            }
            let is_inline = self.input.first().is_some_and(|first| *first != b'*');
            match self.parser.parse(&mut self.input) {
                Ok(Some(request)) if is_http(&request, is_inline) => {
                    if let Some(left_out) = HTTP.say() {
                        tracing::warn!(
                            client = %self.session.client.addr, left_out,
                            "closed a connection and executed nothing more of it: it sent HTTP to an \
                             address for Redis clients, as a browser does that was led astray"
                        );
                    }
                    break Turn::Close;
                }
                Ok(Some(request)) => {
                    requests += 1;
                    bytes += request.byte_count();
                    self.was_large |= request.byte_count() > OUTPUT_BYTES;
                    let was_authenticated = self.session.is_authenticated();
                    self.dispatch(request).await?;
                    // Answers that the node gives by itself may be long, and a turn has many.
                    if self.out.len() >= OUTPUT_BYTES {
                        Box::pin(self.flush()).await?;
                    }
                    if self.session.is_authenticated() != was_authenticated {
                        self.parser.set_limits(limits(self.resp, &self.session));
                        if !self.is_admitted() {
                            break Turn::Refuse;
                        }
                    }
                }
                // The words are the answers to all that has been received.
                Ok(None) if self.leaves && requests > 0 => break Turn::Refuse,
                Ok(None) => break Turn::Idle,
                Err(error) => {
                    tracing::debug!(%error, client = %self.session.client.addr, "closing");
                    self.run_batch().await?;
                    if let Some(text) = error.reply() {
                        ReplyWriter::new(&mut self.out, self.session.protocol).error(&text);
                    }
                    break Turn::Refuse;
                }
            }
        };
        self.run_batch().await?;
        if requests > 0 {
            Stats::add(&self.resp.server.stats.commands, requests);
            self.session.settle();
            self.session.show();
            self.held.set(self.input.len());
            self.arrival = None;
        }
        if !self.out.is_empty() {
            // Those whose answers came with this one's first put them together: sent one after the
            // other, they find their clients still awake, and to wake a client costs as much as to
            // send.
            yield_to_ready_tasks().await;
        }
        let flushed = self.flush().await;
        self.slow_sent();
        flushed.map(|()| turn)
    }

    /// Waits for requests, and passes messages on meanwhile.
    async fn wait(&mut self) -> Result<Turn, Disconnected> {
        let room = NEXT_READ_BYTES.max(ROOM_FACTOR * self.input.len());
        let room = self.parser.needed().min(room).max(READ_BYTES);
        let deadline = self.deadline();
        loop {
            // Before messages leave: it may listen to them no more.
            let is_over = self.session.is_outdated() && !self.session.renew();
            if is_over || self.session.client.is_killed() {
                return Err(Disconnected);
            }
            self.push_messages().await?;
            self.flush().await?;
            if self.session.client.is_killed() {
                return Err(Disconnected);
            }
            if self.resp.service.drain().ends() {
                return Ok(Turn::Close);
            }
            // The next part of a large request needs the room that is there.
            let is_idle = self.input.is_empty() && self.input.capacity() > OUTPUT_BYTES;
            if is_idle || (self.was_large && self.input.len() <= READ_BYTES) {
                Box::pin(self.give_back()).await;
            }
            self.reserve(room).await;
            let mut piece = (&mut self.input).limit(PIECE_BYTES);
            let (stream, client) = (&mut self.stream, &self.session.client);
            let read = async {
                tokio::select! {
                    read = stream.read_buf(&mut piece) => Some(read),
                    () = client.woken() => None,
                }
            };
            match self.deadline_timer.wait(deadline, read).await {
                Some(Some(read)) => {
                    let Ok(count @ 1..) = read else {
                        return Err(Disconnected);
                    };
                    Stats::add(&self.resp.server.stats.input_bytes, count);
                    if let Some(arrival) = &mut self.arrival {
                        arrival.received(count);
                    }
                    if !self.hold() {
                        return Box::pin(self.refuse_input()).await;
                    }
                    self.has_moved(count).await?;
                    return Ok(Turn::More);
                }
                Some(None) => {}
                None => return Err(self.is_slow()),
            }
        }
    }

    /// Until when something must arrive.
    fn deadline(&mut self) -> Option<Instant> {
        if !self.input.is_empty() {
            let arrival = self.arrival.get_or_insert_with(Arrival::begin);
            return Some(arrival.deadline(GRACE, BYTES_PER_SECOND));
        }
        let idle_time = self.resp.server.settings.idle_time?;
        // One that listens need not say anything, as in Redis.
        let listens = self.session.listens.iter().any(|names| !names.is_empty());
        (!listens).then(|| Instant::now() + idle_time)
    }

    fn is_slow(&self) -> Disconnected {
        if self.input.is_empty() {
            tracing::debug!(client = %self.session.client.addr, "closed a connection: it was idle");
        } else {
            Stats::add(&self.resp.server.stats.slow, 1);
            if let Some(left_out) = SLOW.say() {
                tracing::warn!(
                    client = %self.session.client.addr, left_out,
                    "closed a connection: its request arrived at less than {BYTES_PER_SECOND} bytes per \
                     second"
                );
            }
        }
        Disconnected
    }

    /// Whether there is a client's place for one that has authenticated; tells it if there is none.
    fn is_admitted(&mut self) -> bool {
        let Err(full) = self.door.admit_client() else {
            return true;
        };
        let error = self.resp.server.refused(full);
        ReplyWriter::new(&mut self.out, self.session.protocol).error(error.as_bytes());
        false
    }

    /// Makes room for more input, aside if what is there is long: it may have to be copied.
    async fn reserve(&mut self, room: usize) {
        let steps = steps_of(0, self.input.len());
        if is_long(steps) && self.input.capacity() - self.input.len() < room {
            let reserve = || self.input.reserve(room);
            return Box::pin(self.resp.server.aside.run(steps, reserve)).await;
        }
        self.input.reserve(room);
    }

    /// Frees the buffer of a large request, aside if that takes long: an idle connection must not hold
    /// it.
    async fn give_back(&mut self) {
        self.was_large = false;
        let mut small = BytesMut::with_capacity(READ_BYTES);
        small.extend_from_slice(&self.input);
        let buffer = mem::replace(&mut self.input, small);
        let steps = steps_of(0, buffer.capacity());
        self.resp.server.aside.run(steps, || drop(buffer)).await;
    }

    /// Counts what has arrived; whether there is room for it.
    pub(super) fn hold(&mut self) -> bool {
        self.held.try_set(self.input.len())
    }

    /// Tells the client that there is no room for its request.
    async fn refuse_input(&mut self) -> Result<Turn, Disconnected> {
        if let Some(left_out) = MEMORY.say() {
            tracing::warn!(
                left_out,
                "closed a connection: the requests that are arriving take too much memory"
            );
        }
        self.input = BytesMut::new();
        self.held.set(0);
        let text = "the requests that are arriving take too much memory; nothing of this one was executed; \
                    try again later, or ask another node";
        let error = ErrorReply::of(ErrorCode::Overloaded, text);
        ReplyWriter::new(&mut self.out, self.session.protocol).error(error.as_bytes());
        self.flush().await?;
        Ok(Turn::Refuse)
    }

    /// Writes the messages that wait for the connection.
    pub(super) async fn push_messages(&mut self) -> Result<(), Disconnected> {
        let taken = self.session.client.take_messages();
        for message in &taken.messages {
            push_message(&mut self.out, self.session.protocol, message);
            if self.out.len() >= OUTPUT_BYTES {
                Box::pin(self.flush()).await?;
            }
        }
        Ok(())
    }

    /// Writes all answers. Waits while the client reads slowly, but not too slowly, and not once it was
    /// killed.
    pub(super) async fn flush(&mut self) -> Result<(), Disconnected> {
        Stats::add(&self.resp.server.stats.output_bytes, self.out.len());
        let mut departure = None;
        while !self.out.is_empty() {
            // Nearly always the socket takes it all at once, and needs neither timer nor wake flag.
            let waiting = self.out.len();
            let (out, stream) = (&mut self.out, &mut self.stream);
            let mut write = poll_fn(|context| out.poll_write(stream, context));
            match poll!(&mut write) {
                Poll::Ready(Ok(written @ 1..)) => {
                    if let Some(departure) = &mut departure {
                        Departure::took(departure, written);
                    }
                    self.has_moved(written).await?;
                    continue;
                }
                Poll::Ready(_) => return Err(Disconnected),
                Poll::Pending => {}
            }
            let stall = self.resp.server.settings.write_stall;
            let departure = departure.get_or_insert_with(|| Departure::begin(stall));
            self.waiting.set(waiting);
            tokio::select! {
                written = timeout_at(departure.deadline(), write) => match written {
                    Ok(Ok(written @ 1..)) => departure.took(written),
                    Ok(_) => return Err(Disconnected),
                    Err(_late) => {
                        Stats::add(&self.resp.server.stats.slow, 1);
                        if let Some(left_out) = STALL.say() { tracing::warn!(
                            client = %self.session.client.addr, left_out,
                            "closed a connection: its client has read less than {BYTES_PER_SECOND} bytes \
                             per second of its replies for {} ms",
                            stall.as_millis()
                        ); }
                        return Err(Disconnected);
                    }
                },
                // A message can wait, the end cannot.
                () = self.session.client.woken() => {
                    if self.session.client.is_killed() {
                        return Err(Disconnected);
                    }
                }
            }
        }
        if departure.is_some() {
            self.waiting.set(0);
        }
        self.out.shrink();
        // A socket has nothing to flush; TLS has what the socket did not take yet.
        let flushed = poll!(pin!(self.stream.flush()));
        match flushed {
            Poll::Ready(flushed) => flushed.map_err(|_| Disconnected),
            Poll::Pending => Box::pin(self.flush_rest()).await,
        }
    }

    /// Waits as [`Conn::flush`] does.
    async fn flush_rest(&mut self) -> Result<(), Disconnected> {
        // Messages that come meanwhile give no more time.
        let deadline = Instant::now() + self.resp.server.settings.write_stall;
        loop {
            tokio::select! {
                flushed = timeout_at(deadline, self.stream.flush()) => {
                    let Ok(flushed) = flushed else {
                        Stats::add(&self.resp.server.stats.slow, 1);
                        return Err(Disconnected);
                    };
                    return flushed.map_err(|_| Disconnected);
                }
                () = self.session.client.woken() => {
                    if self.session.client.is_killed() {
                        return Err(Disconnected);
                    }
                }
            }
        }
    }

    /// After a piece others have their turn, and what has come to the thread's sockets meanwhile.
    async fn has_moved(&mut self, bytes: usize) -> Result<(), Disconnected> {
        self.moved += bytes;
        if self.moved >= PIECE_BYTES {
            self.moved = 0;
            yield_now().await;
            if self.session.client.is_killed() {
                return Err(Disconnected);
            }
        }
        Ok(())
    }

    /// Reads what still comes: closing a socket with unread bytes resets the connection, and the
    /// client would not see why.
    async fn linger(mut self) {
        let _ = timeout(LINGER, async {
            self.stream.shutdown().await?;
            loop {
                self.input.clear();
                self.input.reserve(READ_BYTES);
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return std::io::Result::Ok(());
                }
            }
        })
        .await;
    }
}

/// Size of a connection's future.
#[cfg(test)]
pub(crate) fn task_bytes<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend>() -> usize {
    fn returned<A, R>(_: impl Fn(A) -> R) -> usize {
        size_of::<R>()
    }
    returned(Conn::<'_, S, B>::run)
}

/// The limits of a request: low before the client has authenticated.
fn limits<B>(resp: &Resp<B>, session: &Session) -> Limits {
    if !session.is_authenticated() {
        return Limits::unauthenticated();
    }
    // A value may be limited to less than a key is.
    Limits::new(resp.server.settings.max_value_bytes.max(MAX_KEY_BYTES))
}

/// Whether a request is the first line of an HTTP request, or its header `Host:`, which no command
/// is: a browser that was led here must not execute anything.
fn is_http(request: &Request, is_inline: bool) -> bool {
    let is_first = |word: &[u8]| {
        let first = request.arg(0).unwrap_or_default();
        first.eq_ignore_ascii_case(word)
    };
    let version = request.arg(2).unwrap_or_default();
    let is_request_line = request.arg_count() == 3 && version.starts_with(b"HTTP/");
    is_first(b"post") || is_first(b"host:") || (is_inline && is_request_line)
}
