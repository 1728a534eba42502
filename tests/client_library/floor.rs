//! The floor of what a server does, far below its figures (docs/performance.md). It is a floor for the time of the processor
//! and not for that of a clock, so that a build without optimisations keeps it on a busy machine too.

use futures_util::future::join_all;
use imks::client::Socket;
use imks::engine;

use crate::application::Application;
use crate::{Via, builder, within};

/// The round trips of all clients; each begins one when it has the answer to the one before.
const ROUND_TRIPS: usize = 1_000;
/// The clients that ask at once.
const CLIENTS: usize = 10;
/// The fewest round trips in a second of the processor, which does the work of server and clients.
const FLOOR: f64 = 200.0;

/// Returns for how many seconds this thread has run, on which the test, the server and the clients are.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos: f64 = text.split(' ').next().unwrap().parse().unwrap();
    nanos / 1e9
}

async fn ask_and_wait(socket: &Socket, times: usize) {
    for number in 0..times {
        assert_eq!(socket.ask::<usize>("add", &(number, 1)).into_future().await.unwrap(), number + 1);
    }
}

async fn round_trips_keep_the_floor(via: Via) {
    let server = Application::imks(engine::Config::default()).await;
    let clients: Vec<_> = (0..CLIENTS).map(|_| builder(&server.url(), via).build().unwrap()).collect();
    let joining = clients.iter().map(|client| within(client.namespace("/")));
    let sockets: Vec<Socket> = join_all(joining).await.into_iter().map(Result::unwrap).collect();
    for asking in [&sockets[..1], &sockets[..]] {
        let before = processor_seconds();
        join_all(asking.iter().map(|socket| ask_and_wait(socket, ROUND_TRIPS / asking.len()))).await;
        let per_second = ROUND_TRIPS as f64 / (processor_seconds() - before);
        assert!(per_second > FLOOR, "{via:?}, {} at once: {per_second:.0} per second", asking.len());
    }
}

#[tokio::test]
async fn a_thousand_round_trips_of_one_client_and_of_ten_at_once_keep_the_floor_on_a_websocket() {
    round_trips_keep_the_floor(Via::WebSocket).await;
}

#[tokio::test]
async fn a_thousand_round_trips_of_one_client_and_of_ten_at_once_keep_the_floor_on_quic() {
    round_trips_keep_the_floor(Via::WebTransport).await;
}
