//! WebSockets without Socket.IO, from end to end.

use std::time::Duration;

use futures_util::SinkExt;
use imks::client::raw::{Message, RawClient, RawConnection, RawServer, Registry};
use imks::client::{ClientError, DisconnectReason, Tls};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_util::task::TaskTracker;

use crate::{within, ws_echo_client, ws_echo_server};

async fn pair(mut server: RawServer, client: RawClient) -> (RawConnection, RawConnection, RawServer) {
    let url = format!("ws://{}/feed?x=1", server.local_addr());
    let (dialed, accepted) = within(async { tokio::join!(client.dial(&url), server.accept()) }).await;
    (dialed.unwrap(), accepted.unwrap().0, server)
}

async fn bound() -> RawServer {
    RawServer::bind(([127, 0, 0, 1], 0)).await.unwrap()
}

async fn next(connection: &mut RawConnection) -> Message {
    within(connection.receive()).await.unwrap().expect("a message")
}

#[tokio::test]
async fn all_kinds_of_messages_go_both_ways() {
    let (mut client, mut server, _listening) = pair(bound().await, RawClient::new()).await;
    client.send_text("hello €").await.unwrap();
    client.send_binary(vec![0, 255]).await.unwrap();
    client.send_ping("are you there").await.unwrap();
    client.send_pong("unasked").await.unwrap();
    for expected in [
        Message::Text("hello €".into()),
        Message::Binary(vec![0, 255].into()),
        Message::Ping("are you there".into()),
        Message::Pong("unasked".into()),
    ] {
        assert_eq!(next(&mut server).await, expected);
    }
    server.send_text("").await.unwrap();
    assert_eq!(next(&mut client).await, Message::Pong("are you there".into()));
    assert_eq!(next(&mut client).await, Message::Text(String::new()));
    let long = "x".repeat(126);
    assert!(matches!(client.send_ping(long).await, Err(ClientError::Config(_))));
}

#[tokio::test]
async fn an_end_has_a_code_and_a_reason() {
    let (mut client, mut server, _listening) = pair(bound().await, RawClient::new()).await;
    for (code, reason) in [(1005, ""), (999, ""), (1000, &*"x".repeat(124))] {
        assert!(matches!(client.close(code, reason).await, Err(ClientError::Config(_))), "{code}");
    }
    within(client.close(4_001, "go away")).await.unwrap();
    assert!(!client.is_connected() && server.is_connected());
    assert_eq!(next(&mut server).await, Message::Close(4_001, "go away".into()));
    assert!(!server.is_connected());
    assert_eq!(within(server.receive()).await.unwrap(), None);
    assert!(matches!(within(client.receive()).await, Ok(Some(Message::Close(4_001, _)))));
    assert_eq!(within(client.receive()).await.unwrap(), None);
    assert!(matches!(client.send_text("late").await, Err(ClientError::ConnectionClosed(_))));
}

#[tokio::test]
async fn what_others_send_after_the_end_does_not_make_it_a_failure() {
    let (mut client, mut server, _listening) = pair(bound().await, RawClient::new()).await;
    let registry = Registry::new();
    registry.add(&server);
    within(client.close(1_000, "")).await.unwrap();
    assert_eq!(next(&mut server).await, Message::Close(1_000, String::new()));
    let late = Message::Text("late".into());
    assert_eq!(registry.broadcast_except(&late, None).accepted, 0);
    assert!(registry.is_empty(), "whoever is gone is removed");
    assert_eq!(within(server.receive()).await.unwrap(), None);
    assert!(matches!(client.sender().try_send(late), Err(ClientError::Closed)));
    assert_eq!(next(&mut client).await, Message::Close(1_000, String::new()));
    assert_eq!(within(client.receive()).await.unwrap(), None);
}

#[tokio::test]
async fn others_may_close_too_and_what_they_send_behind_it_is_dropped() {
    let (mut client, mut server, _listening) = pair(bound().await, RawClient::new()).await;
    let others = server.sender();
    let bye = Message::Close(1_001, "bye".into());
    within(others.send(bye.clone())).await.unwrap();
    within(others.send(Message::Text("late".into()))).await.unwrap();
    let ends = within(async { tokio::join!(client.receive(), server.receive()) }).await;
    assert_eq!((ends.0.unwrap(), ends.1.unwrap()), (Some(bye.clone()), Some(bye)));
    assert!(!server.is_connected());
    assert!(matches!(within(others.send(Message::Text("later".into()))).await, Err(ClientError::Closed)));
    for wrong in [Message::Ping(vec![0; 126].into()), Message::Close(1_005, String::new())] {
        assert!(matches!(others.try_send(wrong), Err(ClientError::Config(_))));
    }
}

