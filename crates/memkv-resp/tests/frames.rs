//! Frames: every type is read as it was written, and no bytes from a server do harm.

#[path = "properties/frames.rs"]
mod properties;

use memkv_resp::{
    Frame, FrameError, MAX_FRAME_BYTES, MAX_FRAME_DEPTH, Protocol, ReplyWriter, encode_command,
    parse_frame,
};
use properties::check_frames;
use proptest::prelude::*;

/// The frames of a stream that has no error.
fn frames(stream: &[u8]) -> Vec<Frame> {
    let (frames, error) = check_frames(stream, 1);
    assert_eq!(error, None);
    frames
}

#[test]
fn every_type_is_read() {
    let bulk = |text: &str| Frame::Bulk(text.into());
    for (wire, frame) in [
        ("+OK\r\n", Frame::Simple(b"OK".to_vec())),
        ("+\r\n", Frame::Simple(Vec::new())),
        ("-ERR no\r\n", Frame::Error(b"ERR no".to_vec())),
        ("!3\r\na\nb\r\n", Frame::BulkError(b"a\nb".to_vec())),
        (":-7\r\n", Frame::Integer(-7)),
        ("$4\r\na\r\nb\r\n", bulk("a\r\nb")),
        ("$0\r\n\r\n", bulk("")),
        ("$-1\r\n", Frame::NullBulk),
        ("*-1\r\n", Frame::NullArray),
        ("_\r\n", Frame::Null),
        ("#t\r\n", Frame::Boolean(true)),
        ("#f\r\n", Frame::Boolean(false)),
        (",1.5e3\r\n", Frame::Double(1500.0)),
        (",-inf\r\n", Frame::Double(f64::NEG_INFINITY)),
        ("(-123\r\n", Frame::BigNumber(b"-123".to_vec())),
        ("=6\r\ntxt:hi\r\n", Frame::Verbatim(*b"txt", b"hi".to_vec())),
        ("*0\r\n", Frame::Array(vec![])),
        (
            "*1\r\n*1\r\n:1\r\n",
            Frame::Array(vec![Frame::Array(vec![Frame::Integer(1)])]),
        ),
        ("~1\r\n_\r\n", Frame::Set(vec![Frame::Null])),
        (">1\r\n$1\r\na\r\n", Frame::Push(vec![bulk("a")])),
        (
            "%1\r\n$1\r\na\r\n:1\r\n",
            Frame::Map(vec![(bulk("a"), Frame::Integer(1))]),
        ),
        (
            "|1\r\n+ttl\r\n:9\r\n$1\r\na\r\n",
            Frame::Attributed(
                vec![(Frame::Simple(b"ttl".to_vec()), Frame::Integer(9))],
                Box::new(bulk("a")),
            ),
        ),
        // An attribute is no element of its array.
        (
            "*2\r\n|0\r\n:1\r\n:2\r\n",
            Frame::Array(vec![
                Frame::Attributed(vec![], Box::new(Frame::Integer(1))),
                Frame::Integer(2),
            ]),
        ),
    ] {
        assert_eq!(frames(wire.as_bytes()), [frame], "{wire:?}");
        // Every part of a frame asks for more, and none is an error.
        for end in 0..wire.len() {
            assert_eq!(
                parse_frame(&wire.as_bytes()[..end]),
                Ok(None),
                "{wire:?} {end}"
            );
        }
    }
    assert!(matches!(frames(b",nan\r\n")[..], [Frame::Double(nan)] if nan.is_nan()));
}

#[test]
fn questions_about_a_frame() {
    assert!(Frame::Null.is_null() && Frame::NullBulk.is_null() && Frame::NullArray.is_null());
    assert!(!Frame::Array(vec![]).is_null());
    assert_eq!(Frame::Error(b"ERR".to_vec()).as_error(), Some(&b"ERR"[..]));
    assert_eq!(
        Frame::BulkError(b"ERR".to_vec()).as_error(),
        Some(&b"ERR"[..])
    );
    assert_eq!(Frame::Simple(b"ERR".to_vec()).as_error(), None);
}

