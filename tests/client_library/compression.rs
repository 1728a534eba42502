//! Other forms on the wire: messages that are compressed, msgpack, and arguments that the application changes.

use std::io::{Read, Write};

use imks::client::{Binary, Client, ClientError, ClientEvent, PayloadCodec, PayloadError, TransportKind};
use imks::engine;
use imks::engine::metrics::{self, DeflateStep};

use crate::application::{Application, Kind};
use crate::{PATIENCE, Via, builder, hears, until, within};

/// A text that becomes small.
fn long() -> String {
    "the same again ".repeat(10_000)
}

#[tokio::test]
async fn large_messages_are_compressed_both_ways_where_the_server_takes_it() {
    let compressing = engine::Config { per_message_deflate: true, ..engine::Config::default() };
    for (config, compresses) in [(compressing, true), (engine::Config::default(), false)] {
        let server = Application::imks(config).await;
        let inflated = || metrics::DEFLATE_BYTES.of(DeflateStep::Inflated).get();
        let before = inflated();
        for via in [Via::WebSocket, Via::Upgrade] {
            let client = builder(&server.url(), via).compression(true).build().unwrap();
            let socket = client.socket("/").unwrap();
            let mut echoed = socket.stream::<(String, Binary)>("echoed");
            within(socket.connect()).await.unwrap();
            until(|| client.stats().transport.is_some_and(|it| via.settles_on(it))).await;
            let bytes = Binary(vec![7; 100_000].into());
            socket.emit_args("echo", &(long(), &bytes)).await.unwrap();
            let (text, binary) = within(echoed.next()).await.unwrap().unwrap();
            assert_eq!((text == long(), binary), (true, bytes), "{compresses} {via:?}");
            let small: i64 = within(socket.ask("add", &(1, 2)).into_future()).await.unwrap();
            assert_eq!(small, 3);
            within(client.close()).await;
        }
        let both = 2 * 2 * (long().len() + 100_000) as u64;
        assert_eq!(inflated() - before >= both, compresses, "each message by each side, on each way");
        assert!(compresses || inflated() == before);
    }
}

#[tokio::test]
async fn a_message_that_becomes_too_large_ends_the_connection() {
    let config = engine::Config { per_message_deflate: true, ..engine::Config::default() };
    let server = Application::imks(config).await;
    let client =
        builder(&server.url(), Via::WebSocket).compression(true).message_bytes_max(100_000).build().unwrap();
    let mut events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    socket.emit("echo", &long()).await.unwrap();
    hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
}

#[tokio::test]
async fn where_there_can_be_no_websocket_the_next_transport_follows_at_once() {
    let server = Application::imks(engine::Config { websocket: false, ..engine::Config::default() }).await;
    let client = Client::builder(&server.url()).compression(true).connect_timeout(PATIENCE).build().unwrap();
    within(client.namespace("/")).await.unwrap();
    assert_eq!(client.stats().transport, Some(TransportKind::Polling));
}

#[tokio::test]
async fn the_reference_takes_what_this_client_compresses() {
    let server = Application::start(Kind::Reference).await;
    let client = builder(&server.url(), Via::WebSocket).compression(true).build().unwrap();
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<String>("echoed");
    within(socket.connect()).await.unwrap();
    socket.emit("echo", &long()).await.unwrap();
    assert!(within(echoed.next()).await.unwrap().unwrap() == long());
}

#[tokio::test]
async fn a_server_with_the_msgpack_parser_is_understood() {
    let server = Application::msgpack().await;
    for via in [Via::WebSocket, Via::Polling, Via::WebTransport] {
        let client = builder(&server.url(), via).msgpack_parser().build().unwrap();
        let socket = client.socket("/custom").unwrap();
        let mut echoed = socket.stream::<(String, Binary, u64)>("echoed");
        let mut told = socket.stream::<u32>("told");
        socket.on_question("your age?", |_: String| async { 7 });
        within(socket.connect()).await.unwrap();
        let value = ("a€".to_owned(), Binary(vec![0, 255].into()), u64::MAX);
        socket.emit_args("echo", &value).await.unwrap();
        assert_eq!(within(echoed.next()).await.unwrap().unwrap(), value, "{via:?}");
        let bytes: Binary = within(socket.ask("bytes", &(&value.1,)).into_future()).await.unwrap();
        assert_eq!(bytes, value.1);
        socket.emit_args("ask me", &()).await.unwrap();
        assert_eq!(within(told.next()).await.unwrap().unwrap(), 7);
        let delivery = within(socket.send("remember", "this")).await.unwrap();
        let remembered: String = within(delivery.acknowledged()).await.unwrap();
        assert_eq!(remembered, "this");
        within(client.close()).await;
    }
}

/// A cipher that is none, with a sum that notices other keys.
struct Cipher(u8);

impl PayloadCodec for Cipher {
    fn covers(&self, event: &str) -> bool {
        ["echo", "echoed"].contains(&event)
    }

