//! The output of a connection: bytes that were collected, and among them large values, which are
//! sent from where they are and never copied.
//!
//! Invariant: bytes are sent as they were put in, in that order; one write takes no more than a piece.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use memkv_resp::Output;
use tokio::io::AsyncWrite;

use super::conn::{OUTPUT_BYTES, PIECE_BYTES};

/// From here on a value is sent from where it is (64 KiB): to copy that much costs as much as to send
/// it in a call of its own.
const LARGE_BYTES: usize = 64 * 1024;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Out {
    /// What is small.
    collected: BytesMut,
    /// How many bytes of `collected` have left since it was last empty.
    gone: usize,
    /// Each with how many collected bytes leave before it, counted as `gone` is.
    large: VecDeque<(usize, Bytes)>,
    large_bytes: usize,
}

impl Output for Out {
    fn put(&mut self, bytes: &[u8]) {
        self.collected.extend_from_slice(bytes);
    }

    fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < LARGE_BYTES {
            return self.put(bytes);
        }
        self.large.push_back((self.mark(), bytes.clone()));
        self.large_bytes += bytes.len();
    }
}

impl Out {
    pub(crate) fn len(&self) -> usize {
        self.collected.len() + self.large_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was put in so far, for [`Out::truncate`].
    pub(crate) fn mark(&self) -> usize {
        self.gone + self.collected.len()
    }

    /// Takes back what was put in since the mark, of which nothing may have been sent. A large value
    /// never comes first: a reply begins with bytes that are collected.
    pub(crate) fn truncate(&mut self, mark: usize) {
        self.collected.truncate(mark.saturating_sub(self.gone));
        while let Some((_, value)) = self.large.pop_back_if(|(at, _)| *at > mark) {
            self.large_bytes -= value.len();
        }
    }

    /// Writes what comes first, a piece at most. Returns how much it was, none if the stream takes no
    /// more. There must be something.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let (first, second) = self.first();
        // One buffer needs no vectored call, which costs more.
        let written = if second.is_empty() {
            ready!(stream.poll_write(context, first))?
        } else {
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            ready!(stream.poll_write_vectored(context, &slices))?
        };
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    /// A piece in two parts; the second may be empty.
    fn first(&self) -> (&[u8], &[u8]) {
        let Some((at, value)) = self.large.front() else {
            let length = self.collected.len().min(PIECE_BYTES);
            return (&self.collected[..length], &[]);
        };
        let before = (at - self.gone).min(PIECE_BYTES);
        let length = value.len().min(PIECE_BYTES - before);
        let (first, second) = (&self.collected[..before], &value[..length]);
        if first.is_empty() {
            (second, first)
        } else {
            (first, second)
        }
    }

    fn advance(&mut self, mut count: usize) {
        if count == self.collected.len() && self.large.is_empty() {
            // All of the buffer is there again, without looking for it.
            self.collected.clear();
            self.gone = 0;
            return;
        }
        while count > 0 {
            let before = self.large.front().map_or(usize::MAX, |(at, _)| *at) - self.gone;
            let small = count.min(before).min(self.collected.len());
            self.collected.advance(small);
            self.gone += small;
            count -= small;
            if count == 0 {
                break;
            }
            let Some((_, value)) = self.large.front_mut() else {
                break;
            };
            let length = count.min(value.len());
            value.advance(length);
            self.large_bytes -= length;
            count -= length;
            if value.is_empty() {
                self.large.pop_front();
            }
        }
        if self.collected.is_empty() && self.large.is_empty() {
            self.gone = 0;
        }
    }

    /// Gives back what a connection that is idle need not hold. There must be nothing to send.
    pub(super) fn shrink(&mut self) {
        if self.collected.capacity() > OUTPUT_BYTES || self.large.capacity() > 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Takes so many bytes at once, and keeps them.
    struct Takes(usize, Vec<u8>);

    impl AsyncWrite for Takes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            assert!(!bytes.is_empty() && bytes.len() <= PIECE_BYTES);
            let taken = bytes.len().min(self.0);
            self.1.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            self.poll_write(context, &bytes)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn value(fill: u8, length: usize) -> Bytes {
        Bytes::from(vec![fill; length])
    }

    #[tokio::test]
    async fn everything_leaves_in_order_whatever_the_stream_takes() {
        for most in [97, 4096, LARGE_BYTES + 3, usize::MAX] {
            let mut out = Out::default();
            let mut put_in = Vec::new();
            let mut stream = Takes(most, Vec::new());
            for length in [
                3,
                LARGE_BYTES,
                5,
                LARGE_BYTES - 1,
                PIECE_BYTES + 1,
                LARGE_BYTES,
            ] {
                let value = value(length as u8, length);
                out.put(b"head");
                out.put_shared(&value);
                put_in.extend_from_slice(b"head");
                put_in.extend_from_slice(&value);
                // Some of it leaves before more comes.
                poll_fn(|context| out.poll_write(&mut stream, context))
                    .await
                    .unwrap();
            }
            while !out.is_empty() {
                assert_eq!(out.len(), put_in.len() - stream.1.len());
                poll_fn(|context| out.poll_write(&mut stream, context))
                    .await
                    .unwrap();
            }
            assert!(stream.1 == put_in, "{most}");
            out.shrink();
            assert_eq!(
                (out.collected.capacity(), out.gone, out.large.len()),
                (0, 0, 0)
            );
        }
    }

    #[tokio::test]
    async fn what_is_taken_back_does_not_leave() {
        let mut stream = Takes(usize::MAX, Vec::new());
        let mut out = Out::default();
        out.put(b"sent");
        out.put_shared(&value(1, LARGE_BYTES));
        poll_fn(|context| out.poll_write(&mut stream, context))
            .await
            .unwrap();
        out.put(b"a");
        out.put_shared(&value(2, LARGE_BYTES));
        let mark = out.mark();
        let before = out.len();
        out.put(b"b");
        out.put_shared(&value(3, LARGE_BYTES));
        out.put_shared(&value(4, LARGE_BYTES));
        out.put(b"c");
        out.truncate(mark);
        assert_eq!(out.len(), before);
        while !out.is_empty() {
            poll_fn(|context| out.poll_write(&mut stream, context))
                .await
                .unwrap();
        }
        assert_eq!(stream.1.len(), 5 + 2 * LARGE_BYTES);
        assert_eq!(stream.1.last(), Some(&2));
    }
}
