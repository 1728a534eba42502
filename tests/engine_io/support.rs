//! An echo server on a real port, and clients that can be rude.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use futures_util::{SinkExt, StreamExt};
use imks::{
    engine::{Close, CloseReason, Config, Connection, Engine, Event, Frame, Message, Outbox},
    http::listener,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Echoes messages; some texts are commands, see [`answer`].
pub struct Server {
    pub addr: SocketAddr,
    pub engine: Engine,
    /// Most bytes that waited for one client when it sent something.
    queued_max: Arc<AtomicUsize>,
    closed: mpsc::Receiver<CloseReason>,
    /// The listener and its connections.
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    pub async fn start(config: Config) -> Self {
        Self::with_listener(config, listener::Config::default()).await
    }

    pub async fn with_listener(config: Config, limits: listener::Config) -> Self {
        Self::with_routes(config, limits, Router::new()).await
    }

    /// With routes beside the engine.
    pub async fn with_routes(config: Config, limits: listener::Config, router: Router) -> Self {
        Self::with_routes_to_engine(config, limits, |_| router).await
    }

    /// With routes that lead to the engine.
    pub async fn with_routes_to_engine(
        config: Config,
        limits: listener::Config,
        router: impl FnOnce(&Engine) -> Router,
    ) -> Self {
        let engine = Engine::new(config).unwrap();
        let router = router(&engine);
        let (tasks, connections, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        let socket = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        let routes = listener::routes(engine.clone(), router, &limits);
        let serving = listener::serve(socket, limits, routes, connections.clone(), stop.clone());
        connections.spawn(serving);
        let (report, closed) = mpsc::channel(1000);
        let (accepting, holders) = (engine.clone(), tasks.clone());
        let queued_max = Arc::new(AtomicUsize::new(0));
        let queued = queued_max.clone();
        tasks.spawn(async move {
            while let Some(connection) = accepting.accept().await {
                holders.spawn(hold(connection, report.clone(), queued.clone()));
            }
        });
        Self { addr, engine, queued_max, closed, connections, stop }
    }

    #[allow(dead_code, reason = "tests of the transports use it")]
    /// Stops the listener and waits for its connections; sessions stay.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.connections.close();
        self.connections.wait().await;
    }

    /// The most bytes that waited for one client when it sent something.
    #[allow(dead_code, reason = "tests of slow readers use it")]
    pub fn queued_max(&self) -> usize {
        self.queued_max.load(Ordering::Relaxed)
    }

    /// Whether a session has ended that nobody asked about yet.
    #[allow(dead_code, reason = "tests of slow readers use it")]
    pub fn has_closed(&mut self) -> bool {
        self.closed.try_recv().is_ok()
    }

    /// Why the next session ended.
    pub async fn closed(&mut self) -> CloseReason {
        within(self.closed.recv()).await.unwrap()
    }

    /// Opens a polling session, gives its path.
    pub async fn open(&self) -> String {
        let answer = self.get("/socket.io/?EIO=4&transport=polling").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let open: serde_json::Value =
            serde_json::from_str(answer.body[1..].split('\x1e').next().unwrap()).unwrap();
        format!("/socket.io/?EIO=4&transport=polling&sid={}", open["sid"].as_str().unwrap())
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, &[], body).await
    }

    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = self.send(method, path, headers, body).await;
        Answer::read(&mut stream).await
    }

    /// Sends a request and leaves the answer to be read.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.raw(&format!("{head}\r\n{body}")).await
    }

    /// Sends bytes.
    pub async fn raw(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    /// Opens a WebSocket session and takes its OPEN packet.
    pub async fn websocket(&self) -> Client {
        let mut client = self.dial("/socket.io/?EIO=4&transport=websocket").await;
        assert!(client.text().await.starts_with("0{"));
        client
    }

    /// Opens a WebSocket at a path.
    pub async fn dial(&self, path: &str) -> Client {
        let url = format!("ws://{}{path}", self.addr);
        let (stream, _) = within(Box::pin(tokio_tungstenite::connect_async(url))).await.unwrap();
        Client(stream)
    }

    /// Opens a WebSocket that is refused, gives status and body.
    pub async fn dial_refused(&self, path: &str) -> (u16, String) {
        let url = format!("ws://{}{path}", self.addr);
        match Box::pin(tokio_tungstenite::connect_async(url)).await {
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert!(body["code"].is_number(), "{body}");
                (response.status().as_u16(), body["message"].as_str().unwrap().to_owned())
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    /// A WebSocket without a library: the bytes after the response head are next.
    pub async fn dial_raw(&self, path: &str) -> TcpStream {
        let mut stream = self.raw(&upgrade_head(path)).await;
        read_head(&mut stream).await;
        stream
    }

    /// Waits until no session is left.
    pub async fn drained(&self) {
        within(async {
            while self.engine.sessions() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

pub fn upgrade_head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The path of a WebSocket for a polling session.
pub fn as_websocket(path: &str) -> String {
    path.replace("transport=polling", "transport=websocket")
}

pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A masked client frame with a mask of zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = match length {
        0..=125 => vec![first, 0x80 | length as u8],
        _ => [&[first, 0xFE][..], &length.to_be_bytes()].concat(),
    };
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The next server frame: first byte and payload; `None` at the end of the stream.
pub async fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 2];
    within(stream.read_exact(&mut header)).await.ok()?;
    let length = match header[1] {
        126 => usize::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap() as usize,
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    within(stream.read_exact(&mut payload)).await.unwrap();
    Some((header[0], payload))
}

/// Nothing here may take long.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("took longer than five seconds")
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        within(stream.read_to_end(&mut bytes)).await.unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP answer");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let bytes = bytes[end + 4..].to_vec();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: String::from_utf8_lossy(&bytes).into_owned(), bytes }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub async fn send(&mut self, text: &str) {
        self.0.send(tungstenite::Message::text(text)).await.unwrap();
    }

    pub async fn next(&mut self) -> tungstenite::Message {
        within(self.0.next()).await.unwrap().unwrap()
    }

    pub async fn text(&mut self) -> String {
        match self.next().await {
            tungstenite::Message::Text(text) => text.to_string(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The code of the close frame that comes next.
    pub async fn close_code(&mut self) -> u16 {
        let closed = self.next().await;
        // Completes the closing handshake.
        assert!(!matches!(within(self.0.next()).await, Some(Ok(_))));
        match closed {
            tungstenite::Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("not a close frame: {other:?}"),
        }
    }
}

/// Reads a close frame. Returns its code and its text.
pub async fn read_close(stream: &mut TcpStream) -> (u16, String) {
    let (first, content) = read_frame(stream).await.unwrap();
    assert_eq!(first, 0x88, "a close frame");
    let (code, text) = content.split_first_chunk().unwrap();
    (u16::from_be_bytes(*code), String::from_utf8(text.to_vec()).unwrap())
}

async fn hold(mut connection: Connection, report: mpsc::Sender<CloseReason>, queued: Arc<AtomicUsize>) {
    let outbox = connection.outbox().clone();
    let mut deaf = false;
    loop {
        match poll_fn(|cx| connection.poll_event(cx, !deaf)).await {
            Event::Closed(reason) => return report.send(reason).await.unwrap_or_default(),
            Event::Message(Message::Text(text)) if text == "facts" => {
                let _ = outbox.send(Frame::text(&facts(&connection)));
            }
            Event::Message(message) => {
                deaf = answer(&outbox, &message);
                queued.fetch_max(outbox.queued().bytes, Ordering::Relaxed);
            }
        }
    }
}

/// What the server knows about the first request.
fn facts(connection: &Connection) -> String {
    let handshake = connection.handshake();
    serde_json::json!({
        "transport": handshake.transport.name(),
        "now": connection.outbox().transport().name(),
        "secure": handshake.secure,
        "address": handshake.peer.ip().to_string(),
        "url": handshake.url(),
        "origin": handshake.header("origin"),
    })
    .to_string()
}

/// Says whether the holder stops reading.
fn answer(outbox: &Outbox, message: &Message) -> bool {
    match message {
        Message::Binary(data) => drop(outbox.send(Frame::binary(data))),
        Message::Text(text) => match text.split_once(':').unwrap_or((text.as_str(), "")) {
            ("close", _) => {
                let _ = outbox.send(Frame::text("last"));
                outbox.close(Close::Graceful);
            }
            ("shutdown", _) => outbox.close(Close::Shutdown),
            ("now", _) => outbox.close(Close::Now),
            ("deaf", _) => return true,
            ("answer", length) => {
                let _ = outbox.answer(&[Frame::text(&"x".repeat(length.parse().unwrap()))], None);
            }
            ("reply", text) => drop(outbox.answer(&[Frame::text(text)], None)),
            ("long", length) => drop(outbox.send(Frame::text(&"x".repeat(length.parse().unwrap())))),
            ("plain", length) => {
                let _ = outbox.send(Frame::text(&"x".repeat(length.parse().unwrap())).uncompressed());
            }
            ("pour", count) => {
                let (outbox, count) = (outbox.clone(), count.parse().unwrap());
                TaskTracker::new().spawn(async move {
                    for _ in 0..count {
                        outbox.send(Frame::text(&"x".repeat(64 << 10))).unwrap();
                        outbox.drained().await.unwrap();
                    }
                });
            }
            ("flood", count) => (0..count.parse().unwrap()).for_each(|_| {
                let _ = outbox.send(Frame::text(&"x".repeat(64 << 10)));
            }),
            _ => drop(outbox.send(Frame::text(text))),
        },
    }
    false
}
