//! Request bodies, by length or in chunks (RFC 9112, sections 6 and 7).
//! Never grows a buffer for bytes that have not arrived, and never past the route's limit.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use memkv_proto::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::conn::{App, Conn, OUTPUT_BYTES, Stop};
use super::head::{BodyLength, Head, Refusal};
use super::limits::Limits;
use crate::aside::{step_aside, steps_of};
use crate::ledger::{Class, Held};
use crate::pace::Arrival;

/// Longest size line of a chunk: sixteen digits and a short extension.
const CHUNK_LINE_BYTES: usize = 256;

/// Room for a body is so many times what has arrived of it, of which nothing is touched before it is
/// read into: a small factor costs more copies.
const ROOM_FACTOR: usize = 7;

/// What ends each line and each chunk.
const LINE_END: &[u8] = b"\r\n";

/// Until when the next bytes of a body must arrive, and the memory that they take.
struct Pace {
    arrival: Arrival,
    received: usize,
    held: Held,
}

/// A body, and its share of the memory for bodies.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) held: Held,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        Self {
            arrival: Arrival::begin(),
            received: 0,
            held: limits.ledger.hold(Class::Input),
        }
    }

    fn deadline(&self, limits: &Limits) -> Instant {
        self.arrival
            .deadline(limits.body_grace, limits.body_bytes_per_second)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Conn<S> {
    /// The whole body, if it is no longer than `limit`.
    pub(super) async fn read_body<A: App>(
        &mut self,
        app: &A,
        head: &Head,
        limit: usize,
    ) -> Result<Body, Stop> {
        let too_large = || Stop::Refuse(app.too_large(head, limit));
        if matches!(head.body, BodyLength::Known(length) if length > limit as u64) {
            return Err(too_large());
        }
        if head.expects_continue && self.input.is_empty() {
            self.queue_continue();
        }
        let result = match head.body {
            BodyLength::Known(length) => self.read_known(length as usize).await,
            BodyLength::Chunked => match self.read_chunked(limit).await {
                Ok(None) => return Err(too_large()),
                Ok(Some(body)) => Ok(body),
                Err(stop) => Err(stop),
            },
        };
        result.map_err(|stop| match stop {
            Stop::Slow => {
                let detail = format!(
                    "the body arrived too slowly: the limit is {:?} plus one second for each {} \
                     bytes; nothing was executed",
                    self.limits.body_grace, self.limits.body_bytes_per_second
                );
                Refusal::new(ErrorCode::RequestTimeout, detail).into()
            }
            stop => stop,
        })
    }

    /// A body of `length` bytes, which the caller has bounded.
    pub(super) async fn read_known(&mut self, length: usize) -> Result<Body, Stop> {
        let mut pace = Pace::new(&self.limits);
        while self.input.len() < length {
            // A multiple of what has arrived, so that a length alone allocates nothing. What has
            // arrived is copied to there, aside if that takes long.
            let arrived = self.input.len();
            let room = (length - arrived).min(ROOM_FACTOR * arrived);
            if self.input.capacity() - arrived < room {
                step_aside(steps_of(0, arrived), || self.input.reserve(room));
            }
            self.fill_body(&mut pace).await?;
        }
        self.was_large |= length > OUTPUT_BYTES;
        let bytes = self.input.split_to(length).freeze();
        Ok(Body {
            bytes,
            held: pace.held,
        })
    }

    /// A body in chunks; `None` if it is longer than `limit`.
    async fn read_chunked(&mut self, limit: usize) -> Result<Option<Body>, Stop> {
        let mut pace = Pace::new(&self.limits);
        let mut body = BytesMut::new();
        loop {
            let Some(line) = self.read_line(&mut pace, CHUNK_LINE_BYTES).await? else {
                return Err(bad_chunk("a chunk's size line is too long"));
            };
            let mut left = chunk_length(&line)?;
            if left == 0 {
                self.skip_trailers(&mut pace).await?;
                let bytes = body.freeze();
                return Ok(Some(Body {
                    bytes,
                    held: pace.held,
                }));
            }
            if left > (limit - body.len()) as u64 {
                return Ok(None);
            }
            while left > 0 {
                if self.input.is_empty() {
                    self.fill_body(&mut pace).await?;
                }
                let take = self
                    .input
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                if body.capacity() - body.len() < take {
                    let (arrived, room) = (body.len(), take.max(body.len()));
                    step_aside(steps_of(0, arrived), || body.reserve(room));
                }
                self.was_large |= self.input.len() > OUTPUT_BYTES;
                body.extend_from_slice(&self.input[..take]);
                self.input.advance(take);
                left -= take as u64;
            }
            if self.read_line(&mut pace, LINE_END.len()).await?.is_none() {
                return Err(bad_chunk("a chunk is longer than it says"));
            }
        }
    }

    async fn skip_trailers(&mut self, pace: &mut Pace) -> Result<(), Stop> {
        let most = self.limits.header_bytes;
        let mut left = most;
        while let Some(line) = self.read_line(pace, left).await? {
            if &line[..] == LINE_END {
                return Ok(());
            }
            if !is_field(&line) {
                return Err(bad_chunk("a trailer is no field"));
            }
            left -= line.len();
        }
        let detail = format!("more than {most} bytes of trailers, the limit");
        Err(Refusal::new(ErrorCode::HeaderTooLarge, detail).into())
    }

    /// A line with its CR LF; `None` if it is longer than `most` bytes.
    async fn read_line(&mut self, pace: &mut Pace, most: usize) -> Result<Option<BytesMut>, Stop> {
        loop {
            // What lies behind the limit may not have arrived, so it must not count.
            let within = self.input.get(..most).unwrap_or(&self.input);
            if let Some(end) = memchr(b'\n', within) {
                let line = self.input.split_to(end + 1);
                let text = line.strip_suffix(LINE_END);
                return match text {
                    Some(text) if memchr(b'\r', text).is_none() => Ok(Some(line)),
                    _ => Err(bad_chunk("a line does not end with CR LF")),
                };
            }
            if self.input.len() >= most {
                return Ok(None);
            }
            self.fill_body(pace).await?;
        }
    }

    async fn fill_body(&mut self, pace: &mut Pace) -> Result<(), Stop> {
        let before = self.input.len();
        self.fill(pace.deadline(&self.limits)).await?;
        let more = self.input.len() - before;
        pace.arrival.received(more);
        pace.received += more;
        match pace.held.try_set(pace.received) {
            true => Ok(()),
            false => Err(self.no_room().into()),
        }
    }
}

/// Whether a line is a field of its own (RFC 9112, section 5): another reader must not take it for a part of
/// the one before.
fn is_field(line: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; 1];
    let with_end = [line, LINE_END].concat();
    let parsed = httparse::parse_headers(&with_end, &mut fields);
    matches!(parsed, Ok(httparse::Status::Complete((end, [_]))) if end == with_end.len())
}

fn bad_chunk(why: &str) -> Stop {
    Refusal::new(ErrorCode::BadRequest, format!("bad chunked body: {why}")).into()
}

/// Of a size line: hexadecimal digits, then perhaps an extension, which is ignored.
fn chunk_length(line: &[u8]) -> Result<u64, Stop> {
    // The parser takes no digits for a zero, which would end the body.
    let is_number = line.first().is_some_and(u8::is_ascii_hexdigit);
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((end, length))) if is_number && end == line.len() => {
            Ok(length)
        }
        _ => Err(bad_chunk(
            "a chunk's size is not a hexadecimal number of 16 digits at most",
        )),
    }
}
