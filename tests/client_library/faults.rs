//! A network that cuts, delays and loses its way, while both sides talk: what was acknowledged was handled once, in its
//! order, and the application is told what happens in the order in which it can happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imks::client::{Client, ClientError, ClientEvent, Retry, Socket, nonce};
use imks::engine;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use crate::application::{Application, Kind};
use crate::relay::Relay;
use crate::{Via, builder, until, within};

const MESSAGES: usize = 80;
/// Silence is noticed after twice that.
const HEARTBEAT: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Cut,
    Lag,
    BlackHole,
}

const FAULTS: [Fault; 10] = {
    use Fault::{BlackHole, Cut, Lag};
    [Cut, Lag, Cut, BlackHole, Cut, Cut, Lag, BlackHole, Cut, BlackHole]
};

async fn nothing_acknowledged_is_lost_or_doubled_whatever_the_network_does(kind: Kind, via: Via) {
    let config =
        engine::Config { ping_interval: HEARTBEAT, ping_timeout: HEARTBEAT, ..engine::Config::default() };
    let server = Application::start_with(kind, config).await;
    let relay = Relay::start(server.address).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let client = patient(&relay, via, &told);
    let socket = client.socket("/").unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    socket.on("shouted", move |number: String| {
        hearing.lock().push(number.parse::<u64>().unwrap());
        async {}
    });
    within(socket.connect()).await.unwrap();
    let tasks = TaskTracker::new();
    let shouting = tasks.spawn(shout(server.url()));
    let asking = tasks.spawn(ask(socket.clone()));
    let nonces: Vec<String> = (0..MESSAGES).map(|_| nonce()).collect();
    let sending = tasks.spawn(send(socket.clone(), nonces.clone()));

    for fault in FAULTS {
        let before = client.stats();
        match fault {
            Fault::Cut => relay.cut(),
            Fault::Lag => relay.lag(Duration::from_millis(3)),
            Fault::BlackHole => relay.lose(true),
        }
        if !matches!(fault, Fault::Lag) {
            until(|| is_noticed(fault, &relay, &client, before.disconnects)).await;
        }
        relay.lose(false);
        let sent = client.stats().messages_sent;
        until(|| client.stats().messages_sent >= (sent + 3).min(MESSAGES as u64)).await;
        relay.lag(Duration::ZERO);
    }

    within(sending).await.unwrap();
    let (answered, unknown) = within(asking).await.unwrap();
    shouting.abort();
    let remembered: Vec<String> = within(socket.ask("remembered", &()).into_future()).await.unwrap();
    assert_eq!(remembered, nonces, "each once, in their order");
    assert!(answered > 0 && unknown <= FAULTS.len() as u64, "{answered} answered, {unknown} unknown");
    let heard = heard.lock();
    assert!(heard.len() > 10 && heard.windows(2).all(|pair| pair[0] < pair[1]), "{heard:?}");
    assert_order(&told.lock());
}

/// Whether a client has lost its connection once more. On a busy machine it may have been away when it was cut off.
fn is_noticed(fault: Fault, relay: &Relay, client: &Client, before: u64) -> bool {
    if matches!(fault, Fault::Cut) {
        relay.cut();
    }
    client.stats().disconnects > before
}

fn patient(relay: &Relay, via: Via, told: &Arc<Mutex<Vec<ClientEvent>>>) -> Client {
    let telling = told.clone();
    let retry = Retry::forever(Duration::from_millis(10)).answer_timeout(Duration::from_millis(500));
    let builder = builder(&relay.url(), via).message_retry(retry).connect_timeout(Duration::from_millis(500));
    builder.on_event(move |event| telling.lock().push(event.clone())).build().unwrap()
}

