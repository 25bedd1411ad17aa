//! One HTTP/1.1 connection: head, body, response, again, in order, until one side ends it.
//! Never reads ahead of its answers by more than one buffer, and never waits without a limit: for a
//! head, a body or a reader that is too slow, or for the next request.
//!
//! Generic over the stream and the application, so that both can be replaced in tests.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memkv_node::yield_to_ready_tasks;
use memkv_proto::ErrorCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use super::end::HeadEnd;
use super::head::{self, BodyLength, Head, Method, Refusal};
use super::limits::{Limits, MAX_IGNORED_BODY_BYTES};
use super::response::{Answer, Connection, Framing, Length, Pieces, Response};
use crate::admission::Door;
use crate::ledger::{Class, Held};
use crate::pace::Departure;

/// First buffer of a connection: most requests fit, and ten thousand idle ones are 40 MB.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// Responses to pipelined requests are collected up to this size before they are written.
pub(super) const OUTPUT_BYTES: usize = 64 * 1024;

/// Bytes of a body that are written or read before the others of the thread have their turn (128 KiB):
/// the system copies that much in some hundredths of a millisecond.
pub(super) const PIECE_BYTES: usize = 128 * 1024;

/// The application, which answers requests.
pub trait App: Send + Sync {
    /// Where an upgraded connection goes.
    type Upgrade: Send;

    /// Decides by the head alone, before a body is read, and notes in it who sends the request.
    fn admit(&self, head: &mut Head) -> impl Future<Output = Admission<Self::Upgrade>> + Send;

    /// Answers a request whose body has arrived.
    fn call(&self, head: Head, body: Bytes) -> impl Future<Output = Answer> + Send;

    /// Words for a request that was refused while it was read; `head` is there if it was read.
    fn refuse(&self, head: Option<&Head>, refusal: Refusal) -> Response;

    /// Words for a body longer than the `limit` that [`App::admit`] gave.
    fn too_large(&self, head: &Head, limit: usize) -> Refusal;
}

/// The decision of [`App::admit`].
pub enum Admission<U> {
    /// Read a body of at most so many bytes, then call.
    Body(usize),
    /// Answer without the body.
    Refuse(Response),
    /// The same, and end the connection.
    Close(Response),
    /// Change to another protocol: the value of the `Upgrade` header field, further fields of the
    /// answer, and what takes over.
    Upgrade(&'static str, Vec<(&'static str, String)>, U),
}

/// How a connection ended.
pub enum End<S, U> {
    /// Nothing more to do.
    Closed,
    /// The stream, what was read behind the head, and what takes over.
    Upgraded(S, BytesMut, U),
}

