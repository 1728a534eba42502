//! The floor of what a server does: far below its figures (docs/performance.md), so that a build without optimisations keeps
//! it on a busy machine too, and above what a delay in each round trip would leave.

use std::time::Duration;

use futures_util::future::join_all;
use imks::client::Socket;
use imks::engine;
use tokio::time::timeout;

use crate::application::Application;
use crate::{Via, builder, within};

/// The round trips of each client, one after the other.
const ROUND_TRIPS: u32 = 1_000;
/// The fewest round trips per second of one client.
const FLOOR_OF_ONE: u32 = 200;
/// The clients that ask at once, and the fewest round trips per second of all of them.
const CLIENTS: u32 = 10;
const FLOOR_OF_ALL: u32 = 500;

async fn ask_and_wait(socket: &Socket) {
    for number in 0..i64::from(ROUND_TRIPS) {
        assert_eq!(socket.ask::<i64>("add", &(number, 1)).into_future().await.unwrap(), number + 1);
    }
}

async fn round_trips_keep_the_floor(via: Via) {
    let server = Application::imks(engine::Config::default()).await;
    let clients: Vec<_> = (0..CLIENTS).map(|_| builder(&server.url(), via).build().unwrap()).collect();
    let joining = clients.iter().map(|client| within(client.namespace("/")));
    let sockets: Vec<Socket> = join_all(joining).await.into_iter().map(Result::unwrap).collect();
    let longest = Duration::from_secs(1) * ROUND_TRIPS / FLOOR_OF_ONE;
    timeout(longest, ask_and_wait(&sockets[0])).await.expect("more than 200 round trips per second");
    let longest = Duration::from_secs(1) * ROUND_TRIPS * CLIENTS / FLOOR_OF_ALL;
    let all = join_all(sockets.iter().map(ask_and_wait));
    timeout(longest, all).await.expect("more than 500 round trips per second of ten clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_round_trips_of_one_client_and_of_ten_at_once_keep_the_floor_on_a_websocket() {
    round_trips_keep_the_floor(Via::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_round_trips_of_one_client_and_of_ten_at_once_keep_the_floor_on_quic() {
    round_trips_keep_the_floor(Via::WebTransport).await;
}
