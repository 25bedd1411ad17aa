//! One RESP connection: reads requests, executes them in turns, writes the answers, again. `dispatch`
//! knows what a request does; this file moves bytes and keeps the limits.
//!
//! A client that does not read is not read from: its answers stay within one turn's, and its messages
//! within its outbox. After a time its connection is closed.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::poll;
use memkv_node::seldom::Seldom;
use memkv_node::yield_to_ready_tasks;
use memkv_resp::{Limits, ReplyWriter, Request, RequestParser};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Resp;
use super::deadline_timer::DeadlineTimer;
use super::out::Out;
use super::pipeline_batch::PipelineBatch;
use super::server::Stats;
use super::session::Session;
use crate::aside::{is_long, steps_of};
use crate::backend::Backend;
use crate::budget::Held;
use crate::commands::push_message;
use memkv_proto::limits::MAX_KEY_BYTES;

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
    pub(super) stream: S,
    pub(super) input: BytesMut,
    /// The input's share of the memory for all connections.
    held: Held,
    pub(super) out: Out,
    /// Bytes moved since others had their turn.
    moved: usize,
    pub(super) parser: RequestParser,
    pub(super) session: Session,
    pub(super) batch: PipelineBatch,
    pub(super) deadline_timer: DeadlineTimer,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'a, S, B> {
    pub(super) fn new(resp: &'a Resp<B>, stream: S, input: BytesMut, session: Session) -> Self {
        Self {
            resp,
            stream,
            input,
            held: resp.input.hold(),
            out: Out::default(),
            moved: 0,
            parser: RequestParser::new(limits(resp, &session)),
            session,
            batch: PipelineBatch::default(),
            deadline_timer: DeadlineTimer::default(),
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) {
        loop {
            match self.turn().await {
                Ok(Turn::More) => {}
                Ok(Turn::Idle) => {
                    if self.wait().await.is_err() {
                        return;
                    }
                }
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
                    let was_authenticated = self.session.is_authenticated;
                    self.dispatch(request).await?;
                    if self.session.is_authenticated != was_authenticated {
                        self.parser.set_limits(limits(self.resp, &self.session));
                    }
                }
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
            self.session.show();
            self.held = self.resp.input.hold();
        }
        if !self.out.is_empty() {
            // Those whose answers came with this one's first put them together: sent one after the
            // other, they find their clients still awake, and to wake a client costs as much as to
            // send.
            yield_to_ready_tasks().await;
        }
        self.flush().await?;
        Ok(turn)
    }

    /// Waits for requests, and passes messages on meanwhile.
    async fn wait(&mut self) -> Result<(), Disconnected> {
        let room = NEXT_READ_BYTES.max(ROOM_FACTOR * self.input.len());
        let room = self.parser.needed().min(room).max(READ_BYTES);
        loop {
            self.push_messages().await?;
            self.flush().await?;
            if self.session.client.is_killed() {
                return Err(Disconnected);
            }
            self.reserve(room).await;
            // It may be the whole buffer of a large request, which is free by now.
            if self.input.is_empty() && self.input.capacity() > OUTPUT_BYTES {
                Box::pin(self.give_back()).await;
            }
            let mut piece = (&mut self.input).limit(PIECE_BYTES);
            tokio::select! {
                read = self.stream.read_buf(&mut piece) => {
                    let Ok(count @ 1..) = read else { return Err(Disconnected) };
                    Stats::add(&self.resp.server.stats.input_bytes, count);
                    self.hold()?;
                    return self.has_moved(count).await;
                }
                () = self.session.client.woken() => {}
            }
        }
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
        let buffer = mem::replace(&mut self.input, BytesMut::with_capacity(READ_BYTES));
        let steps = steps_of(0, buffer.capacity());
        self.resp.server.aside.run(steps, || drop(buffer)).await;
    }

    /// Counts what has arrived against what all connections may hold.
    pub(super) fn hold(&mut self) -> Result<(), Disconnected> {
        if self.held.grow_to(self.input.len()) {
            return Ok(());
        }
        if let Some(left_out) = MEMORY.say() {
            tracing::warn!(
                left_out,
                "closed a connection: the requests that are arriving take too much memory"
            );
        }
        Err(Disconnected)
    }

    /// Writes the messages that wait for the connection.
    pub(super) async fn push_messages(&mut self) -> Result<(), Disconnected> {
        for message in self.session.client.take_messages() {
            push_message(&mut self.out, self.session.protocol, &message);
            if self.out.len() >= OUTPUT_BYTES {
                Box::pin(self.flush()).await?;
            }
        }
        Ok(())
    }

    /// Writes all answers. Waits while the client does not read, but not for ever, and not once it
    /// was killed.
    pub(super) async fn flush(&mut self) -> Result<(), Disconnected> {
        Stats::add(&self.resp.server.stats.output_bytes, self.out.len());
        while !self.out.is_empty() {
            // Nearly always the socket takes it all at once, and needs neither timer nor wake flag.
            let (out, stream) = (&mut self.out, &mut self.stream);
            let mut write = poll_fn(|context| out.poll_write(stream, context));
            match poll!(&mut write) {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.has_moved(written).await?;
                    continue;
                }
                Poll::Ready(_) => return Err(Disconnected),
                Poll::Pending => {}
            }
            let stall = self.resp.server.settings.write_stall;
            tokio::select! {
                written = timeout(stall, write) => match written {
                    Ok(Ok(1..)) => {}
                    Ok(_) => return Err(Disconnected),
                    Err(_late) => {
                        if let Some(left_out) = STALL.say() { tracing::warn!(
                            client = %self.session.client.addr, left_out,
                            "closed a connection: its client has read none of its replies for {} ms",
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
        self.out.shrink();
        self.stream.flush().await.map_err(|_| Disconnected)
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

/// The limits of a request: low before the client has authenticated.
fn limits<B>(resp: &Resp<B>, session: &Session) -> Limits {
    if !session.is_authenticated {
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
