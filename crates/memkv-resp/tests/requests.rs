//! Requests: every text and limit of Redis. A mangled or cut stream is read in one way only.

#[path = "properties/requests.rs"]
mod properties;

use bytes::BytesMut;
use memkv_resp::{
    Limits, MAX_ARGS, MAX_BULK_BYTES, ProtocolError, RequestParser, encode_command, split_args,
};
use properties::{SMALL, check_requests};
use proptest::prelude::*;

/// The requests of a stream that has no error.
fn requests(stream: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let (requests, error) = check_requests(Limits::new(1 << 20), stream, 1);
    assert_eq!(error, None);
    requests
}

/// The error that ends a stream, which has no request before it.
fn error(limits: Limits, stream: &[u8]) -> Option<ProtocolError> {
    let (requests, error) = check_requests(limits, stream, 1);
    assert!(requests.is_empty(), "{requests:?}");
    error
}

#[test]
fn both_kinds_of_request_follow_each_other() {
    let stream = b"*2\r\n$3\r\nGET\r\n$4\r\n\r\n\0\xff\r\nSET k \"a b\"\r\n*1\r\n$0\r\n\r\nPING\n";
    assert_eq!(
        requests(stream),
        [
            vec![b"GET".to_vec(), b"\r\n\0\xff".to_vec()],
            vec![b"SET".to_vec(), b"k".to_vec(), b"a b".to_vec()],
            vec![Vec::new()],
            vec![b"PING".to_vec()],
        ]
    );
}

#[test]
fn empty_requests_are_skipped() {
    let stream = b"\r\n\n  \t\r\n*0\r\n*-1\r\n*-7\r\nPING\r\n";
    assert_eq!(requests(stream), [[b"PING"]]);
}

#[test]
fn arguments_share_the_buffer_and_count_their_bytes() {
    let mut parser = RequestParser::new(Limits::new(100));
    let mut buf = BytesMut::from("*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n*1\r\n");
    let start = buf.as_ptr() as usize;
    let request = parser.parse(&mut buf).unwrap().unwrap();
    assert_eq!(request.arg(0), Some(&b"ECHO"[..]));
    assert_eq!(request.arg(2), None);
    let arg = request.arg_bytes(1).unwrap();
    assert_eq!(arg, "hi");
    assert_eq!(arg.as_ptr() as usize, start + 18);
    assert_eq!(request.byte_count(), 22);
    assert_eq!(buf, "*1\r\n");
}

#[test]
fn counts_and_lengths_are_canonical_numbers() {
    let limits = Limits::new(1 << 20);
    for number in [
        "",
        "x",
        "+1",
        "01",
        "-0",
        " 1",
        "1 ",
        "1.0",
        "9223372036854775808",
    ] {
        let count = format!("*{number}\r\n");
        assert_eq!(
            error(limits, count.as_bytes()),
            Some(ProtocolError::InvalidMultibulkLength),
            "{count:?}"
        );
        let length = format!("*1\r\n${number}\r\n");
        assert_eq!(
            error(limits, length.as_bytes()),
            Some(ProtocolError::InvalidBulkLength),
            "{length:?}"
        );
    }
    let negative = b"*1\r\n$-1\r\n";
    assert_eq!(
        error(limits, negative),
        Some(ProtocolError::InvalidBulkLength)
    );
}

#[test]
fn limits_hold_exactly() {
    let limits = Limits::new(10);
    let most = format!("*{MAX_ARGS}\r\n");
    let more = format!("*{}\r\n", MAX_ARGS + 1);
    assert_eq!(error(limits, most.as_bytes()), None);
    assert_eq!(
        error(limits, more.as_bytes()),
        Some(ProtocolError::TooManyArguments { limit: MAX_ARGS })
    );
    assert_eq!(error(limits, b"*1\r\n$10\r\n"), None);
    assert_eq!(
        error(limits, b"*1\r\n$11\r\n"),
        Some(ProtocolError::InvalidBulkLength)
    );
    // The ceiling holds even if the limits are set above it.
    let lax = Limits::new(2 * MAX_BULK_BYTES);
    let largest = format!("*1\r\n${MAX_BULK_BYTES}\r\n");
    let larger = format!("*1\r\n${}\r\n", MAX_BULK_BYTES + 1);
    assert_eq!(error(lax, largest.as_bytes()), None);
    assert_eq!(
        error(lax, larger.as_bytes()),
        Some(ProtocolError::InvalidBulkLength)
    );
}