/// Why reading ended.
pub(super) enum Stop {
    /// The client has gone, or was idle for too long: there is nothing to answer.
    Disconnected,
    /// The client gets a reason, and then the connection ends.
    Refuse(Refusal),
    /// It was too slow; the caller knows what for.
    Slow,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

enum Next<U> {
    Request,
    Close,
    Discard,
    Upgrade(U),
}

/// A connection and its buffers.
pub(super) struct Conn<S> {
    stream: S,
    /// Where it comes from.
    client: SocketAddr,
    pub(super) input: BytesMut,
    /// Whether a large body lay in the input's memory.
    pub(super) was_large: bool,
    output: BytesMut,
    /// The request's head, and what is read ahead of it.
    held: Held,
    /// The response's body.
    held_output: Held,
    /// Bytes read since others had their turn.
    moved: usize,
    /// The mark of what the client has shown last and was right.
    proven: Option<u64>,
    pub(super) limits: Arc<Limits>,
}

/// Serves a connection until it ends. `input` has the bytes that were read already.
pub async fn serve<S, A>(
    stream: S,
    client: SocketAddr,
    input: BytesMut,
    app: &A,
    limits: Arc<Limits>,
) -> End<S, A::Upgrade>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    A: App,
{
    serve_through(&Door::open(), stream, client, input, app, limits).await
}

/// The same for a connection that has come in by this door.
pub(crate) async fn serve_through<S, A>(
    door: &Door,
    stream: S,
    client: SocketAddr,
    input: BytesMut,
    app: &A,
    limits: Arc<Limits>,
) -> End<S, A::Upgrade>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    A: App,
{
    let mut is_proven = door.is_proven();
    let mut conn = Conn {
        stream,
        client,
        input,
        was_large: false,
        output: BytesMut::new(),
        held: limits.ledger.hold(door.class()),
        held_output: limits.ledger.hold(Class::Output),
        moved: 0,
        proven: None,
        limits,
    };
    loop {
        if door.is_proven() && !is_proven {
            is_proven = true;
            conn.held = conn.limits.ledger.hold(Class::Input);
        }
        match conn.one_request(app).await {
            Ok(Next::Request) => {}
            Ok(Next::Close) | Err(_) => {
                // Whoever closes has nothing more to say and cannot be told of a failure.
                let _ = conn.stream.shutdown().await;
                return End::Closed;
            }
            Ok(Next::Discard) => {
                conn.discard().await;
                return End::Closed;
            }
            Ok(Next::Upgrade(upgrade)) => return End::Upgraded(conn.stream, conn.input, upgrade),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Conn<S> {
    async fn one_request<A: App>(&mut self, app: &A) -> io::Result<Next<A::Upgrade>> {
        let mut head = match self.read_head().await {
            Ok(head) => head,
            Err(Stop::Refuse(refusal)) => {
                return self.finish(app.refuse(None, refusal), false).await;
            }
            Err(Stop::Disconnected | Stop::Slow) => return Ok(Next::Close),
        };
        head.client = Some(self.client);
        head.proven = self.proven;
        let admission = Box::pin(app.admit(&mut head)).await;
        self.proven = head.proven;
        match admission {
            Admission::Upgrade(..) if head.body != BodyLength::Known(0) => {
                // The other protocol would read the body as its own first bytes.
                let detail = "an upgrade must have no body";
                let refusal = Refusal::new(ErrorCode::BadRequest, detail);
                self.finish(app.refuse(Some(&head), refusal), false).await
            }
            Admission::Upgrade(protocol, fields, upgrade) => {
                let mut answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                     Upgrade: {protocol}\r\n"
                );
                for (name, value) in fields {
                    answer.push_str(&format!("{name}: {value}\r\n"));
                }
                answer.push_str("\r\n");
                self.output.extend_from_slice(answer.as_bytes());
                self.flush().await?;
                Ok(Next::Upgrade(upgrade))
            }
            Admission::Refuse(response) => self.answer_without_body(&head, response).await,
            Admission::Close(response) => self.finish(response, head.method == Method::Head).await,
            Admission::Body(limit) => {
                let body = match self.read_body(app, &head, limit).await {
                    Ok(body) => body,
                    Err(Stop::Refuse(refusal)) => {
                        let without_body = head.method == Method::Head;
                        return self
                            .finish(app.refuse(Some(&head), refusal), without_body)
                            .await;
                    }
                    Err(Stop::Disconnected | Stop::Slow) => return Ok(Next::Close),
                };
                let (framing, takes_chunks) = (framing(&head), head.takes_chunks);
                let answer = app.call(head, body.bytes).await;
                // What the body held is free once it was executed, not only once it was answered.
                drop(body.held);
                match answer {
                    Answer::Whole(response) => self.respond(response, framing).await,
                    Answer::Streamed(response, pieces) => {
                        self.stream(response, pieces, framing, takes_chunks).await
                    }
                }
            }
        }
    }

    async fn read_head(&mut self) -> Result<Head, Stop> {
        let idle = Instant::now() + self.limits.idle_time;
        while !self.is_begun() {
            // A connection that once carried a big value must not hold its memory while idle. A byte behind
            // it keeps all of it, also where little capacity is left.
            let was_large = std::mem::take(&mut self.was_large);
            if was_large || self.input.capacity() > OUTPUT_BYTES {
                self.input = BytesMut::from(&self.input[..]);
            }
            let drain = self.limits.drain.clone();
            tokio::select! {
                biased;
                filled = self.fill(idle) => filled?,
                () = drain.ending() => return Err(Stop::Disconnected),
            }
        }
        let deadline = Instant::now() + self.limits.header_time;
        let mut end = HeadEnd::default();
        loop {
            if let Some(length) = end.find(&self.input, &self.limits)? {
                let head = head::parse(self.input.get(..length).unwrap_or_default());
                self.input.advance(length);
                return Ok(head?);
            }
            if !self.held.try_set(self.input.len()) {
                return Err(self.no_room().into());
            }
            match self.fill(deadline).await {
                Err(Stop::Slow) => {
                    let detail = format!(
                        "the request head did not arrive within {:?}, the limit",
                        self.limits.header_time
                    );
                    return Err(Refusal::new(ErrorCode::RequestTimeout, detail).into());
                }
                other => other?,
            }
        }
    }

    /// There is no room for the request.
    pub(super) fn no_room(&self) -> Refusal {
        let detail = format!(
            "requests of all clients that are arriving take too much memory, of {} bytes for all that \
             clients cause; nothing was executed; try again later, or ask another node",
            self.limits.ledger.total()
        );
        Refusal::new(ErrorCode::Overloaded, detail)
    }

    /// Whether a head has begun. Some clients send an empty line behind a body, which begins none
    /// (RFC 9112, section 2.2), and neither does the first half of one.
    fn is_begun(&mut self) -> bool {
        while self.input.starts_with(b"\r\n") {
            self.input.advance(2);
        }
        !matches!(&self.input[..], b"" | b"\r")
    }

    /// Answers a request whose body is not wanted. A short one is skipped and the connection goes
    /// on; otherwise the connection ends.
    async fn answer_without_body<U>(
        &mut self,
        head: &Head,
        response: Response,
    ) -> io::Result<Next<U>> {
        let without_body = head.method == Method::Head;
        match head.body {
            BodyLength::Known(length) if length <= MAX_IGNORED_BODY_BYTES as u64 => {
                if length > 0 && head.expects_continue {
                    return self.finish(response, without_body).await;
                }
                match self.read_known(length as usize).await {
                    Ok(_ignored) => self.respond(response, framing(head)).await,
                    Err(_) => Ok(Next::Close),
                }
            }
            _ => self.finish(response, without_body).await,
        }
    }

    async fn respond<U>(
        &mut self,
        response: Response,
        mut framing: Framing,
    ) -> io::Result<Next<U>> {
        self.say_last(&mut framing);
        self.held.set(self.input.len());
        let separate_body = response.encode(framing, &mut self.output);
        let closes = framing.connection == Connection::Close;
        if let Some(body) = separate_body {
            self.held_output.set(body.len());
            self.flush_with(body).await?;
            self.held_output.set(0);
        } else if closes || self.output.len() >= OUTPUT_BYTES {
            self.flush().await?;
        }
        Ok(self.next(closes))
    }

    /// Where the node stops, an answer says that the connection ends: the last one to what has been received, or
    /// at once when there is no time for that.
    fn say_last(&self, framing: &mut Framing) {
        let drain = &self.limits.drain;
        if drain.has_begun() && (self.input.is_empty() || drain.ends()) {
            framing.connection = Connection::Close;
        }
    }

    /// What comes behind an answer. A connection that the node ends may have been sent a request meanwhile, which
    /// must not cost its client the answer.
    fn next<U>(&self, closes: bool) -> Next<U> {
        match (closes, self.limits.drain.has_begun()) {
            (false, _) => Next::Request,
            (true, false) => Next::Close,
            (true, true) => Next::Discard,
        }
    }

    /// Sends a body piece by piece. One that breaks off ends the connection without its last chunk.
    async fn stream<U>(
        &mut self,
        response: Response,
        mut pieces: Box<dyn Pieces>,
        mut framing: Framing,
        takes_chunks: bool,
    ) -> io::Result<Next<U>> {
        self.held.set(self.input.len());
        self.say_last(&mut framing);
        if !takes_chunks {
            framing.connection = Connection::Close;
        }
        let length = takes_chunks.then_some(Length::Chunks);
        response.encode_head(framing, length, &mut self.output);
        while let Some(piece) = pieces.next().await? {
            if takes_chunks {
                let head = format!("{:x}\r\n", piece.len());
                self.output.extend_from_slice(head.as_bytes());
            }
            self.held_output.set(piece.len());
            self.flush_within(self.limits.stream_stall, piece).await?;
            self.held_output.set(0);
            if takes_chunks {
                self.output.extend_from_slice(b"\r\n");
            }
        }
        if takes_chunks {
            self.output.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush().await?;
        let closes = framing.connection == Connection::Close;
        Ok(self.next(closes))
    }

    /// The last response of a connection whose request was not read to its end.
    async fn finish<U>(&mut self, response: Response, without_body: bool) -> io::Result<Next<U>> {
        let framing = Framing {
            connection: Connection::Close,
            without_body,
        };
        self.respond::<U>(response, framing).await?;
        Ok(Next::Discard)
    }

    /// Reads what still comes: closing a socket with unread bytes resets the connection, and the
    /// client would not see the response (RFC 9112, section 9.6).
    async fn discard(&mut self) {
        let linger = self.limits.linger;
        let _ = timeout(linger, async {
            self.stream.shutdown().await?;
            loop {
                self.input.clear();
                self.input.reserve(FIRST_READ_BYTES);
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        })
        .await;
    }

    /// Reads at least one byte; first writes what the client may be waiting for.
    pub(super) async fn fill(&mut self, deadline: Instant) -> Result<(), Stop> {
        if !self.output.is_empty() {
            // As with RESP: answers that are sent one after the other cost less.
            yield_to_ready_tasks().await;
            self.flush().await.map_err(|_| Stop::Disconnected)?;
        }
        self.input.reserve(FIRST_READ_BYTES);
        let mut piece = (&mut self.input).limit(PIECE_BYTES);
        match timeout_at(deadline, self.stream.read_buf(&mut piece)).await {
            Err(_elapsed) => Err(Stop::Slow),
            Ok(Ok(0) | Err(_)) => Err(Stop::Disconnected),
            Ok(Ok(read)) => {
                self.moved += read;
                if self.moved >= PIECE_BYTES {
                    self.moved = 0;
                    yield_now().await;
                }
                Ok(())
            }
        }
    }

    /// Tells the client that its body is wanted.
    pub(super) fn queue_continue(&mut self) {
        self.output
            .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.flush_with(Bytes::new()).await
    }

    async fn flush_with(&mut self, body: Bytes) -> io::Result<()> {
        self.flush_within(self.limits.write_stall, body).await
    }

    /// The same for a client that may be so slow.
    async fn flush_within(&mut self, stall: Duration, mut body: Bytes) -> io::Result<()> {
        let mut departure = Departure::begin(stall);
        while self.output.has_remaining() || body.has_remaining() {
            let piece = body.get(..PIECE_BYTES).unwrap_or(&body);
            let slices = [IoSlice::new(&self.output), IoSlice::new(piece)];
            let write = self.stream.write_vectored(&slices);
            let mut written = until(departure.deadline(), write).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            departure.took(written);
            let of_output = written.min(self.output.len());
            self.output.advance(of_output);
            written -= of_output;
            body.advance(written);
            if body.has_remaining() {
                // Others have their turn, and what has come to the thread's sockets meanwhile.
                yield_now().await;
            }
        }
        until(departure.deadline(), self.stream.flush()).await
    }
}

async fn until<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(deadline, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn framing(head: &Head) -> Framing {
    let connection = match (head.keep_alive, head.keep_alive_asked) {
        (false, _) => Connection::Close,
        (true, true) => Connection::KeepAlive,
        (true, false) => Connection::Implied,
    };
    Framing {
        connection,
        without_body: head.method == Method::Head,
    }
}
