//! Properties that hold for any bytes from a client; shared by this crate's tests and the fuzz target.
//! Panics where one does not hold.

use bytes::BytesMut;
use memkv_resp::{Limits, ProtocolError, RequestParser};

/// The requests of a stream as plain bytes, and the error that ended it.
pub(crate) type Requests = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Small enough for a test to reach each of them.
pub(crate) const SMALL: Limits = Limits {
    max_inline: 48,
    max_bulk: 40_000,
    max_args: 20,
    max_request: 50_000,
    authenticated: true,
};

/// Reads a stream of requests in pieces of `piece` bytes.
pub(crate) fn read_requests(limits: Limits, stream: &[u8], piece: usize) -> Requests {
    let mut parser = RequestParser::new(limits);
    let mut buf = BytesMut::new();
    let mut requests = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        buf.extend_from_slice(piece);
        let capacity = buf.capacity();
        loop {
            match parser.parse(&mut buf) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    let args: Vec<Vec<u8>> = request.args().map(<[u8]>::to_vec).collect();
                    assert!(!args.is_empty() && args.len() == request.arg_count());
                    requests.push(args);
                    parser.recycle(request);
                }
                Err(error) => {
                    assert_eq!(parser.parse(&mut buf), Err(error), "an error is final");
                    return (requests, Some(error));
                }
            }
        }
        assert!(buf.capacity() <= capacity, "a parser reserves nothing");
        assert!(parser.needed() <= limits.max_bulk + 2);
        assert!(
            buf.len() <= limits.max_request + limits.max_inline + 2,
            "{} bytes wait, which no request can have",
            buf.len()
        );
    }
    (requests, None)
}

/// Whether a stream of requests is read the same in one piece and in many.
pub(crate) fn check_requests(limits: Limits, stream: &[u8], piece: usize) -> Requests {
    let whole = read_requests(limits, stream, stream.len());
    assert_eq!(read_requests(limits, stream, piece), whole);
    whole
}
