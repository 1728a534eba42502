//! A Rust client over WebTransport (HTTP/3 on QUIC), or over QUIC without HTTP/3, for the server in
//! `examples/webtransport.rs`.
//!
//! ```text
//! cargo run --example webtransport                                    # with a certificate for development
//! cargo run --example quic_client -- danger                           # in another terminal; trusts whoever answers
//! cargo run --example quic_client -- cert.pem https://localhost:3000  # trusts the certificate in the file
//! cargo run --example quic_client -- danger http://127.0.0.1:3000 3001  # without HTTP/3, on another port
//! ```
//!
//! What to see: `the server sees webtransport`, or `quic`, and how long the answer took.

use std::process::ExitCode;

use imks::client::{Client, ClientError, ClientResult, Tls, TransportKind, Transports};

#[tokio::main]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let trusted = args.next().unwrap_or_else(|| "danger".into());
    let url = args.next().unwrap_or_else(|| "http://127.0.0.1:3000".into());
    let quic_port = args.next().and_then(|port| port.parse().ok());
    match run(&url, &trusted, quic_port).await {
        Ok(transport) => {
            println!("the server sees {transport}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            ExitCode::FAILURE
        }
    }
}

/// Asks the server which transport it sees. `trusted` is a PEM file with its certificate, or `danger`. With a port for it, the
/// client speaks QUIC without HTTP/3.
#[allow(clippy::print_stdout, reason = "it talks to a person")]
pub async fn run(url: &str, trusted: &str, quic_port: Option<u16>) -> ClientResult<String> {
    let tls = match trusted {
        // The certificate for development is made anew with each start of the server. Never do this elsewhere.
        "danger" => Tls::new().danger_accept_invalid_certs(),
        file => {
            let pem = std::fs::read(file).map_err(|error| ClientError::Config(format!("{file}: {error}")))?;
            Tls::new().root_pem(pem)?
        }
    };
    let client = Client::builder(url).tls(tls);
    let client = match quic_port {
        Some(port) => client.transports(Transports::only(TransportKind::Quic)).quic_port(port),
        None => client.transports(Transports::only(TransportKind::WebTransport)),
    };
    let client = client.connect().await?;
    let socket = client.namespace("/").await?;
    let transport = socket.ask("transport", &()).await?;
    println!("the answer took {:?}", client.stats().rtt.map(|rtt| rtt.last));
    client.close().await;
    Ok(transport)
}