#[test]
fn a_connection_that_must_authenticate_may_send_little() {
    let limits = Limits::unauthenticated();
    for (stream, expected) in [
        ("*10\r\n", None),
        (
            "*11\r\n",
            Some(ProtocolError::UnauthenticatedMultibulkLength),
        ),
        ("*1048577\r\n", Some(ProtocolError::InvalidMultibulkLength)),
        ("*1\r\n$16384\r\n", None),
        (
            "*1\r\n$16385\r\n",
            Some(ProtocolError::UnauthenticatedBulkLength),
        ),
        (
            "*1\r\n$536870912\r\n",
            Some(ProtocolError::UnauthenticatedBulkLength),
        ),
        (
            "*1\r\n$536870913\r\n",
            Some(ProtocolError::InvalidBulkLength),
        ),
    ] {
        assert_eq!(error(limits, stream.as_bytes()), expected, "{stream:?}");
    }
    // The largest request that the two limits allow is not refused as a whole.
    let mut largest = Vec::new();
    encode_command(&mut largest, &[[b'a'; 1600]; 10]);
    let (requests, none) = check_requests(limits, &largest, 1000);
    assert_eq!((requests.len(), none), (1, None));
    // All arguments together may be as long as one.
    let mut larger = Vec::new();
    encode_command(&mut larger, &[[b'a'; 1700]; 10]);
    let refused = error(limits, &larger);
    assert_eq!(refused, Some(ProtocolError::TooBigRequest));
}

#[test]
fn limits_change_between_two_requests() {
    let mut parser = RequestParser::new(Limits::unauthenticated());
    let mut buf = BytesMut::from("AUTH secret\r\n*11\r\n");
    buf.extend_from_slice(&b"$1\r\na\r\n".repeat(11));
    assert!(parser.parse(&mut buf).unwrap().is_some());
    parser.set_limits(Limits::new(1));
    assert_eq!(parser.parse(&mut buf).unwrap().unwrap().arg_count(), 11);
}

#[test]
fn lower_limits_hold_for_what_has_arrived() {
    let mut parser = RequestParser::new(Limits::new(100));
    let mut buf = BytesMut::from("a".repeat(100 * 1024).as_str());
    assert_eq!(parser.parse(&mut buf), Ok(None));
    parser.set_limits(Limits::unauthenticated());
    assert_eq!(parser.parse(&mut buf), Err(ProtocolError::TooBigInline));
}

#[test]
fn lines_without_end_are_refused() {
    let limits = Limits::new(100);
    for (before, kind, expected) in [
        ("", "", ProtocolError::TooBigInline),
        ("", "*", ProtocolError::TooBigMultibulkCount),
        ("*1\r\n", "$", ProtocolError::TooBigBulkCount),
        ("*1\r\n", "", ProtocolError::TooBigBulkCount),
    ] {
        let longest = kind.to_owned() + &"a".repeat(limits.max_inline - kind.len());
        let stream = format!("{before}{longest}");
        assert_eq!(check_requests(limits, stream.as_bytes(), 4096).1, None);
        // Whether the end follows, and whether it comes together with the line, does not matter.
        for end in ["", "\r\n"] {
            let stream = format!("{before}{longest}a{end}");
            assert_eq!(
                check_requests(limits, stream.as_bytes(), 4096).1,
                Some(expected),
                "{kind}"
            );
        }
    }
    let longest = "a".repeat(limits.max_inline) + "\n";
    assert_eq!(check_requests(limits, longest.as_bytes(), 4096).0.len(), 1);
}

#[test]
fn a_request_is_bounded_as_a_whole() {
    let limits = Limits {
        max_request: 40,
        ..Limits::new(20)
    };
    let fits = b"*2\r\n$9\r\n123456789\r\n$14\r\n12345678901234\r\n";
    assert_eq!(fits.len(), limits.max_request);
    assert_eq!(check_requests(limits, fits, 1).0.len(), 1);
    let too_big = Some(ProtocolError::TooBigRequest);
    assert_eq!(error(limits, b"*2\r\n$9\r\n123456789\r\n$15\r\n"), too_big);
}

#[test]
fn an_argument_is_a_bulk_string_with_its_line_ends() {
    let limits = Limits::new(100);
    let expected = |got| Some(ProtocolError::ExpectedBulk { got });
    assert_eq!(error(limits, b"*1\r\nxGET\r\n"), expected(b'x'));
    assert_eq!(error(limits, b"*1\r\n\r\n"), expected(b'\r'));
    assert_eq!(error(limits, b"*2\r\n$1\r\na\r\n:1\r\n"), expected(b':'));
    let length = Some(ProtocolError::InvalidBulkLength);
    assert_eq!(error(limits, b"*1\r\n$3\r\nGETS\r\n"), length);
    assert_eq!(error(limits, b"*1\r\n$3\rxGET\r\n"), length);
    let count = Some(ProtocolError::InvalidMultibulkLength);
    assert_eq!(error(limits, b"*1\rx$3\r\nGET\r\n"), count);
}

#[test]
fn quotes_must_balance() {
    let unbalanced = Some(ProtocolError::UnbalancedQuotes);
    assert_eq!(error(Limits::new(100), b"SET k \"a\r\n"), unbalanced);
    assert_eq!(error(Limits::new(100), b"SET k 'a'b\r\n"), unbalanced);
}

