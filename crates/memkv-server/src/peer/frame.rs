//! Frames of the peer link: `length u32 | id u64 | body checksum u32 | header checksum u32 | body`,
//! little-endian, checksums CRC-32 (IEEE). A response carries the id of its request.
//! Never looks into a body and never allocates for a length that has not yet arrived.
//!
//! Invariant: a frame whose checksums do not hold is never delivered, and nothing after it is.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use memkv_node::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 20;

/// Longest body: the largest value (64 MiB) plus its key, with room for the entry around it.
pub(super) const MAX_BODY_BYTES: usize = 72 * 1024 * 1024;

/// Smallest read: one segment of a fast loopback, so that a burst of small frames is one read.
const READ_BYTES: usize = 64 * 1024;

/// A connection does not keep more memory than this between frames, so that one large value does
/// not cost every lane to every peer its size from then on.
const KEPT_BYTES: usize = 1024 * 1024;

/// Buffers given to one `writev`: beyond this the kernel's work per call no longer shrinks.
const MAX_SLICES: usize = 64;

/// Why a connection's bytes are not frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side closed in the middle of a frame.
    #[error("the peer closed the connection in the middle of a frame")]
    Truncated,
    /// The bytes that arrived are not those that were sent.
    #[error("a frame's {part} does not match its checksum: the connection corrupts data")]
    Corrupt {
        /// `header` or `body`.
        part: &'static str,
    },
    /// Longer than [`MAX_BODY_BYTES`].
    #[error("a frame of {bytes} bytes exceeds the limit of {MAX_BODY_BYTES} bytes")]
    TooLong {
        /// Announced length.
        bytes: usize,
    },
}

/// Puts a frame at the end of `out`: its header, then its parts, shared and not copied.
pub fn push(out: &mut VecDeque<Bytes>, id: u64, frame: Frame) -> Result<(), FrameError> {
    let bytes = frame.len();
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    if bytes > MAX_BODY_BYTES {
        return Err(FrameError::TooLong { bytes });
    }
    let mut body_checksum = crc32fast::Hasher::new();
    for part in &frame.0 {
        body_checksum.update(part);
    }
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[4..12].copy_from_slice(&id.to_le_bytes());
    header[12..16].copy_from_slice(&body_checksum.finalize().to_le_bytes());
    let header_checksum = crc32fast::hash(&header[..16]);
    header[16..20].copy_from_slice(&header_checksum.to_le_bytes());
    out.push_back(Bytes::copy_from_slice(&header));
    out.extend(frame.0.into_iter().filter(|part| !part.is_empty()));
    Ok(())
}

/// Writes everything in `out` with as few system calls as it takes.
pub(super) async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        for (slice, part) in slices.iter_mut().zip(out.iter()) {
            *slice = IoSlice::new(part);
            used += 1;
        }
        let mut written = writer.write_vectored(&slices[..used]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(part) = out.front_mut() {
            if written < part.len() {
                part.advance(written);
                break;
            }
            written -= part.len();
            out.pop_front();
        }
    }
    writer.flush().await
}

/// Reads frames off a connection.
pub struct FrameReader<R> {
    reader: R,
    buffer: BytesMut,
}

struct Header {
    length: usize,
    id: u64,
    body_checksum: u32,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `leftover` is what has already been read behind the upgrade.
    pub fn new(reader: R, leftover: BytesMut) -> Self {
        Self {
            reader,
            buffer: leftover,
        }
    }

