//! A Rust client that lets WebTransport and a WebSocket race to the server, and shows how both do.
//!
//! ```text
//! cargo run --example webtransport                  # a server with both
//! cargo run --example auto_racing_client            # in another terminal
//! ```
//!
//! What to see: who has won, and every ten seconds the score of each. End the server and start it again: the winner of the
//! last race, or whoever was better since, begins 250 ms before the other. Block UDP (`iptables -A OUTPUT -p udp --dport
//! 3000 -j DROP`) and restart the server once more: the WebSocket takes over.

use std::process::ExitCode;
use std::time::Duration;

use imks::client::{Client, ClientResult, Racing, Tls, TransportKind, Transports};
use tokio::time::interval;

#[tokio::main]
#[allow(clippy::print_stderr, reason = "it talks to a person")]
async fn main() -> ExitCode {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:3000".into());
    let rules = Racing::default().interval(Duration::from_secs(10));
    match run(&url, rules, usize::MAX).await {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Shows the scores as often as asked for, and returns the transport that has the connection then.
#[allow(clippy::print_stdout, reason = "it talks to a person")]
pub async fn run(url: &str, rules: Racing, times: usize) -> ClientResult<Option<TransportKind>> {
    let client = Client::builder(url)
        .transports(Transports::racing(rules))
        // The certificate for development is made anew with each start of the server. Never do this elsewhere.
        .tls(Tls::new().danger_accept_invalid_certs())
        .on_event(|event| println!("{event:?}"))
        .connect()
        .await?;
    // Without a namespace, the server would end the connection.
    client.namespace("/").await?;
    let mut often = interval(Duration::from_secs(10));
    for _ in 0..times {
        often.tick().await;
        for (transport, metrics) in client.protocol_metrics() {
            println!("{transport}: score {:.1}, connected in {:?}", metrics.score, metrics.connect_time);
        }
    }
    let transport = client.stats().transport;
    client.close().await;
    Ok(transport)
}
