//! What waits is bounded, and so is the time for which it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use imks::client::{ClientError, Overflow, Status};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

use crate::application::{Application, Kind};
use crate::{Via, builder, relay_to_nobody, until, within};

const MEBIBYTE: usize = 1024 * 1024;

#[tokio::test]
async fn credentials_that_do_not_come_are_asked_for_again() {
    let server = Application::start(Kind::Imks).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let client = builder(&server.url(), Via::WebSocket).join_timeout(Duration::from_millis(500));
    let client = client.auth_token_provider(move || {
        let is_first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if is_first {
                std::future::pending::<()>().await;
            }
            Ok("token".to_owned())
        }
    });
    let client = client.build().unwrap();
    within(client.namespace("/")).await.unwrap();
    assert!(asked.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn a_question_for_which_there_is_no_room_is_given_up_in_its_time() {
    let nobody = relay_to_nobody().await;
    let client = builder(&nobody, Via::WebSocket).send_queue(1, 1_000, Overflow::Wait).build().unwrap();
    let socket = client.socket("/").unwrap();
    within(socket.send("remember", "it stays in the outbox")).await.unwrap();
    let question = socket.ask::<i64>("add", &(1, 2)).timeout(Duration::from_millis(50));
    let answer = within(question.into_future()).await;
    assert!(matches!(answer, Err(ClientError::Timeout(_))), "{answer:?}");
}

#[tokio::test]
async fn events_that_wait_for_the_application_do_not_fill_the_memory() {
    const EVENTS: usize = 32;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = TaskTracker::new().spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut websocket = accept_async(stream).await.unwrap();
        let open = r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#;
        websocket.send(Message::text(open)).await.unwrap();
        websocket.next().await.unwrap().unwrap();
        websocket.send(Message::text(r#"40{"sid":"y"}"#)).await.unwrap();
        let text = "x".repeat(MEBIBYTE);
        for number in 0..EVENTS {
            let event = format!(r#"42["large",{number},"{text}"]"#);
            websocket.send(Message::text(event)).await.unwrap();
        }
        websocket
    });
    let client = builder(&url, Via::WebSocket).build().unwrap();
    let socket = client.socket("/").unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeper = kept.clone();
    socket.on_event("large", move |event| {
        keeper.lock().push(event);
        async {}
    });
    let mut large = socket.stream::<(usize, String)>("large");
    within(socket.connect()).await.unwrap();
    until(|| client.stats().bytes_received as usize > 16 * MEBIBYTE).await;
    // All the others would come at once if they were read.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let received = client.stats().bytes_received as usize;
    assert!(received < 18 * MEBIBYTE, "{received}");
    for expected in 0..EVENTS {
        let (number, text) = within(large.next()).await.unwrap().unwrap();
        assert_eq!((number, text.len()), (expected, MEBIBYTE));
    }
    assert_eq!(kept.lock().len(), EVENTS, "what the application keeps does not wait any more");
    within(serving).await.unwrap();
}

#[test]
fn a_client_whose_runtime_ends_is_closed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async { builder("http://127.0.0.1:9", Via::WebSocket).build().unwrap() });
    drop(runtime);
    assert_eq!(client.status(), Status::Closed);
}
