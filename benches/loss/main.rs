//! How long small events take to arrive over a network that delays and loses packets: raw QUIC, WebTransport and
//! WebSocket (with TLS), each with the same losses. `benches/loss/shape.py` is the network.
//!
//! ```text
//! cargo bench --bench loss                # needs root and python3; about two minutes
//! ```
//!
//! The server sends a client one event every 20 ms with the time in it. Both are on this machine and have one clock.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench speaks to people, and may fail"
)]
#![allow(
    clippy::large_futures,
    clippy::disallowed_methods,
    reason = "a bench of two processes, which share the calendar"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use imks::client::{Client, Tls, TransportKind, Transports};
use imks::http::{SocketIo, quic};
use imks::socket::{EventError, Server, Socket};
use tokio_util::task::TaskTracker;

const SERVER: ([u8; 4], u16) = ([10, 77, 0, 2], 3000);
const QUIC_PORT: u16 = 3001;
const TRANSPORTS: [TransportKind; 3] =
    [TransportKind::Quic, TransportKind::WebTransport, TransportKind::WebSocket];
const LOSSES: [u32; 3] = [0, 1, 3];
const DELAY_MS: u32 = 20;
const EVENTS: usize = 500;
const INTERVAL: Duration = Duration::from_millis(20);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server"] => runtime().block_on(serve()),
        ["client", transport] => runtime().block_on(listen(transport)),
        _ => measure_all(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A process that ends with its standard input, and so with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn measure_all() {
    println!("| loss | transport | p50 ms | p95 ms | p99 ms | max ms |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: |");
    for loss in LOSSES {
        let _network = network(loss);
        let mut server = in_namespace("imks-loss-b", &["server"]);
        let mut server = Process(server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn_it());
        first_line(&mut server.0);
        for transport in TRANSPORTS {
            let mut client = in_namespace("imks-loss-a", &["client", transport.name()]);
            let output = client.output().expect("a client");
            let text = String::from_utf8_lossy(&output.stdout);
            let mut times: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
            assert_eq!(times.len(), EVENTS, "{transport}: {}", String::from_utf8_lossy(&output.stderr));
            times.sort_unstable();
            let at = |part: usize| times[(EVENTS * part).div_ceil(1_000) - 1] as f64 / 1_000.0;
            let [p50, p95, p99, max] = [500, 950, 990, 1_000].map(at);
            println!("| {loss} % | {transport} | {p50:.1} | {p95:.1} | {p99:.1} | {max:.1} |");
        }
    }
}

fn network(loss: u32) -> Process {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/loss/shape.py");
    let mut command = Command::new("python3");
    command.args([script, &loss.to_string(), &DELAY_MS.to_string()]);
    let mut network = Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn_it());
    first_line(&mut network.0);
    network
}

/// This program in another network namespace.
fn in_namespace(namespace: &str, args: &[&str]) -> Command {
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(this).args(args);
    command
}

trait SpawnIt {
    fn spawn_it(&mut self) -> Child;
}

impl SpawnIt for Command {
    fn spawn_it(&mut self) -> Child {
        self.spawn().unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

fn first_line(process: &mut Child) {
    let mut line = String::new();
    let output = process.stdout.as_mut().expect("its output");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), "ready");
}

fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_micros() as u64
}

async fn tick(socket: Socket) {
    let mut ticks = tokio::time::interval(INTERVAL);
    for _ in 0..EVENTS {
        ticks.tick().await;
        if socket.emit("tick", &micros()).is_err() {
            return;
        }
    }
}

async fn serve() {
    let server = Server::builder(Default::default()).namespace("/", |namespace| {
        namespace.on_typed("start", |socket: Socket, ()| async move {
            TaskTracker::new().spawn(tick(socket));
            Ok::<_, EventError>(())
        });
    });
    let quic = quic::Config { listen: Some((SERVER.0, QUIC_PORT).into()), ..quic::Config::default() };
    let builder = SocketIo::builder(server.build().expect("a server"));
    let serving = builder.with_self_signed(["10.77.0.2"]).with_quic(quic).listen(SERVER).expect("an address");
    println!("ready");
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0; 1]));
    serving.until(parent).await;
}

async fn listen(transport: &str) {
    let kind = TRANSPORTS.into_iter().find(|kind| kind.name() == transport).expect("a transport");
    let client = Client::builder("https://10.77.0.2:3000")
        .transports(Transports::only(kind))
        .quic_port(QUIC_PORT)
        .connect_timeout(Duration::from_secs(10))
        .retry_initial()
        .tls(Tls::new().danger_accept_invalid_certs());
    let client = client.build().expect("a client");
    let socket = client.socket("/").expect("a namespace");
    let mut ticks = socket.stream::<u64>("tick");
    socket.connect().await.expect("a session");
    socket.emit_args("start", &()).await.expect("an event");
    for _ in 0..EVENTS {
        let sent = ticks.next().await.expect("the client is there").expect("a time");
        println!("{}", micros().saturating_sub(sent));
    }
    assert_eq!(client.stats().connects, 1, "the connection was lost");
    client.close().await;
}