#[test]
fn bytes_that_are_no_frame_are_refused() {
    for wire in [
        "$-2\r\n",
        "$+1\r\n",
        "$01\r\n",
        "$1\r\nab\r\n",
        "$x\r\n",
        "*-2\r\n",
        "*x\r\n",
        "%-1\r\n",
        "~-1\r\n",
        ":\r\n",
        ":1.0\r\n",
        ":99999999999999999999\r\n",
        "_x\r\n",
        "#x\r\n",
        ",\r\n",
        ",infinity\r\n",
        ",1x\r\n",
        "(\r\n",
        "(-\r\n",
        "(1.0\r\n",
        "=3\r\ntxt\r\n",
        "=4\r\ntxt-\r\n",
        "+a\nb\r\n",
        "+a\rb\r\n",
        "+a\n",
    ] {
        let kind = wire.as_bytes()[0];
        assert_eq!(
            check_frames(wire.as_bytes(), 1).1,
            Some(FrameError::Malformed { kind }),
            "{wire:?}"
        );
    }
    assert_eq!(parse_frame(b"x"), Err(FrameError::UnknownType(b'x')));
    assert_eq!(
        parse_frame(b"GET / HTTP"),
        Err(FrameError::UnknownType(b'G'))
    );
}

#[test]
fn streamed_frames_are_refused_by_name() {
    for wire in [
        "$?\r\n", "*?\r\n", "~?\r\n", ">?\r\n", "%?\r\n", ";1\r\n", ".\r\n",
    ] {
        assert_eq!(
            parse_frame(wire.as_bytes()),
            Err(FrameError::Streamed),
            "{wire:?}"
        );
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "*1\r\n".repeat(depth) + "_\r\n";
    assert_eq!(frames(nested(MAX_FRAME_DEPTH).as_bytes()).len(), 1);
    assert_eq!(
        check_frames(nested(MAX_FRAME_DEPTH + 1).as_bytes(), 3).1,
        Some(FrameError::TooDeep)
    );
}

#[test]
fn size_is_bounded_before_it_arrives() {
    for kind in "$!=*~>%|".chars() {
        let wire = format!("{kind}{MAX_FRAME_BYTES}\r\n");
        assert_eq!(
            parse_frame(wire.as_bytes()),
            Err(FrameError::TooBig),
            "{kind}"
        );
    }
    // Each element takes at least three bytes.
    let most = (MAX_FRAME_BYTES - 12) / 3;
    assert_eq!(parse_frame(format!("*{most}\r\n").as_bytes()), Ok(None));
    let more = most + 1;
    assert_eq!(
        parse_frame(format!("*{more}\r\n").as_bytes()),
        Err(FrameError::TooBig)
    );
    let line = "+".to_owned() + &"a".repeat(64 * 1024);
    assert_eq!(parse_frame(line.as_bytes()), Ok(None));
    assert_eq!(
        parse_frame((line + "a").as_bytes()),
        Err(FrameError::TooBig)
    );
}

/// Writes a frame as a server that speaks RESP3 does.
fn write(frame: &Frame, out: &mut Vec<u8>) {
    let elements: Vec<&Frame> = match frame {
        Frame::Array(frames) | Frame::Set(frames) | Frame::Push(frames) => frames.iter().collect(),
        Frame::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
        Frame::Attributed(pairs, frame) => {
            let pairs = pairs.iter().flat_map(|(key, value)| [key, value]);
            pairs.chain([&**frame]).collect()
        }
        _ => vec![],
    };
    let mut writer = ReplyWriter::new(out, Protocol::Resp3);
    match frame {
        Frame::Simple(text) => writer.simple(text),
        Frame::Error(text) => writer.error(text),
        Frame::Integer(value) => writer.integer(*value),
        Frame::Bulk(data) => writer.bulk(data),
        Frame::Verbatim(format, text) => writer.verbatim(format, text),
        Frame::BigNumber(digits) => writer.big_number(digits),
        Frame::Double(value) => writer.double(*value),
        Frame::Boolean(value) => writer.boolean(*value),
        Frame::Null => writer.null(),
        Frame::NullBulk => ReplyWriter::new(out, Protocol::Resp2).null(),
        Frame::NullArray => ReplyWriter::new(out, Protocol::Resp2).null_array(),
        Frame::Array(frames) => writer.array(frames.len()),
        Frame::Set(frames) => writer.set(frames.len()),
        Frame::Push(frames) => writer.push(frames.len()),
        Frame::Map(pairs) => writer.map(pairs.len()),
        // The two that a writer does not have.
        Frame::BulkError(text) => {
            out.extend_from_slice(format!("!{}\r\n", text.len()).as_bytes());
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        Frame::Attributed(pairs, _) => {
            out.extend_from_slice(format!("|{}\r\n", pairs.len()).as_bytes());
        }
    }
    for element in elements {
        write(element, out);
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    let text = "[a-zA-Z0-9 ]{0,12}".prop_map(String::into_bytes);
    let blob = prop::collection::vec(any::<u8>(), 0..40);
    let leaf = prop_oneof![
        text.clone().prop_map(Frame::Simple),
        text.prop_map(Frame::Error),
        blob.clone().prop_map(Frame::BulkError),
        any::<i64>().prop_map(Frame::Integer),
        blob.clone().prop_map(Frame::Bulk),
        (any::<[u8; 3]>(), blob).prop_map(|(format, text)| Frame::Verbatim(format, text)),
        "-?[0-9]{1,30}".prop_map(|digits| Frame::BigNumber(digits.into_bytes())),
        any::<f64>()
            .prop_filter("equals itself", |value| !value.is_nan())
            .prop_map(Frame::Double),
        any::<bool>().prop_map(Frame::Boolean),
        Just(Frame::Null),
        Just(Frame::NullBulk),
        Just(Frame::NullArray),
    ];
    leaf.prop_recursive(5, 40, 5, |frame| {
        let frames = prop::collection::vec(frame.clone(), 0..5);
        let pairs = prop::collection::vec((frame.clone(), frame.clone()), 0..4);
        prop_oneof![
            frames.clone().prop_map(Frame::Array),
            frames.clone().prop_map(Frame::Set),
            frames.prop_map(Frame::Push),
            pairs.clone().prop_map(Frame::Map),
            (pairs, frame).prop_map(|(pairs, frame)| Frame::Attributed(pairs, Box::new(frame))),
        ]
    })
}

proptest! {
    #[test]
    fn frames_come_back(written in prop::collection::vec(frame(), 0..5), piece in 1..50_usize) {
        let mut stream = Vec::new();
        for frame in &written {
            write(frame, &mut stream);
        }
        let (read, error) = check_frames(&stream, piece);
        prop_assert_eq!(error, None);
        prop_assert_eq!(read, written);
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings(args: Vec<Vec<u8>>) {
        let mut out = Vec::new();
        encode_command(&mut out, &args);
        let array = Frame::Array(args.into_iter().map(Frame::Bulk).collect());
        prop_assert_eq!(parse_frame(&out), Ok(Some((array, out.len()))));
    }

    #[test]
    fn random_bytes_are_read_in_one_way(
        stream in prop::collection::vec(any::<u8>(), 0..300),
        piece in 1..20_usize,
    ) {
        check_frames(&stream, piece);
    }

    #[test]
    fn bytes_of_the_protocol_are_read_in_one_way(
        stream in "[*$%~>|!=_#,(:+tf0-3\r\n-]{0,80}",
        piece in 1..9_usize,
    ) {
        check_frames(stream.as_bytes(), piece);
    }
}

proptest! {
    // Most mutations only hit a text; the framing needs many tries.
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn mangled_streams_are_read_in_one_way(
        written in prop::collection::vec(frame(), 1..5),
        mutations in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..3_usize, "[*$%~>|_:0-9\r\n-]{0,3}"),
            1..8,
        ),
        piece in 1..50_usize,
    ) {
        let mut stream = Vec::new();
        for frame in &written {
            write(frame, &mut stream);
        }
        for (at, removed, inserted) in mutations {
            let start = at.index(stream.len() + 1);
            let end = (start + removed).min(stream.len());
            stream.splice(start..end, inserted.into_bytes());
        }
        check_frames(&stream, piece);
    }
}
