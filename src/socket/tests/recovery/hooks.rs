//! Tests of connect hooks for returning clients.

use serde_json::json;

use super::client::Client;
use super::{main, server_with};
use crate::socket::tests::open;
use crate::socket::{Accept, ConnectError, ConnectPayload, Recovery, Server, Socket};

#[derive(serde::Deserialize)]
struct Auth {
    user: String,
    #[serde(default)]
    without: Option<String>,
}

/// Signs users in by name: refuses `evil`, and restores all rooms of the session except one.
async fn sign_in(socket: Socket, payload: ConnectPayload) -> Result<Accept, ConnectError> {
    let auth: Auth = payload.parse().map_err(|_| ConnectError::new("who?"))?;
    tokio::task::yield_now().await;
    if auth.user == "evil" {
        return Err(ConnectError::new("no"));
    }
    if let Some(room) = auth.without {
        assert!(socket.recovered_rooms().iter().any(|known| **known == *room));
        socket.leave(&room);
        assert!(!socket.recovered_rooms().iter().any(|known| **known == *room));
    }
    socket.emit("hook", &json!("hook")).map_err(|_| ConnectError::new("?"))?;
    let accept = Accept::default().with_owner(auth.user);
    accept
        .with_event("welcome", &json!({"recovered": socket.recovered()}))
        .map_err(|_| ConnectError::new("?"))
}

fn guarded(recovery: Recovery) -> Server {
    server_with(recovery, |ns| {
        ns.on_connect(sign_in);
    })
}

#[tokio::test]
async fn the_connect_hook_is_asked_again_and_its_welcome_follows_the_reply() {
    let server = guarded(Recovery::default());
    let mut client = Client::join_as(&server, json!({"user": "anna"})).await;
    client.read(0).await;
    assert_eq!(client.received, [json!({"recovered": false}), json!("hook")]);
    client.drop_connection().await;
    main(&server).emit("e", &1).unwrap();
    client.come_back().await;
    client.read(0).await;
    assert_eq!(client.received[2..], [json!(1), json!("hook"), json!({"recovered": true})]);
}

#[tokio::test]
async fn a_lost_welcome_is_sent_again() {
    let server = guarded(Recovery::default());
    let mut client = Client::join_as(&server, json!({"user": "anna"})).await;
    client.read(2).await;
    client.drop_connection().await;
    client.come_back().await;
    client.read(0).await;
    assert!(client.recovered);
    assert_eq!(client.received, [json!("hook"), json!("hook"), json!({"recovered": true})]);
}

#[tokio::test]
async fn a_refused_client_may_come_back_when_it_is_welcome_again() {
    let server = guarded(Recovery::default());
    let mut client = Client::join_as(&server, json!({"user": "anna"})).await;
    client.drop_connection().await;
    client.auth = json!({"user": "evil"});
    client.peer = open(&server);
    assert_eq!(client.try_connect().await, Some(json!({"message": "no"})));
    assert_eq!((main(&server).len(), main(&server).rooms_len()), (0, 0));
    client.auth = json!({"user": "anna"});
    client.connect().await;
    assert!(client.recovered);
}

#[tokio::test]
async fn a_stolen_private_id_is_worth_nothing_to_another_user() {
    for skip_middlewares in [false, true] {
        let server = guarded(Recovery { skip_middlewares, ..Recovery::default() });
        let mut anna = Client::join_as(&server, json!({"user": "anna"})).await;
        anna.socket().join("secret");
        anna.socket().set_data("secret".to_owned());
        anna.read(0).await;
        main(&server).to("secret").emit("e", &1).unwrap();
        let mut thief = Client::join_as(&server, json!({"user": "thief"})).await;
        (thief.pid, thief.offset) = (anna.pid.clone(), anna.offset.clone());
        thief.drop_connection().await;
        thief.come_back().await;
        thief.read(0).await;
        assert!(!thief.recovered && thief.sid != anna.sid && thief.numbers().is_empty());
        assert!(!thief.socket().is_in("secret") && thief.socket().data::<String>().is_none());
        anna.read(0).await;
        assert_eq!(anna.numbers(), [1], "the owner did not notice");
        anna.drop_connection().await;
        anna.come_back().await;
        assert!(anna.recovered);
    }
}

#[tokio::test]
async fn a_room_that_the_connect_hook_takes_away_is_gone_with_its_missed_packets() {
    let server = guarded(Recovery::default());
    let mut client = Client::join_as(&server, json!({"user": "anna"})).await;
    client.socket().join("kept");
    client.socket().join("lost");
    client.read(0).await;
    client.drop_connection().await;
    main(&server).to("lost").emit("e", &1).unwrap();
    main(&server).to("kept").emit("e", &2).unwrap();
    client.auth["without"] = json!("lost");
    client.come_back().await;
    main(&server).to("lost").emit("e", &3).unwrap();
    client.read(0).await;
    assert!(client.recovered && client.socket().is_in("kept") && !client.socket().is_in("lost"));
    assert_eq!(client.numbers(), [2]);
}

#[tokio::test]
async fn without_asking_the_hook_a_client_goes_on_unless_it_lacks_the_welcome() {
    let recovery = Recovery { skip_middlewares: true, ..Recovery::default() };
    let server = server_with(recovery, |ns| {
        ns.on_connect(|_, _| async {
            Accept::default().with_event("welcome", &1).map_err(|_| ConnectError::new("?"))
        });
    });
    let mut client = Client::join(&server).await;
    client.read(0).await;
    client.drop_connection().await;
    client.come_back().await;
    client.read(0).await;
    assert!(client.recovered);
    assert_eq!(client.numbers(), [1]);
    let mut unlucky = Client::join(&server).await;
    unlucky.read(1).await;
    unlucky.drop_connection().await;
    unlucky.come_back().await;
    unlucky.read(0).await;
    assert!(!unlucky.recovered);
    assert_eq!(unlucky.numbers(), [1]);
}
