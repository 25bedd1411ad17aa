//! What must hold of any bytes from a peer: in the handshake, as frames, and as messages.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use memkv_node::Frame;
use memkv_server::peer::{
    Challenge, ClusterSecret, FrameReader, HandshakeError, Meeting, prove, push,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The other side: says what it was given, in pieces, and keeps what it is told.
struct Other<'a> {
    says: &'a [u8],
    piece: usize,
    told: Vec<u8>,
}

impl AsyncRead for Other<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.piece.min(into.remaining()).min(self.says.len());
        let (piece, rest) = self.says.split_at(count);
        into.put_slice(piece);
        self.says = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Other<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.told.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Nothing here ever waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .expect("what was said is there at once")
}

/// A side that does not know the secret is not admitted and learns nothing; one that does is admitted.
pub(crate) fn check_handshake(said: &[u8], piece: usize) {
    let secret = ClusterSecret::new(SECRET).expect("long enough");
    let asked = "ab".repeat(32);
    let challenge = |verdict: &str| {
        let names = ("n1", "n2");
        let nonce = (asked.as_str(), "");
        Challenge::new(secret.clone(), names, "append", nonce, verdict.to_owned()).expect("a nonce")
    };
    let other = |says| Other {
        says,
        piece: piece.max(1),
        told: Vec::new(),
    };

    let mut stranger = other(said);
    let settled = now(challenge("").settle(&mut stranger, &mut BytesMut::new()));
    assert!(settled.is_err() && stranger.told.is_empty());

    let verdict = String::from_utf8_lossy(&said[..said.len().min(40)]).into_owned();
    let challenge = challenge(&verdict);
    let answered = challenge.nonce().to_owned();
    let meeting = Meeting {
        from: "n1",
        to: "n2",
        lane: "append",
        asked: &asked,
        answered: &answered,
        channel: "",
    };
    let proven = [&secret.dialler_proof(meeting)[..], said].concat();
    let (mut knows, mut input) = (other(&proven), BytesMut::new());
    let settled = now(challenge.settle(&mut knows, &mut input));
    assert_eq!(settled.is_ok(), verdict.is_empty());
    assert_eq!(
        [&input[..], knows.says].concat(),
        said,
        "nothing of what follows is lost"
    );

    // What the answerer has said convinces the dialler, in any pieces, and nothing else does.
    let answer = [&knows.told[..], said].concat();
    let (mut answerer, mut input) = (other(&answer), BytesMut::new());
    match now(prove(&mut answerer, &mut input, &secret, meeting)) {
        Ok(()) => assert!(verdict.is_empty()),
        Err(HandshakeError::Refused(why)) => assert_eq!(why, verdict),
        Err(error) => panic!("{error}"),
    }
    assert_eq!([&input[..], answerer.says].concat(), said);
    let mut liar = other(said);
    let believed = now(prove(&mut liar, &mut BytesMut::new(), &secret, meeting));
    assert!(matches!(believed, Err(HandshakeError::Unproven)));
}

/// Frames that are delivered are those that were sent, and no body of them stops a node.
pub(crate) fn check_frames(stream: &[u8], piece: usize) {
    let other = |says| Other {
        says,
        piece: piece.max(1),
        told: Vec::new(),
    };
    let mut reader = FrameReader::new(other(stream), BytesMut::new());
    let mut delivered = Vec::new();
    while let Ok(Some((id, body))) = now(reader.next()) {
        let _ = memkv_node::is_readable(body.clone());
        let mut out = VecDeque::new();
        push(&mut out, id, Frame(vec![body])).expect("it was short enough");
        out.iter()
            .for_each(|part| delivered.extend_from_slice(part));
    }
    assert!(stream.starts_with(&delivered));

    // As a body: most damage would not get past the checksums.
    let body = Bytes::copy_from_slice(stream);
    let _ = memkv_node::is_readable(body.clone());
    let mut out = VecDeque::new();
    push(&mut out, 7, Frame(vec![body.clone()])).expect("short enough");
    let sent: Vec<u8> = out.iter().flat_map(|part| part.to_vec()).collect();
    let mut reader = FrameReader::new(other(&sent), BytesMut::new());
    assert!(matches!(now(reader.next()), Ok(Some((7, received))) if received == body));
    assert!(matches!(now(reader.next()), Ok(None)));
}