    /// The next frame's id and body; `None` when the peer closed between two frames. May be
    /// dropped and called again: what has arrived stays in the buffer.
    pub async fn next(&mut self) -> Result<Option<(u64, Bytes)>, FrameError> {
        while self.buffer.len() < HEADER_BYTES {
            if !self.fill(HEADER_BYTES).await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
        let header = decode_header(&self.buffer)?;
        let total = HEADER_BYTES + header.length;
        while self.buffer.len() < total {
            if !self.fill(total).await? {
                return Err(FrameError::Truncated);
            }
        }
        let mut frame = self.buffer.split_to(total);
        if total > KEPT_BYTES {
            // What is left shares the memory of the big frame, and would keep it for ever.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        frame.advance(HEADER_BYTES);
        if crc32fast::hash(&frame) != header.body_checksum {
            return Err(FrameError::Corrupt { part: "body" });
        }
        Ok(Some((header.id, frame.freeze())))
    }

    /// Reads once. The buffer at most doubles, so a length alone allocates nothing.
    async fn fill(&mut self, total: usize) -> io::Result<bool> {
        let missing = total - self.buffer.len();
        self.buffer
            .reserve(missing.min(self.buffer.len()).max(READ_BYTES));
        Ok(self.reader.read_buf(&mut self.buffer).await? > 0)
    }
}

fn decode_header(buffer: &[u8]) -> Result<Header, FrameError> {
    let mut bytes = &buffer[..HEADER_BYTES];
    let expected = crc32fast::hash(&bytes[..16]);
    let length = bytes.get_u32_le() as usize;
    let id = bytes.get_u64_le();
    let body_checksum = bytes.get_u32_le();
    if bytes.get_u32_le() != expected {
        return Err(FrameError::Corrupt { part: "header" });
    }
    if length > MAX_BODY_BYTES {
        return Err(FrameError::TooLong { bytes: length });
    }
    Ok(Header {
        length,
        id,
        body_checksum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(id: u64, parts: &[&'static [u8]]) -> BytesMut {
        let mut out = VecDeque::new();
        let frame = Frame(parts.iter().map(|part| Bytes::from_static(part)).collect());
        push(&mut out, id, frame).unwrap();
        out.iter().flat_map(|part| part.iter().copied()).collect()
    }

    async fn decode(bytes: BytesMut) -> Result<Option<(u64, Bytes)>, FrameError> {
        FrameReader::new(tokio::io::empty(), bytes).next().await
    }

    #[tokio::test]
    async fn parts_arrive_as_one_body_byte_by_byte_or_at_once() {
        let bytes = encoded(7, &[b"ab", b"", b"cde"]);
        assert_eq!(bytes.len(), HEADER_BYTES + 5);
        assert_eq!(
            decode(bytes.clone()).await.unwrap(),
            Some((7, Bytes::from_static(b"abcde")))
        );

        let (mut near, far) = tokio::io::duplex(1);
        let mut reader = FrameReader::new(far, BytesMut::new());
        tokio::spawn(async move { near.write_all(&bytes).await });
        assert_eq!(
            reader.next().await.unwrap(),
            Some((7, Bytes::from_static(b"abcde")))
        );
        assert_eq!(reader.next().await.unwrap(), None, "closed between frames");
    }

    #[tokio::test]
    async fn a_big_frame_leaves_no_big_buffer_behind() {
        let big = Bytes::from(vec![7; 4 * KEPT_BYTES]);
        let mut out = VecDeque::new();
        push(&mut out, 1, Frame(vec![big.clone()])).unwrap();
        push(&mut out, 2, Frame(vec![Bytes::from_static(b"small")])).unwrap();
        let bytes: Vec<u8> = out.iter().flat_map(|part| part.to_vec()).collect();
        let mut reader = FrameReader::new(&bytes[..], BytesMut::new());
        assert_eq!(reader.next().await.unwrap(), Some((1, big)));
        assert_eq!(
            reader.next().await.unwrap(),
            Some((2, Bytes::from_static(b"small")))
        );
        assert!(
            reader.buffer.capacity() <= KEPT_BYTES,
            "{}",
            reader.buffer.capacity()
        );
    }

    #[tokio::test]
    async fn every_flipped_bit_is_noticed() {
        let good = encoded(9, &[b"value"]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(decode(bad).await, Err(FrameError::Corrupt { .. })),
                "bit {bit}"
            );
        }
    }

    #[tokio::test]
    async fn a_cut_frame_is_truncated() {
        let good = encoded(9, &[b"value"]);
        for length in 1..good.len() {
            let cut = BytesMut::from(&good[..length]);
            assert!(
                matches!(decode(cut).await, Err(FrameError::Truncated)),
                "{length} bytes"
            );
        }
        assert_eq!(decode(BytesMut::new()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_long_frame_is_refused_before_it_is_read() {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&(MAX_BODY_BYTES as u32 + 1).to_le_bytes());
        let checksum = crc32fast::hash(&header[..16]);
        header[16..].copy_from_slice(&checksum.to_le_bytes());
        let error = decode(BytesMut::from(&header[..])).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLong { bytes } if bytes == MAX_BODY_BYTES + 1));

        let whole = Bytes::from(vec![0; MAX_BODY_BYTES / 2 + 1]);
        let twice = Frame(vec![whole.clone(), whole]);
        let error = push(&mut VecDeque::new(), 1, twice).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }));
    }
}
