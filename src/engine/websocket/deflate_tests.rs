//! Tests of permessage-deflate between a sender and the reader of a WebSocket.

use std::io::Write;

use bytes::Bytes;
use flate2::write::DeflateEncoder;
use flate2::{Compress, Compression, FlushCompress};
use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use crate::engine::Frame;
use crate::engine::inflate::{InflateError, inflate};
use crate::engine::websocket::extension::accept;
use crate::engine::websocket::reader::{Incoming, Input, Reader, client_frame};
use crate::engine::websocket::violation::Violation;

const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CONTINUATION: u8 = 0x0;
const PING: u8 = 0x9;

fn offered(values: &[&'static str]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(value));
    }
    accept(&headers).map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn what_browsers_and_the_stock_client_offer_is_accepted_without_context() {
    let offers = [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate;client_max_window_bits=\"10\"",
        "permessage-deflate ; server_no_context_takeover ; client_no_context_takeover",
        "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",
    ];
    for offer in offers {
        assert_eq!(offered(&[offer]).as_deref(), Some(BOTH), "{offer}");
    }
    assert_eq!(offered(&["x", "permessage-deflate"]).as_deref(), Some(BOTH), "in a header of its own");
    let window = offered(&["permessage-deflate; server_max_window_bits=15"]);
    assert_eq!(window, Some(format!("{BOTH}; server_max_window_bits=15")));
}

#[test]
fn an_offer_that_cannot_be_kept_is_declined() {
    let offers = [
        "",
        "permessage-bzip2",
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; level=9",
        "permessage-deflate;",
    ];
    for offer in offers {
        assert_eq!(offered(&[offer]), None, "{offer}");
    }
    assert_eq!(offered(&[]), None);
}

/// Returns a reader after the negotiation, for messages of up to `max` bytes.
fn reader(max: usize) -> Reader {
    let mut reader = Reader::new(max);
    reader.inflate();
    reader
}

/// Returns all messages in `bytes`, which arrive in pieces of `size`.
fn read(reader: &mut Reader, bytes: &[u8], size: usize) -> Result<Vec<Incoming>, Violation> {
    let mut messages = Vec::new();
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        loop {
            let mut input = Input::new(&mut piece);
            while let Some(message) = reader.next(&mut input)? {
                messages.push(message);
            }
            match reader.take_early() {
                Some(rest) => piece = rest.into_vec(),
                None => break,
            }
        }
    }
    Ok(messages)
}

fn read_once(bytes: &[u8]) -> Result<Vec<Incoming>, Violation> {
    read(&mut reader(1_000), bytes, usize::MAX)
}

fn text(text: &'static str) -> Incoming {
    Incoming::Text(Bytes::from_static(text.as_bytes()))
}

/// Returns the payload of a compressed message, as a client creates it.
fn deflated(message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(message.len() + 100);
    Compress::new(Compression::best(), false)
        .compress_vec(message, &mut payload, FlushCompress::Sync)
        .unwrap();
    assert!(payload.ends_with(&[0, 0, 0xff, 0xff]));
    payload.truncate(payload.len() - 4);
    payload
}

#[test]
fn the_examples_of_the_rfc_are_understood() {
    let payloads: [&[u8]; 4] = [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ];
    for payload in payloads {
        assert_eq!(read_once(&client_frame(FIN | RSV1 | TEXT, payload)), Ok(vec![text("Hello")]));
        let (start, end) = payload.split_at(3);
        let fragments = [client_frame(RSV1 | TEXT, start), client_frame(FIN | CONTINUATION, end)].concat();
        assert_eq!(read_once(&fragments), Ok(vec![text("Hello")]));
    }
    assert_eq!(read_once(&client_frame(FIN | RSV1 | TEXT, &[0])), Ok(vec![text("")]), "an empty message");
    assert_eq!(
        read_once(&client_frame(FIN | TEXT, b"Hello")),
        Ok(vec![text("Hello")]),
        "one that is not compressed"
    );
}

#[test]
fn a_client_that_keeps_its_context_nevertheless_is_found_out() {
    // The second message of section 7.2.3.2: "Hello" again, by reference to the first one.
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    assert_eq!(read_once(&client_frame(FIN | RSV1 | TEXT, &again)), Err(Violation::Deflate));
}

#[test]
fn the_bit_that_says_compressed_stands_at_the_start_of_messages_only() {
    let hello = deflated(b"Hello");
    let start = client_frame(RSV1 | TEXT, &hello);
    let frames = [
        ("a control frame", client_frame(FIN | RSV1 | PING, b"")),
        ("a continuation", [start, client_frame(FIN | RSV1 | CONTINUATION, b"")].concat()),
        ("another reserved bit", client_frame(FIN | RSV1 | 0x20 | TEXT, &hello)),
    ];
    for (name, frame) in frames {
        assert_eq!(read_once(&frame), Err(Violation::Protocol("reserved bits")), "{name}");
    }
    let unasked = read(&mut Reader::new(1_000), &client_frame(FIN | RSV1 | TEXT, &hello), usize::MAX);
    assert_eq!(unasked, Err(Violation::Protocol("reserved bits")));
}

#[test]
fn a_stream_that_is_none_is_refused() {
    let mut ended = DeflateEncoder::new(Vec::new(), Compression::best());
    ended.write_all(b"Hello").unwrap();
    let ended = ended.finish().unwrap();
    let payloads: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("a block of an unknown kind", vec![0xff]),
        ("cut off in the middle", deflated(&[7; 300])[..3].to_vec()),
        ("the end of a stream without what follows it", ended.clone()),
        ("something else after the end", [&ended[..], b"\x01"].concat()),
        ("more after the end", [&ended[..], b"\0\0"].concat()),
    ];
    for (name, payload) in payloads {
        assert_eq!(inflate(&payload, 1_000), Err(InflateError::Corrupt), "{name}");
    }
}