/// Puts events into the outbox one after the other, as fast as they are acknowledged.
async fn send(socket: Socket, nonces: Vec<String>) {
    for nonce in nonces {
        let delivery = socket.send("remember", &nonce).await.unwrap();
        assert_eq!(delivery.acknowledged::<String>().await.unwrap(), nonce);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until the outbox must be done, and counts the answers, and the questions of which nobody knows what came of them.
async fn ask(socket: Socket) -> (u64, u64) {
    let (mut answered, mut unknown) = (0, 0);
    // Broadcasts come to a new session only if it is in the room.
    let entered = AtomicU64::new(0);
    for number in 0..MESSAGES as i64 {
        match socket.ask::<i64>("add", &(number, 1)).await {
            Ok(sum) => {
                assert_eq!(sum, number + 1, "the answer is that to this question");
                answered += 1;
            }
            Err(ClientError::ConnectionClosed(_)) => unknown += 1,
            Err(error) => panic!("{error:?}"),
        }
        if socket.ask::<Option<()>>("join", &("room",)).await.is_ok() {
            entered.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(entered.into_inner() > 0);
    (answered, unknown)
}

/// Shouts numbers into the room, on a connection that nothing happens to.
async fn shout(url: String) {
    let client = builder(&url, Via::WebSocket).build().unwrap();
    let socket = client.namespace("/").await.unwrap();
    for number in 0_u64.. {
        socket.emit_args("shout", &("room", number.to_string())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What was told is in an order in which it can have happened.
fn assert_order(told: &[ClientEvent]) {
    let (mut is_connected, mut is_joined, mut attempts, mut losses) = (false, false, 0, 0);
    for (at, event) in told.iter().enumerate() {
        let so_far = || format!("{:?}", &told[at.saturating_sub(6)..=at]);
        match event {
            ClientEvent::Connected { .. } => {
                assert!(!is_connected && losses == 0, "{}", so_far());
                is_connected = true;
            }
            ClientEvent::Disconnected { .. } => {
                assert!(is_connected, "{}", so_far());
                (is_connected, losses) = (false, losses + 1);
            }
            ClientEvent::Left { .. } => {
                assert!(is_joined && !is_connected, "{}", so_far());
                is_joined = false;
            }
            ClientEvent::Reconnecting { attempt, .. } => {
                assert!(!is_connected && !is_joined && *attempt == attempts + 1, "{}", so_far());
                attempts = *attempt;
            }
            ClientEvent::Reconnected { .. } => {
                assert!(!is_connected && attempts > 0, "{}", so_far());
                is_connected = true;
            }
            ClientEvent::Joined { .. } => {
                assert!(is_connected && !is_joined, "{}", so_far());
                (is_joined, attempts) = (true, 0);
            }
            ClientEvent::Heartbeat { .. } | ClientEvent::TransportSwitched { .. } => {
                assert!(is_connected, "{}", so_far());
            }
            _ => {}
        }
    }
    assert!(is_connected && is_joined && losses >= 8, "{losses} losses");
}

#[tokio::test(flavor = "multi_thread")]
async fn imks_on_a_websocket() {
    nothing_acknowledged_is_lost_or_doubled_whatever_the_network_does(Kind::Imks, Via::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imks_on_polling() {
    nothing_acknowledged_is_lost_or_doubled_whatever_the_network_does(Kind::Imks, Via::Polling).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imks_after_an_upgrade() {
    nothing_acknowledged_is_lost_or_doubled_whatever_the_network_does(Kind::Imks, Via::Upgrade).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imks_on_webtransport() {
    nothing_acknowledged_is_lost_or_doubled_whatever_the_network_does(Kind::Imks, Via::WebTransport).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imks_after_a_race() {
    nothing_acknowledged_is_lost_or_doubled_whatever_the_network_does(Kind::Imks, Via::Racing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_on_a_websocket() {
    nothing_acknowledged_is_lost_or_doubled_whatever_the_network_does(Kind::Reference, Via::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_after_an_upgrade() {
    nothing_acknowledged_is_lost_or_doubled_whatever_the_network_does(Kind::Reference, Via::Upgrade).await;
}