#[tokio::test]
async fn whoever_leaves_at_a_close_has_answered_it() {
    let (mut client, mut server, _listening) = pair(bound().await, RawClient::new()).await;
    within(client.close(1_000, "")).await.unwrap();
    assert_eq!(next(&mut server).await, Message::Close(1_000, String::new()));
    drop(server);
    assert_eq!(next(&mut client).await, Message::Close(1_000, String::new()));
    assert_eq!(within(client.receive()).await.unwrap(), None);
}

#[tokio::test]
async fn whoever_asks_and_takes_no_answers_is_not_read_for_ever() {
    let mut server = bound().await;
    let stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let shaking = async { tokio::join!(client_async("ws://localhost/", stream), server.accept()) };
    let (asking, accepted) = within(shaking).await;
    let ((mut asking, _), (mut connection, _)) = (asking.unwrap(), accepted.unwrap());
    TaskTracker::new().spawn(async move { while let Ok(Some(_)) = connection.receive().await {} });
    let ping = Frame::Ping(vec![0; 125].into());
    let mut asked = 0;
    while let Ok(fed) = timeout(Duration::from_secs(1), asking.feed(ping.clone())).await {
        fed.unwrap();
        asked += 1;
        assert!(asked < 1_000_000, "more than the network holds");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error() {
    let (mut client, server, _listening) = pair(bound().await, RawClient::new()).await;
    drop(server);
    assert!(matches!(within(client.receive()).await, Err(ClientError::ConnectionClosed(_))));
    let settings = RawServer::builder().message_bytes_max(10);
    let server = settings.bind(([127, 0, 0, 1], 0)).await.unwrap();
    let (mut client, mut server, _listening) = pair(server, RawClient::new()).await;
    client.send_text("12345678901").await.unwrap();
    assert!(matches!(within(server.receive()).await, Err(ClientError::ConnectionClosed(_))));
}

#[tokio::test]
async fn a_message_for_all_but_one_reaches_all_but_one() {
    let mut server = bound().await;
    let url = format!("ws://{}", server.local_addr());
    let registry = Registry::new();
    let tasks = TaskTracker::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(within(RawClient::connect(&url)).await.unwrap());
        let (mut connection, _) = within(server.accept()).await.unwrap();
        let (number, registry) = (registry.add(&connection), registry.clone());
        tasks.spawn(async move {
            while let Ok(Some(message)) = connection.receive().await {
                registry.broadcast_except(&message, Some(number));
            }
            assert!(registry.remove(number));
        });
    }
    clients[0].send_text("to the others").await.unwrap();
    for client in &mut clients[1..] {
        assert_eq!(next(client).await, Message::Text("to the others".into()));
    }
    clients[1].send_text("and back").await.unwrap();
    assert_eq!(next(&mut clients[0]).await, Message::Text("and back".into()), "its own did not come");
    drop(clients);
    crate::until(|| registry.is_empty()).await;
}

#[tokio::test]
async fn a_connection_that_is_not_read_holds_up_nobody() {
    let (_client, server, _listening) = pair(bound().await, RawClient::new()).await;
    let registry = Registry::new();
    let number = registry.add(&server);
    let text = Message::Text("x".into());
    let sent: Vec<_> = (0..65).map(|_| registry.broadcast_except(&text, None)).collect();
    assert_eq!((sent[63].accepted, &sent[64].too_slow), (1, &vec![number]));
    drop(server);
    assert_eq!(registry.broadcast_except(&text, None).accepted, 0);
    assert!(registry.is_empty(), "whoever is gone is removed");
}

#[tokio::test]
async fn the_sides_agree_on_a_subprotocol() {
    let settings = RawServer::builder().protocol("chat").protocol("binary");
    let server = settings.bind(([127, 0, 0, 1], 0)).await.unwrap();
    let offering = RawClient::new().protocol("other").protocol("binary").protocol("chat");
    let (client, accepted, _listening) = pair(server, offering).await;
    assert_eq!((client.protocol(), accepted.protocol()), (Some("chat"), Some("chat")));
    let wrong = within(RawClient::new().protocol("a\nb").dial("ws://127.0.0.1:9")).await;
    assert!(matches!(wrong, Err(ClientError::Config(_))));
}

#[tokio::test]
async fn a_server_that_is_full_says_so_and_has_room_again() {
    let settings = RawServer::builder().connections_max(1);
    let server = settings.bind(([127, 0, 0, 1], 0)).await.unwrap();
    let (client, accepted, mut server) = pair(server, RawClient::new()).await;
    let url = format!("ws://{}", server.local_addr());
    let refused = within(RawClient::connect(&url)).await.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("503"), "{cause}");
    drop((client, accepted));
    let (again, _) = within(async { tokio::join!(RawClient::connect(&url), server.accept()) }).await;
    again.unwrap();
}

