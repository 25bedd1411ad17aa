//! Properties that hold for any bytes from a server; shared by this crate's tests and the fuzz target.
//! Panics where one does not hold.

use bytes::BytesMut;
use memkv_resp::{Frame, FrameError, FrameParser, parse_frame};

/// The frames of a stream, and the error that ended it.
pub(crate) type Frames = (Vec<Frame>, Option<FrameError>);

/// Reads a stream of frames in pieces of `piece` bytes.
pub(crate) fn read_frames(stream: &[u8], piece: usize) -> Frames {
    let mut parser = FrameParser::new();
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        buf.extend_from_slice(piece);
        loop {
            match parser.parse(&mut buf) {
                Ok(None) => break,
                Ok(Some(frame)) => frames.push(frame),
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Whether a stream of frames is read the same in one piece, in many, and frame by frame.
pub(crate) fn check_frames(stream: &[u8], piece: usize) -> Frames {
    let pieces = read_frames(stream, piece);
    let mut frames = Vec::new();
    let mut rest = stream;
    let error = loop {
        match parse_frame(rest) {
            Ok(None) => break None,
            Ok(Some((frame, len))) => {
                frames.push(frame);
                rest = &rest[len..];
            }
            Err(error) => break Some(error),
        }
    };
    // Compared as text, because "not a number" does not equal itself.
    assert_eq!(format!("{pieces:?}"), format!("{:?}", (&frames, error)));
    assert_eq!(
        format!("{pieces:?}"),
        format!("{:?}", read_frames(stream, stream.len()))
    );
    pieces
}
