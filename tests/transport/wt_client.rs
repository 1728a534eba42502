//! An engine with a WebTransport listener, and a client that speaks frames.

use std::net::SocketAddr;

use imks::{
    engine::Config,
    http::{
        tls::Certificates,
        webtransport::{self, Heartbeat, Listener},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wtransport::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream,
    endpoint::{ConnectOptions, endpoint_side},
    error::{ConnectingError, ConnectionError},
    quinn,
    tls::Sha256Digest,
};

use crate::support::{Server, within};

/// The echo server, reachable over QUIC too.
pub struct WtServer {
    pub http: Server,
    pub addr: SocketAddr,
    pub certificates: Certificates,
    stop: CancellationToken,
}

impl Drop for WtServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl WtServer {
    pub async fn start(config: Config) -> Self {
        Self::with_limits(config, webtransport::Config::default()).await
    }

    pub async fn with_limits(config: Config, limits: webtransport::Config) -> Self {
        let config = Config { webtransport: true, ..config };
        let heartbeat = Heartbeat { interval: config.ping_interval, timeout: config.ping_timeout };
        let http = Server::start(config).await;
        Self::over(http, limits, heartbeat)
    }

    /// A listener for the sessions of this server.
    pub fn over(http: Server, limits: webtransport::Config, heartbeat: Heartbeat) -> Self {
        let certificates = Certificates::self_signed(vec!["localhost".into()]).unwrap();
        let socket = webtransport::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = Listener::new(socket, &certificates, &limits, heartbeat).unwrap();
        let addr = listener.addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(listener.serve(http.engine.clone(), tasks.clone(), stop.clone()));
        Self { http, addr, certificates, stop }
    }

    /// A session that has said nothing yet.
    pub async fn dial(&self) -> Session {
        self.try_dial(self.addr, "/socket.io/").await.unwrap()
    }

    pub async fn try_dial(&self, addr: SocketAddr, path: &str) -> Result<Session, ConnectingError> {
        Session::dial(addr, path, self.certificates.hashes()).await
    }

    /// A QUIC connection that says nothing.
    pub async fn quic(&self) -> (quinn::Connection, quinn::Endpoint) {
        let hashes = self.certificates.hashes().into_iter().map(Sha256Digest::new);
        let config = ClientConfig::builder()
            .with_bind_address("127.0.0.1:0".parse().unwrap())
            .with_server_certificate_hashes(hashes)
            .build();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(config.quic_config().clone());
        let connecting = endpoint.connect(self.addr, "localhost").unwrap();
        (within(connecting).await.unwrap(), endpoint)
    }

    /// A stream whose first packet is `first`.
    pub async fn stream(&self, first: &str) -> Stream {
        self.dial().await.stream(first).await
    }

    /// A new session, its OPEN packet taken.
    pub async fn open(&self) -> Stream {
        let mut stream = self.stream("0").await;
        let open = stream.text().await;
        assert!(open.starts_with(r#"0{"sid":""#) && open.contains(r#""upgrades":[]"#), "{open}");
        stream
    }
}

pub struct Session {
    pub connection: Connection,
    _endpoint: Endpoint<endpoint_side::Client>,
}

impl Session {
    /// A session with a server whose certificate has one of these hashes.
    pub async fn dial(addr: SocketAddr, path: &str, hashes: Vec<[u8; 32]>) -> Result<Self, ConnectingError> {
        let config = ClientConfig::builder()
            .with_bind_address("127.0.0.1:0".parse().unwrap())
            .with_server_certificate_hashes(hashes.into_iter().map(Sha256Digest::new))
            .build();
        let endpoint = Endpoint::client(config).unwrap();
        let options = ConnectOptions::builder(format!("https://{addr}{path}"));
        let options = options.add_header("origin", "https://page.example").build();
        let connection = within(endpoint.connect(options)).await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    pub async fn stream(self, first: &str) -> Stream {
        let (sending, receiving) = within(self.connection.open_bi()).await.unwrap().await.unwrap();
        let mut stream = Stream { sending, receiving, session: self };
        if !first.is_empty() {
            stream.send(first).await;
        }
        stream
    }

    /// Waits until the server has closed the session.
    pub async fn closed(&self) -> ConnectionError {
        within(self.connection.closed()).await
    }
}

pub struct Stream {
    pub sending: SendStream,
    pub receiving: RecvStream,
    pub session: Session,
}

impl Stream {
    pub async fn send(&mut self, packet: &str) {
        self.raw(&frame(false, packet.as_bytes())).await;
    }

    pub async fn send_binary(&mut self, data: &[u8]) {
        self.raw(&frame(true, data)).await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        within(self.sending.write_all(bytes)).await.unwrap();
    }

    /// The next frame: whether it is binary, and its payload; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<(bool, Vec<u8>)> {
        let [first] = self.take::<1>().await?;
        let length = match first & 0x7F {
            126 => u64::from(u16::from_be_bytes(self.take().await?)),
            127 => u64::from_be_bytes(self.take().await?),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        within(self.receiving.read_exact(&mut payload)).await.ok()?;
        Some((first & 0x80 != 0, payload))
    }

    pub async fn text(&mut self) -> String {
        match self.next().await {
            Some((false, payload)) => String::from_utf8(payload).unwrap(),
            other => panic!("not a text: {other:?}"),
        }
    }

    pub async fn says(&mut self, packet: &str) -> String {
        self.send(packet).await;
        self.text().await
    }

    async fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        within(self.receiving.read_exact(&mut bytes)).await.ok()?;
        Some(bytes)
    }
}

pub fn frame(binary: bool, payload: &[u8]) -> Vec<u8> {
    let flag = if binary { 0x80 } else { 0 };
    let mut bytes = match payload.len() {
        length @ 0..126 => vec![flag | length as u8],
        length @ 126..65_536 => [&[flag | 126][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[flag | 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    bytes.extend_from_slice(payload);
    bytes
}
