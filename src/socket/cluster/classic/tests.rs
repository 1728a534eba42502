//! Tests of the messages of Node.js servers, with bytes that the npm packages have written.

use proptest::prelude::*;

use super::encode::{self, JsonOptions, JsonRequest, JsonResponse, with_buffers};
use super::rooms::{Names, Room, names, number};
use super::wire::{self, Content, Flags, Incoming, LIMITS, Options, Request, kind};
use crate::socket::codec::arguments::{One, RawArgs};
use crate::socket::codec::encoder::{EncodedPacket, encode_ack, encode_event};
use crate::socket::codec::msgpack::servers::{read_ack, read_event};
use crate::socket::namespace::cluster_link::{PacketData, Target};

/// `io.emit("hi", 1, "é", { a: [true, null, 1.5, -3] })`.
const TO_ALL: &str = "93a64b44324a444783a47479706502a46461746194a2686901a2c3a981a16194c3c0cb3ff8000000000000fda36e7370a12f83a5726f6f6d7390a665786365707490a5666c61677380";
/// `io.to("room1").emit("hi")`.
const TO_ROOM: &str = "93a64b44324a444783a47479706502a46461746191a26869a36e7370a12f83a5726f6f6d7391a5726f6f6d31a665786365707490a5666c61677380";
/// `emitter.to("room1").emit("from-emitter", { x: 1 })` of npm `@socket.io/redis-emitter`.
const OF_EMITTER: &str = "93a7656d697474657283a47479706502a46461746192ac66726f6d2d656d697474657281a17801a36e7370a12f83a5726f6f6d7391a5726f6f6d31a5666c61677380a665786365707490";
/// `io.timeout(500).emit("q", 1, callback)`.
const WITH_ACK: &str = "85a3756964a64b44324a4447a9726571756573744964a6397966524747a47479706507a67061636b657483a47479706502a46461746192a17101a36e7370a12fa46f70747383a5726f6f6d7390a665786365707490a5666c61677381a774696d656f7574cd01f4";
/// The ack `"ack-from-B"` to it.
const ACK: &str = "83a47479706509a9726571756573744964a6397966524747a67061636b6574aa61636b2d66726f6d2d42";
/// `fetchSockets()`.
const FETCH: &str = r#"{"uid":"KD2JDG","requestId":"8zdZXj","type":5,"opts":{"rooms":[],"except":[]}}"#;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

fn packet(event: &str, json: &str) -> EncodedPacket {
    encode_event("/", None, event, &RawArgs { json, attachments: &[] }).unwrap()
}

fn request(message: &[u8]) -> Request<'_> {
    let Incoming::Request { request, .. } = wire::incoming(message).unwrap() else { panic!("no request") };
    request
}

