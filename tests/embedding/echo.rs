//! The echo server and its client: `examples/echo_server.rs`, `examples/echo_client.rs`.

use imks::client::ClientError;
use imks::http::Serving;

use crate::within;

#[path = "../../examples/echo_client.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod echo_client;
#[path = "../../examples/echo_server.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod echo_server;

fn serve(args: &[&str]) -> Serving {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    echo_server::builder(&args).unwrap().listen(([127, 0, 0, 1], 0)).unwrap()
}

#[tokio::test]
async fn what_the_echo_client_sends_comes_back() {
    let server = serve(&[]);
    let url = format!("ws://{}", server.addr());
    let (same, _) = within(echo_client::echo(&url, false, 10)).await.unwrap();
    assert_eq!(same, 20);
    within(server.close()).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_accepted_only_where_danger_is_asked_for() {
    let server = serve(&["--self-signed"]);
    assert_eq!(server.webtransport_addr().map(|udp| udp.port()), Some(server.addr().port()));
    let url = format!("wss://localhost:{}", server.addr().port());
    let refused = within(echo_client::echo(&url, false, 10)).await.unwrap_err();
    let ClientError::NoTransport(causes) = &refused else { panic!("{refused:?}") };
    assert!(causes.iter().all(|cause| matches!(cause, ClientError::Tls(_))), "{refused:?}");
    let (same, _) = within(echo_client::echo(&url, true, 10)).await.unwrap();
    assert_eq!(same, 20);
    within(server.close()).await;
}