#[test]
fn http_is_recognised_in_both_kinds_of_request() {
    let http = Some(ProtocolError::CrossProtocol);
    for stream in [
        "POST / HTTP/1.1\r\n",
        "pOsT\r\n",
        "Host: localhost:6379\r\n",
        "host:\r\n",
        "*1\r\n$4\r\npost\r\n",
        "*2\r\n$5\r\nHOST:\r\n$1\r\nx\r\n",
    ] {
        assert_eq!(
            error(Limits::new(100), stream.as_bytes()),
            http,
            "{stream:?}"
        );
    }
    assert_eq!(requests(b"Host x\r\nPOSTS\r\nGET post\r\n").len(), 3);
}

#[test]
fn large_arguments_are_announced() {
    let mut parser = RequestParser::new(Limits::new(1 << 20));
    let mut buf = BytesMut::from("*2\r\n$3\r\nGET\r\n$32768\r\nabc");
    assert_eq!(parser.parse(&mut buf), Ok(None));
    assert_eq!(parser.needed(), 0);

    let mut parser = RequestParser::new(Limits::new(1 << 20));
    let mut buf = BytesMut::from("*2\r\n$3\r\nGET\r\n$32769\r\nabc");
    assert_eq!(parser.parse(&mut buf), Ok(None));
    assert_eq!(parser.needed(), 32769 - 3 + 2);
    let more = vec![b'x'; parser.needed() - 2];
    buf.extend_from_slice(&more);
    assert_eq!(parser.parse(&mut buf), Ok(None));
    assert_eq!(parser.needed(), 2);
    buf.extend_from_slice(b"\r\n");
    assert!(parser.parse(&mut buf).unwrap().is_some());
    assert_eq!(parser.needed(), 0);
}

/// A command of ordinary, odd and large arguments.
fn command() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let arg = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..20),
        4 => "[a-zA-Z0-9:]{1,10}".prop_map(String::into_bytes),
        1 => (0..40_000_usize).prop_map(|len| vec![b'v'; len]),
    ];
    prop::collection::vec(arg, 1..8)
}

/// One command as it may be sent: as an array, or as a line where its words need no quotes.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => command().prop_map(|args| {
            let mut out = Vec::new();
            encode_command(&mut out, &args);
            out
        }),
        1 => "[ a-z\"'\\\\]{0,30}\r?\n".prop_map(String::into_bytes),
        1 => Just(b"*0\r\n".to_vec()),
    ]
}

/// A place in a stream, how many bytes to take out there, and what to put in.
fn mutation() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let tokens: &[&[u8]] = &[
        b"",
        b"\r",
        b"\n",
        b"\r\n",
        b"*",
        b"$",
        b"-1",
        b"0",
        b"99999999999",
        b"\"",
        b"'",
        b"\0",
        b"+1",
        b"*1\r\n",
        b"$5\r\n",
        b"POST",
        b"1048577",
    ];
    let insert = prop_oneof![
        prop::sample::select(tokens.to_vec()).prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    (any::<prop::sample::Index>(), 0..4_usize, insert)
}

proptest! {
    #[test]
    fn commands_come_back(commands in prop::collection::vec(command(), 0..6), piece in 1..5000_usize) {
        let mut stream = Vec::new();
        for args in &commands {
            encode_command(&mut stream, args);
        }
        let (requests, error) = check_requests(Limits::new(1 << 20), &stream, piece);
        prop_assert_eq!(error, None);
        prop_assert_eq!(requests, commands);
    }

    #[test]
    fn a_line_means_what_its_words_say(line in "[ -~]{0,40}") {
        prop_assume!(!line.starts_with('*'));
        let (requests, error) = check_requests(SMALL, format!("{line}\r\n").as_bytes(), 3);
        match split_args(line.as_bytes()) {
            Err(_) => prop_assert_eq!(error, Some(ProtocolError::UnbalancedQuotes)),
            Ok(words) if words.is_empty() => prop_assert!(requests.is_empty() && error.is_none()),
            Ok(words) => prop_assert_eq!(requests, [words]),
        }
    }

    #[test]
    fn random_bytes_are_read_in_one_way(
        stream in prop::collection::vec(any::<u8>(), 0..300),
        piece in 1..20_usize,
    ) {
        check_requests(SMALL, &stream, piece);
        check_requests(Limits::unauthenticated(), &stream, piece);
    }

    #[test]
    fn bytes_of_the_protocol_are_read_in_one_way(stream in "[*$0-9\r\nab\"' -]{0,60}", piece in 1..9_usize) {
        check_requests(SMALL, stream.as_bytes(), piece);
    }
}

proptest! {
    // Most mutations only hit an argument; the framing needs many tries.
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn mangled_streams_are_read_in_one_way(
        parts in prop::collection::vec(wire(), 1..6),
        mutations in prop::collection::vec(mutation(), 1..8),
        piece in 1..3000_usize,
    ) {
        let mut stream = parts.concat();
        for (at, removed, inserted) in mutations {
            let start = at.index(stream.len() + 1);
            let end = (start + removed).min(stream.len());
            stream.splice(start..end, inserted);
        }
        check_requests(SMALL, &stream, piece);
        check_requests(Limits::unauthenticated(), &stream, piece);
    }
}