#[tokio::test]
async fn whoever_does_not_shake_hands_holds_up_nobody() {
    let settings = RawServer::builder().handshake_timeout(Duration::from_millis(100)).connections_max(1);
    let mut server = settings.bind(([127, 0, 0, 1], 0)).await.unwrap();
    let mut silent = tokio::net::TcpStream::connect(server.local_addr()).await.unwrap();
    let mut end = [0; 1];
    let read = within(tokio::io::AsyncReadExt::read(&mut silent, &mut end)).await.unwrap();
    assert_eq!(read, 0, "the server has hung up");
    let url = format!("ws://{}", server.local_addr());
    let (came, _) = within(async { tokio::join!(RawClient::connect(&url), server.accept()) }).await;
    came.unwrap();
}

#[tokio::test]
async fn the_examples_say_to_each_other_what_they_were_told() {
    let server = bound().await;
    let url = format!("ws://{}", server.local_addr());
    TaskTracker::new().spawn(ws_echo_server::serve(server));
    let words = ["hello", "", "wörld"].map(str::to_owned);
    assert_eq!(within(ws_echo_client::echoed(&url, &words)).await.unwrap(), words);
}

#[tokio::test]
async fn what_goes_to_a_room_reaches_those_who_are_in_it() {
    let mut server = bound().await;
    let registry = Registry::new();
    let (mut clients, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let url = format!("ws://{}", server.local_addr());
        let (dialed, accepted) =
            within(async { tokio::join!(RawClient::connect(&url), server.accept()) }).await;
        let mut connection = accepted.unwrap().0;
        registry.add(&connection);
        clients.push(dialed.unwrap());
        tasks.push(
            TaskTracker::new().spawn(async move { while let Ok(Some(_)) = connection.receive().await {} }),
        );
    }
    assert!(registry.join(1, "lobby").unwrap() && registry.join(2, "lobby").unwrap());
    assert!(registry.join(3, "attic").unwrap());
    assert!(!registry.join(1, "lobby").unwrap() && !registry.join(9, "lobby").unwrap());
    assert_eq!((registry.members("lobby"), registry.is_in(3, "lobby")), (vec![1, 2], false));

    let say = |text: &str| Message::Text(text.to_owned());
    assert_eq!(registry.broadcast_to_room("lobby", &say("to the lobby"), Some(2)).accepted, 1);
    assert_eq!(registry.broadcast_to_room("nowhere", &say("to nobody"), None).accepted, 0);
    assert_eq!(registry.broadcast_except(&say("to all"), None).accepted, 3);
    assert_eq!(next(&mut clients[0]).await, say("to the lobby"));
    for client in &mut clients {
        assert_eq!(next(client).await, say("to all"));
    }

    assert!(registry.leave(1, "lobby") && !registry.leave(1, "lobby") && !registry.leave(1, "attic"));
    assert!(registry.remove(2));
    assert_eq!((registry.members("lobby"), registry.members("attic")), (vec![], vec![3]));
    for number in 0..255 {
        assert!(registry.join(3, &number.to_string()).unwrap());
    }
    assert!(matches!(registry.join(3, "one more"), Err(ClientError::Full)));
    assert!(registry.leave(3, "attic") && registry.join(3, "one more").unwrap());
    let long = registry.join(1, &"x".repeat(257));
    assert!(
        matches!(long, Err(ClientError::InvalidMessage(_))) && registry.join(1, &"x".repeat(256)).unwrap()
    );
    tasks.into_iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn who_does_not_say_in_time_who_it_is_is_closed_and_so_is_a_stranger() {
    let known = |message: Message| async move {
        matches!(&message, Message::Text(name) if name == "anna").then_some(message)
    };
    let patience = Duration::from_secs(10);
    let (mut client, mut server, listening) = pair(bound().await, RawClient::new()).await;
    client.send_ping("not a word").await.unwrap();
    client.send_text("anna").await.unwrap();
    let anna = within(server.authenticate(patience, known)).await.unwrap();
    assert_eq!((anna, server.is_connected()), (Message::Text("anna".into()), true));

    let (mut client, mut server, listening) = pair(listening, RawClient::new()).await;
    client.send_text("otto").await.unwrap();
    let refused = within(server.authenticate(patience, known)).await;
    assert!(matches!(refused, Err(ClientError::AuthenticationFailed(_))), "{refused:?}");
    assert!(matches!(next(&mut client).await, Message::Close(1_008, _)));

    let (mut client, mut server, listening) = pair(listening, RawClient::new()).await;
    let late = within(server.authenticate(Duration::from_millis(50), known)).await;
    assert!(matches!(late, Err(ClientError::Timeout(_))), "{late:?}");
    assert!(matches!(next(&mut client).await, Message::Close(1_008, _)));

    let (mut client, mut server, _listening) = pair(listening, RawClient::new()).await;
    client.close(1_000, "").await.unwrap();
    let gone = within(server.authenticate(patience, known)).await;
    assert!(matches!(gone, Err(ClientError::ConnectionClosed(_))), "{gone:?}");
}

#[tokio::test]
async fn a_heartbeat_keeps_who_answers_and_finds_out_who_does_not() {
    let beat = Duration::from_millis(50);
    let (mut client, server, listening) = pair(bound().await, RawClient::new()).await;
    let mut server = server.with_heartbeat(beat, Duration::from_secs(10));
    let answering = TaskTracker::new().spawn(async move {
        let mut pings = 0;
        while pings < 3 {
            pings += usize::from(matches!(client.receive().await, Ok(Some(Message::Ping(_)))));
        }
        client
    });
    for _ in 0..2 {
        assert_eq!(next(&mut server).await, Message::Pong(Default::default()));
    }
    drop(within(async { tokio::join!(answering, server.receive()) }).await);

    // Nobody reads on the other side, so nothing is answered.
    let (_silent, server, _listening) = pair(listening, RawClient::new()).await;
    let lost = within(server.with_heartbeat(beat, beat).receive()).await;
    assert!(
        matches!(lost, Err(ClientError::ConnectionClosed(DisconnectReason::HeartbeatTimeout))),
        "{lost:?}"
    );
}

#[tokio::test]
async fn an_answer_to_a_heartbeat_that_waits_to_be_read_is_in_time() {
    let patience = Duration::from_millis(500);
    let (mut client, server, _listening) = pair(bound().await, RawClient::new()).await;
    let mut server = server.with_heartbeat(Duration::from_millis(50), patience);
    let asked = async {
        tokio::select! {
            received = server.receive() => panic!("{received:?}"),
            message = next(&mut client) => message,
        }
    };
    assert_eq!(within(asked).await, Message::Ping(Default::default()));
    // The answer has come long before anybody reads it.
    tokio::time::sleep(2 * patience).await;
    assert_eq!(next(&mut server).await, Message::Pong(Default::default()));
}

#[tokio::test]
async fn a_secure_websocket_checks_chain_and_host_name_unless_danger_is_asked_for() {
    let (server, made) = crate::tls::with_tls(imks::engine::Config::default()).await;
    let root = crate::tls::pem("CERTIFICATE", made.cert.der());
    let own = || Tls::new().only_own_roots().root_pem(&root).unwrap();
    for (host, tls, is_trusted) in [
        ("localhost", own(), true),
        ("127.0.0.1", own(), false),
        ("localhost", Tls::new(), false),
        ("127.0.0.1", Tls::new().danger_accept_invalid_certs(), true),
    ] {
        let port = server.address.port();
        let url = format!("wss://{host}:{port}/socket.io/?EIO=4&transport=websocket");
        match within(RawClient::new().tls(tls.clone()).dial(&url)).await {
            Ok(mut connection) => {
                assert!(is_trusted, "{host} {tls:?}");
                assert!(matches!(next(&mut connection).await, Message::Text(text) if text.starts_with("0{")));
            }
            Err(error) => assert!(!is_trusted && matches!(error, ClientError::Tls(_)), "{host}: {error:?}"),
        }
    }
}