#[test]
fn a_broadcast_of_a_node_server_is_read() {
    let message = bytes(TO_ALL);
    let Incoming::Broadcast { uid, event, options } = wire::incoming(&message).unwrap() else {
        panic!("no broadcast")
    };
    let args = read_event(event.data, &LIMITS).unwrap();
    assert_eq!((uid, event.namespace(), args.name()), ("KD2JDG", "/", "hi"));
    assert_eq!(args.json(), r#"1,"é",{"a":[true,null,1.5,-3]}"#);
    assert_eq!(options, Options::default());
    for (message, uid, name) in [(TO_ROOM, "KD2JDG", "hi"), (OF_EMITTER, "emitter", "from-emitter")] {
        let message = bytes(message);
        let Incoming::Broadcast { uid: sender, event, options } = wire::incoming(&message).unwrap() else {
            panic!("no broadcast")
        };
        assert_eq!((sender, read_event(event.data, &LIMITS).unwrap().name()), (uid, name));
        assert_eq!(options.target().rooms, ["room1"]);
    }
}

#[test]
fn a_broadcast_is_written_as_node_servers_write_it() {
    let hi = packet("hi", r#"1,"é",{"a":[true,null,1.5,-3]}"#);
    let written = encode::broadcast("KD2JDG", "/", &PacketData::of(&hi), &Options::default()).unwrap();
    assert_eq!(written, bytes(TO_ALL));
    let (hi, target) = (packet("hi", ""), Target { rooms: vec!["room1"], except: vec![] });
    let mut options = Options::of(&target);
    let written = encode::broadcast("KD2JDG", "/", &PacketData::of(&hi), &options).unwrap();
    assert_eq!(written, bytes(TO_ROOM));
    options.flags = Flags { volatile: true, compress: false, ..Flags::default() };
    let written = encode::broadcast("KD2JDG", "/", &PacketData::of(&hi), &options).unwrap();
    assert!(written.ends_with(&bytes("a5666c61677382a8766f6c6174696c65c3a8636f6d7072657373c2")));
    let Incoming::Broadcast { options: read, .. } = wire::incoming(&written).unwrap() else { panic!() };
    assert_eq!(read, options);
}

#[test]
fn binary_values_are_in_place_in_both_directions() {
    let attachment = [bytes::Bytes::from_static(&[0xde, 0xad])];
    let args = RawArgs { json: r#"{"_placeholder":true,"num":0}"#, attachments: &attachment };
    let event = encode_event("/", None, "b", &args).unwrap();
    let written = encode::broadcast("KD2JDG", "/", &PacketData::of(&event), &Options::default()).unwrap();
    assert!(written.windows(4).any(|part| *part == [0xc4, 2, 0xde, 0xad]));
    let Incoming::Broadcast { event, .. } = wire::incoming(&written).unwrap() else { panic!() };
    assert_eq!(read_event(event.data, &LIMITS).unwrap().attachments(), attachment);
    let placed = with_buffers(args.json, &[&attachment[0]]).unwrap();
    let placed: serde_json::Value = serde_json::from_str(placed.get()).unwrap();
    assert_eq!(placed, serde_json::json!({ "type": "Buffer", "data": [0xde, 0xad] }));
}

#[test]
fn a_broadcast_with_ack_and_its_answers_are_read_and_written() {
    let message = bytes(WITH_ACK);
    let Request::BroadcastWithAck { id, event, options } = request(&message) else { panic!() };
    assert_eq!((id, options.flags.timeout_millis), ("9yfRGG", Some(500)));
    assert_eq!(read_event(event.data, &LIMITS).unwrap().json(), "1");
    let question = packet("q", "1");
    let written =
        encode::broadcast_with_ack("KD2JDG", "9yfRGG", "/", &PacketData::of(&question), &options).unwrap();
    assert_eq!(written, message);
    let ack = encode_ack("/", 0, &One("ack-from-B")).unwrap().args().unwrap();
    assert_eq!(encode::ack("9yfRGG", &ack).unwrap(), bytes(ACK));
    let response = bytes(ACK);
    let response = wire::response(&response).unwrap();
    let Content::Ack(value) = response.content else { panic!() };
    assert_eq!((&*response.id, read_ack(value, &LIMITS).unwrap().json()), ("9yfRGG", r#""ack-from-B""#));
    let count = JsonResponse::<()> { r#type: Some(8), clients: Some(3), ..JsonResponse::to("9yfRGG") };
    let count = count.encode().unwrap();
    assert_eq!(count, r#"{"type":8,"requestId":"9yfRGG","clientCount":3}"#);
    assert!(matches!(wire::response(&count).unwrap().content, Content::Clients(3)));
}

#[test]
fn requests_are_written_as_node_servers_write_them() {
    let options = Options::default();
    let opts = serde_json::value::to_raw_value(&JsonOptions::of(&options)).unwrap();
    let fetch =
        JsonRequest { id: Some("8zdZXj"), opts: Some(&opts), ..JsonRequest::new("KD2JDG", kind::FETCH) };
    assert_eq!(fetch.encode().unwrap(), FETCH);
    let target = Target { rooms: vec!["7"], except: vec!["x"] };
    let options = Options::of(&target);
    let opts = serde_json::value::to_raw_value(&JsonOptions::of(&options)).unwrap();
    let close =
        JsonRequest { opts: Some(&opts), close: Some(true), ..JsonRequest::new("u", kind::DISCONNECT) };
    let written = r#"{"uid":"u","type":4,"opts":{"rooms":["7",7],"except":["x"]},"close":true}"#;
    assert_eq!(close.encode().unwrap(), written);
    let Request::Disconnect { options: read, close: true } = request(written.as_bytes()) else { panic!() };
    assert_eq!(read.target(), target, "a number and a text are one room here");
}

#[test]
fn requests_of_every_type_are_read() {
    let read = |json: &'static str| request(json.as_bytes());
    assert!(matches!(read(FETCH), Request::Fetch { .. }));
    let sockets = read(r#"{"uid":"a","requestId":"b","type":0,"rooms":["r",1,"2",2]}"#);
    let Request::Sockets { id, rooms } = sockets else { panic!() };
    assert_eq!((&*id, names(&rooms)), ("b", vec!["r", "1", "2"]));
    assert!(matches!(read(r#"{"uid":"a","requestId":"b","type":1}"#), Request::AllRooms { .. }));
    let join = read(r#"{"type":2,"opts":{"rooms":["r"],"except":[]},"rooms":["a","b"]}"#);
    assert!(matches!(join, Request::Join { rooms, .. } if rooms.len() == 2));
    let leave = read(r#"{"uid":"a","type":3,"opts":{"rooms":[],"except":["x"]},"rooms":["a"]}"#);
    assert!(matches!(leave, Request::Leave { options, .. } if options.target().except == ["x"]));
    let one = read(r#"{"uid":"a","requestId":"b","type":2,"sid":"s","room":"r"}"#);
    assert!(matches!(one, Request::One { id: Some(_), .. }));
    let event = read(r#"{"uid":"emitter","type":6,"data":["hi",1]}"#);
    assert!(matches!(event, Request::ServerEvent { id: None, data } if data.get() == r#"["hi",1]"#));
}

#[test]
fn responses_of_every_type_are_read() {
    let read = |json: &'static str| wire::response(json.as_bytes()).unwrap();
    let sockets = read(r#"{"requestId":"a","sockets":[{"id":"x"}]}"#);
    assert!(matches!(sockets.content, Content::Sockets(list) if list.get() == r#"[{"id":"x"}]"#));
    let rooms = read(r#"{"requestId":"a","rooms":["r",1]}"#);
    assert!(matches!(rooms.content, Content::Rooms(list) if list.get() == r#"["r",1]"#));
    assert!(matches!(read(r#"{"requestId":"a"}"#).content, Content::Other));
    let answer = read(r#"{"type":6,"requestId":"a","data":[1]}"#);
    assert!(matches!(answer.content, Content::Answer(Some(value)) if value.get() == "[1]"));
    assert!(matches!(read(r#"{"type":6,"requestId":"a"}"#).content, Content::Answer(None)));
}

#[test]
fn what_other_adapters_send_with_the_same_prefix_is_told_apart() {
    // The sharded adapter, in JSON and msgpack, and a heartbeat of another one.
    let sharded = r#"{"type":3,"data":{"packet":{"type":2,"data":["hi"]},"opts":{"rooms":["room1"],"except":[],"flags":{}}},"uid":"23e42783bef100fc","nsp":"/"}"#;
    let heartbeat = r#"{"uid":"23e42783bef100fc","nsp":"/","type":2}"#;
    let streams = bytes("82a47479706501a36e7370a12f");
    for message in [sharded.as_bytes(), heartbeat.as_bytes(), &streams] {
        let error = wire::incoming(message).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("another adapter"), "{cause}");
    }
}

#[test]
fn rooms_that_look_like_numbers_are_also_named_as_numbers() {
    let written = |name: &str| serde_json::to_string(&Names(&[Room(name.into())])).unwrap();
    for (name, json) in [
        ("7", r#"["7",7]"#),
        ("0", r#"["0",0]"#),
        ("-12", r#"["-12",-12]"#),
        ("123456789012345", r#"["123456789012345",123456789012345]"#),
    ] {
        assert_eq!(written(name), json);
    }
    for name in ["", "-", "07", "-0", "1.5", "1e3", " 1", "1234567890123456", "room1"] {
        assert_eq!(written(name), format!("[{name:?}]"));
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let rooms = |count| {
        let rooms = vec!["1"; count].join(",");
        format!(r#"{{"type":2,"opts":{{"rooms":[],"except":[]}},"rooms":[{rooms}]}}"#)
    };
    assert!(wire::incoming(rooms(wire::ROOMS_MAX).as_bytes()).is_ok());
    assert!(wire::incoming(rooms(wire::ROOMS_MAX + 1).as_bytes()).is_err());
    assert!(wire::incoming(rooms(1_000_000).as_bytes()).is_err());
    let many = [
        &bytes("93a16183a47479706502a46461746191a26869a36e7370a12f81a5726f6f6d73dd7fffffff")[..],
        &[1; 200_000],
    ];
    assert!(wire::incoming(&many.concat()).is_err());
    let claim = |clients: u64| format!(r#"{{"type":8,"requestId":"a","clientCount":{clients}}}"#);
    assert!(wire::response(claim(wire::CLIENTS_MAX).as_bytes()).is_ok());
    assert!(wire::response(claim(wire::CLIENTS_MAX + 1).as_bytes()).is_err());
    let id = "x".repeat(1_000);
    assert!(wire::incoming(format!(r#"{{"type":1,"requestId":"{id}"}}"#).as_bytes()).is_err());
}

/// Samples of all messages.
fn samples() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = [TO_ALL, TO_ROOM, OF_EMITTER, WITH_ACK, ACK].into_iter().map(bytes).collect();
    all.push(FETCH.into());
    all.push(br#"{"requestId":"a","sockets":[{"id":"x","handshake":{"headers":{},"issued":1},"rooms":[1],"data":{}}]}"#.into());
    all.push(br#"{"type":2,"opts":{"rooms":["r"],"except":[1]},"rooms":["a","b"]}"#.into());
    all
}

/// Reads bytes as everything that they could be.
fn read(bytes: &[u8]) {
    match wire::incoming(bytes) {
        Ok(Incoming::Broadcast { event, .. })
        | Ok(Incoming::Request { request: Request::BroadcastWithAck { event, .. }, .. }) => {
            drop(read_event(event.data, &LIMITS));
        }
        _ => {}
    }
    match wire::response(bytes).map(|response| response.content) {
        Ok(Content::Ack(value)) => drop(read_ack(value, &LIMITS)),
        Ok(Content::Sockets(list)) => drop(super::sockets::read(list.get())),
        _ => {}
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn a_message_that_was_damaged_is_a_message_or_an_error(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>(),
    ) {
        let samples = samples();
        let mut message = which.get(&samples).clone();
        let place = at.index(message.len());
        message[place] = to;
        if cut {
            message.truncate(place);
        }
        read(&message);
    }

    #[test]
    fn a_broadcast_is_read_as_it_was_written(
        rooms in prop::collection::vec("[a-z0-9-]{0,8}", 0..5), text in "\\PC{0,40}", integer in any::<i64>(),
    ) {
        let event = encode_event("/x", None, "e", &(&text, integer)).unwrap();
        let target = Target { rooms: rooms.iter().map(String::as_str).collect(), except: vec!["1"] };
        let options = Options::of(&target);
        let written = encode::broadcast("u", "/x", &PacketData::of(&event), &options).unwrap();
        let Ok(Incoming::Broadcast { event: read, options, .. }) = wire::incoming(&written) else { panic!() };
        let args = read_event(read.data, &LIMITS).unwrap();
        prop_assert_eq!(args.parse::<(String, i64)>().unwrap(), (text, integer));
        prop_assert_eq!(options.target().except, vec!["1"]);
        let mut expected: Vec<&str> = rooms.iter().map(String::as_str).collect();
        expected.dedup_by(|a, b| a == b && number(a).is_some());
        prop_assert_eq!(options.target().rooms, expected);
    }
}