    fn encode(&self, _: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
        let sum = payload.iter().fold(self.0, |sum, byte| sum.wrapping_add(*byte));
        Ok(payload.iter().map(|byte| byte ^ self.0).chain([sum]).collect())
    }

    fn decode(&self, _: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
        let (sum, payload) = payload.split_last().ok_or("it is empty")?;
        let plain: Vec<u8> = payload.iter().map(|byte| byte ^ self.0).collect();
        let again = plain.iter().fold(self.0, |sum, byte| sum.wrapping_add(*byte));
        if again == *sum { Ok(plain) } else { Err("another key".into()) }
    }
}

#[tokio::test]
async fn only_who_has_the_key_reads_what_the_server_carries() {
    let server = Application::imks(engine::Config::default()).await;
    let keyed = |key| builder(&server.url(), Via::WebSocket).payload_codec(Cipher(key)).build().unwrap();
    let client = keyed(7);
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<(String, Binary)>("echoed");
    let (say, mut seen) = tokio::sync::mpsc::channel(1);
    let stranger = builder(&server.url(), Via::WebSocket).build().unwrap();
    let raw = stranger.socket("/").unwrap();
    raw.on_event("shouted", move |event| {
        let say = say.clone();
        async move { say.send(event.args().json().to_owned()).await.unwrap() }
    });
    within(socket.connect()).await.unwrap();
    within(raw.connect()).await.unwrap();
    let secret = ("secret".to_owned(), Binary(vec![1, 2, 3].into()));
    socket.emit_args("echo", &secret).await.unwrap();
    assert_eq!(within(echoed.next()).await.unwrap().unwrap(), secret);
    // What is not covered is as it was, answers too.
    let _: Option<()> = within(raw.ask("join", &("r",)).into_future()).await.unwrap();
    socket.emit_args("shout", &("r", "loud")).await.unwrap();
    assert!(within(seen.recv()).await.unwrap().contains("loud"));
}

/// The codec of docs/client.md that packs events with gzip.
struct Packed;

/// The most bytes that an event may have.
const UNPACKED_MAX: u64 = 1 << 18;

impl PayloadCodec for Packed {
    fn covers(&self, event: &str) -> bool {
        ["echo", "echoed"].contains(&event)
    }

    fn encode(&self, _: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(payload)?;
        Ok(packer.finish()?)
    }

    fn decode(&self, _: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
        let mut unpacked = Vec::new();
        // One byte more tells an event that is too large.
        flate2::read::GzDecoder::new(payload).take(UNPACKED_MAX + 1).read_to_end(&mut unpacked)?;
        if unpacked.len() as u64 > UNPACKED_MAX { Err("it is too large".into()) } else { Ok(unpacked) }
    }
}

#[tokio::test]
async fn a_codec_packs_events_with_gzip_and_a_bomb_is_told_and_reaches_no_handler() {
    let server = Application::imks(engine::Config { max_payload: 10_000, ..engine::Config::default() }).await;
    let client = builder(&server.url(), Via::WebSocket).payload_codec(Packed).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<String>("echoed");
    within(socket.connect()).await.unwrap();
    // It is larger than the server takes, and small enough when it is packed.
    socket.emit("echo", &long()).await.unwrap();
    assert!(within(echoed.next()).await.unwrap().unwrap() == long());
    socket.emit("echo", &long().repeat(2)).await.unwrap();
    let error = hears(&mut events, |event| matches!(event, ClientEvent::Error(_))).await;
    let ClientEvent::Error(ClientError::Payload { source, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "it is too large");
    socket.emit("echo", &"small").await.unwrap();
    assert_eq!(within(echoed.next()).await.unwrap().unwrap(), "small");
}

#[tokio::test]
async fn what_comes_unchanged_is_told_and_reaches_no_handler() {
    let server = Application::imks(engine::Config::default()).await;
    let client = builder(&server.url(), Via::WebSocket).payload_codec(Secretive).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<u8>("echoed");
    within(socket.connect()).await.unwrap();
    socket.emit("echo", &1).await.unwrap();
    let error = hears(&mut events, |event| matches!(event, ClientEvent::Error(_))).await;
    let ClientEvent::Error(ClientError::Payload { event, source }) = &error else { panic!("{error:?}") };
    assert_eq!((&**event, source.to_string()), ("echoed", "it came unchanged".to_owned()));
    within(client.close()).await;
    drop((client, socket));
    assert!(within(echoed.next()).await.is_none());
}

/// A codec of events that the server sends as it likes.
struct Secretive;

impl PayloadCodec for Secretive {
    fn covers(&self, event: &str) -> bool {
        event == "echoed"
    }

    fn encode(&self, _: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
        Ok(payload.to_vec())
    }

    fn decode(&self, _: &str, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
        Ok(payload.to_vec())
    }
}