#[test]
fn a_bomb_costs_no_more_than_a_message_may_have() {
    let bomb = deflated(&vec![0; 20 << 20]);
    assert!(bomb.len() < 30_000, "a thousand times smaller");
    for max in [1, 1_000, 300_000, 1_000_000] {
        assert_eq!(inflate(&bomb, max), Err(InflateError::TooLarge(max as u64 + 1)));
    }
    let exact = deflated(&vec![0; 1_000_000]);
    assert_eq!(inflate(&exact, 1_000_000).map(|message| message.len()), Ok(1_000_000));
    assert_eq!(inflate(&exact, 999_999), Err(InflateError::TooLarge(1_000_000)));
    let fragments = bomb
        .chunks(1_000)
        .enumerate()
        .map(|(number, piece)| client_frame(if number == 0 { RSV1 | BINARY } else { CONTINUATION }, piece));
    let mut bytes: Vec<u8> = fragments.flatten().collect();
    bytes.extend(client_frame(FIN | CONTINUATION, b""));
    assert_eq!(read(&mut reader(100_000), &bytes, 10_000), Err(Violation::TooLarge(100_001)));
}

#[test]
fn of_many_small_bombs_no_more_than_a_message_waits_at_once() {
    let (max, count) = (100_000, 200);
    let bomb = client_frame(FIN | RSV1 | BINARY, &deflated(&vec![7; max]));
    let mut piece = bomb.repeat(count);
    let mut reader = reader(max);
    let (mut turns, mut messages) = (0, 0);
    loop {
        let mut input = Input::new(&mut piece);
        let mut bytes = 0;
        while let Some(Incoming::Binary(message)) = reader.next(&mut input).unwrap() {
            bytes += message.len();
            messages += 1;
        }
        assert!(bytes <= max + (64 << 10), "{bytes}");
        turns += 1;
        match reader.take_early() {
            Some(rest) => piece = rest.into_vec(),
            None => break,
        }
    }
    assert_eq!((turns, messages), (count, count));
}

#[test]
fn a_frame_is_compressed_unless_it_gains_nothing_or_its_sender_does_not_want_it() {
    let message = "all work and no play ".repeat(100);
    let (plain, packed) = (Frame::text(&message), Frame::text(&message).deflated());
    assert_eq!(packed.wire()[0], FIN | RSV1 | TEXT);
    assert!(packed.len() < plain.len() / 10, "{}", packed.len());
    assert_eq!(inflate(packed.payload(), 10_000).unwrap(), plain.payload());
    assert_eq!(packed.deflated().wire(), packed.wire(), "once is enough");
    assert_eq!(Frame::binary(message.as_bytes()).deflated().wire()[0], FIN | RSV1 | BINARY);
    let mut noise = vec![0; 2_000];
    getrandom::fill(&mut noise).unwrap();
    let unchanged = [
        Frame::text(""),
        Frame::binary(&noise),
        Frame::text(&message).uncompressed(),
        Frame::control(PING, &[7; 99]),
    ];
    for frame in unchanged {
        assert_eq!(frame.deflated().wire(), frame.wire());
    }
}

/// Generates data that compresses a little, a lot or not at all.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2_000),
        prop::collection::vec(prop::sample::select(b"abc\"{}".as_slice()), 0..2_000),
        (any::<u8>(), 0..100_000_usize).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_arrives_however_it_is_cut_into_fragments_and_pieces(
        messages in prop::collection::vec(messages(), 1..4),
        fragment in 1..3_000_usize,
        piece in 1..5_000_usize,
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            let payload = deflated(message);
            let mut first = RSV1 | BINARY;
            for part in payload.chunks(fragment) {
                bytes.extend(client_frame(first, part));
                first = CONTINUATION;
            }
            bytes.extend(client_frame(FIN | first, b""));
        }
        let expected: Vec<_> = messages.into_iter().map(|message| Incoming::Binary(message.into())).collect();
        prop_assert_eq!(read(&mut reader(110_000), &bytes, piece).unwrap(), expected);
    }

    #[test]
    fn what_we_compress_can_be_inflated(message in messages()) {
        let frame = Frame::binary(&message);
        let packed = frame.deflated();
        prop_assert!(packed.len() <= frame.len());
        if packed.wire()[0] & RSV1 != 0 {
            prop_assert_eq!(inflate(packed.payload(), 100_000).unwrap(), message);
        }
    }

    #[test]
    fn a_hostile_stream_gives_a_message_within_the_limit_or_an_error(
        message in messages(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut payload = deflated(&message);
        for (place, byte) in changes {
            let place = place.index(payload.len());
            payload[place] = byte;
        }
        payload.truncate(cut.index(payload.len() + 1));
        match inflate(&payload, 1_000) {
            Ok(message) => prop_assert!(message.len() <= 1_000),
            Err(error) => prop_assert!(matches!(error, InflateError::Corrupt | InflateError::TooLarge(1_001))),
        }
    }

    #[test]
    fn a_stream_that_was_cut_off_gives_nothing_that_was_not_said(message in messages(), cut in any::<prop::sample::Index>()) {
        let mut payload = deflated(&message);
        payload.truncate(cut.index(payload.len()));
        if let Ok(start) = inflate(&payload, 100_000) {
            // If exactly the last four bytes of a stored block are missing, the four bytes that the receiver
            // must append (RFC 7692 section 7.2.2) replace them. The receiver cannot tell the difference.
            let said = start.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap_or(&start);
            prop_assert!(message.starts_with(said));
        }
    }
}
