//! An echo client: sends texts and bytes to an echo server, compares what comes back, and says how long it took.
//!
//! ```text
//! cargo run --example echo_server                          # in a first terminal
//! cargo run --example echo_client                          # http://127.0.0.1:3000
//!
//! cargo run --example echo_server -- --self-signed
//! cargo run --example echo_client -- wss://localhost:8443                                  # refused
//! cargo run --example echo_client -- wss://localhost:8443 --danger-accept-invalid-certs
//! ```
//!
//! What to see: `100 texts and 100 bytes came back, 0.2 ms each`; for the certificate that nobody vouches for an error
//! first, and then a warning that anybody can pose as the server. A program for people trusts the certificate instead:
//! `Tls::new().root_pem(…)` or `.pin_sha256(…)`.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use imks::client::{Binary, Client, ClientResult, Tls};

#[tokio::main]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().init();
    let (flags, urls): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let url = urls.first().map_or("http://127.0.0.1:3000", String::as_str);
    let is_careless = flags.iter().any(|flag| flag == "--danger-accept-invalid-certs");
    match echo(url, is_careless, ROUNDS).await {
        Ok((same, time)) if same == 2 * ROUNDS => {
            let each = time.as_secs_f64() * 1000.0 / f64::from(same);
            println!("{ROUNDS} texts and {ROUNDS} bytes came back, {each:.1} ms each");
            ExitCode::SUCCESS
        }
        Ok((same, _)) => {
            eprintln!("only {same} of {} came back as they were sent", 2 * ROUNDS);
            ExitCode::FAILURE
        }
        Err(error) => {
            let causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
            eprintln!("{}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
            ExitCode::FAILURE
        }
    }
}

/// Sends so many texts as questions and as many binary events, one after the other. Returns how many came back as they
/// were sent, and the time it took.
#[allow(clippy::disallowed_methods, reason = "an application may read the clock")]
pub async fn echo(url: &str, is_careless: bool, rounds: u32) -> ClientResult<(u32, Duration)> {
    let tls = if is_careless { Tls::new().danger_accept_invalid_certs() } else { Tls::new() };
    let client = Client::builder(url).tls(tls).build()?;
    let socket = client.socket("/")?;
    let mut returned = socket.stream::<(u32, Binary)>("bytes");
    socket.connect().await?;
    let (began, mut same) = (Instant::now(), 0);
    for round in 0..rounds {
        let text = format!("round {round}");
        let answer: String = socket.emit_with_ack("text", &text).await?;
        same += u32::from(answer == text);
        let bytes = Binary::from(text.into_bytes());
        socket.emit_args("bytes", &(round, &bytes)).await?;
        same += u32::from(returned.next().await.transpose()? == Some((round, bytes)));
    }
    let time = began.elapsed();
    client.close().await;
    Ok((same, time))
}

const ROUNDS: u32 = 100;
