//! The settings of a client, from which it is built.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
#[cfg(feature = "client-quic")]
use rustls::client::danger::ServerCertVerifier;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::address::Address;
use super::auth::{Auth, ProviderError};
use super::budget::{Budget, Overflow};
use super::core::{Core, Settings};
use super::driver::Driver;
use super::error::{ClientError, ClientResult};
use super::event::{ClientEvent, Status, TransportKind};
use super::handle::Client;
use super::measuring;
use super::payload::{PayloadCodec, Payloads};
use super::racing::{Racer, Racing};
use super::reconnect::Reconnect;
use super::retry::Retry;
use super::shared::{Listener, Shared};
use super::stats::Counting;
use super::store::{Entry, Store};
use super::tls::Tls;
use super::transport::{Dialer, Transports};
#[cfg(feature = "client-quic")]
use super::transport::{QuicConfig, Raw};
use crate::socket::codec::outgoing::Encoding;
use crate::socket::packet::Limits;

/// The settings of a [`Client`].
#[must_use = "a builder does nothing before `build` or `connect`"]
pub struct ClientBuilder {
    url: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    auth: ClientResult<Auth>,
    transports: Transports,
    quic: Quic,
    tls: Tls,
    reconnect: Reconnect,
    retry_initial: bool,
    connect_timeout: Duration,
    join_timeout: Duration,
    answer_timeout: Duration,
    retry: Retry,
    send_queue: (usize, usize),
    overflow: Overflow,
    receive_queue: usize,
    message_bytes_max: usize,
    compression: bool,
    encoding: Encoding,
    payloads: Payloads,
    store: Option<Arc<Mutex<dyn Store>>>,
    listeners: Vec<Listener>,
    tells_received: bool,
}

/// The settings of [`TransportKind::Quic`].
struct Quic {
    port: Option<u16>,
    alpn: Vec<String>,
    zero_rtt: bool,
    has_bulk: bool,
}

impl ClientBuilder {
    pub(super) fn new(url: &str) -> Self {
        let (url, transports) = match url.strip_prefix("quic://") {
            // It is always encrypted.
            Some(rest) => (format!("https://{rest}"), Transports::only(TransportKind::Quic)),
            None => (url.to_owned(), Transports::default()),
        };
        Self {
            url,
            query: Vec::new(),
            headers: Vec::new(),
            auth: Ok(Auth::Nothing),
            transports,
            quic: Quic { port: None, alpn: vec![QUIC_ALPN.to_owned()], zero_rtt: false, has_bulk: false },
            tls: Tls::default(),
            reconnect: Reconnect::default(),
            retry_initial: false,
            connect_timeout: Duration::from_secs(5),
            join_timeout: Duration::from_secs(20),
            answer_timeout: Duration::from_secs(10),
            retry: Retry::default(),
            send_queue: (SEND_EVENTS, SEND_BYTES),
            overflow: Overflow::default(),
            receive_queue: RECEIVE_EVENTS,
            message_bytes_max: MESSAGE_BYTES,
            compression: false,
            encoding: Encoding::default(),
            payloads: Payloads::default(),
            store: None,
            listeners: Vec::new(),
            tells_received: false,
        }
    }

    /// Sets the token of the client, which goes into `auth.token`.
    pub fn auth_token(self, token: &str) -> Self {
        self.auth(&serde_json::json!({ "token": token }))
    }

    /// Sets what the client says about itself when it joins a namespace: anything that is a JSON object. Anything
    /// else is a [`ClientError::Config`] of [`ClientBuilder::build`].
    pub fn auth(mut self, auth: &impl Serialize) -> Self {
        self.auth = Auth::fixed(auth);
        self
    }

    /// Sets a function that returns a token, and is asked before every attempt to join a namespace: a token that
    /// has expired since is never sent. After a failure or a panic, which is a
    /// [`ClientError::AuthenticationFailed`], it is asked again.
    ///
    /// ```no_run
    /// # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # fn run() -> imks::client::ClientResult<imks::client::Client> {
    /// imks::client::Client::builder("https://chat.example")
    ///     .auth_token_provider(|| async { Ok(fetch_token().await?) })
    ///     .build()
    /// # }
    /// ```
    pub fn auth_token_provider<F, R>(self, provide: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, ProviderError>> + Send + 'static,
    {
        self.auth_provider(move |_| {
            let providing = provide();
            async move { Ok(serde_json::json!({ "token": providing.await? })) }
        })
    }

    /// Sets a function that returns what the client says about itself in a namespace, which must be a JSON object,
    /// and is asked before every attempt to join it, as that of [`ClientBuilder::auth_token_provider`] is.
    pub fn auth_provider<F, R, T>(mut self, provide: F) -> Self
    where
        F: Fn(&str) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, ProviderError>> + Send + 'static,
        T: Serialize,
    {
        self.auth = Ok(Auth::provider(provide));
        self
    }

    /// Adds a header to every request, WebSockets included. One with an invalid name or value is a
    /// [`ClientError::Config`] of [`ClientBuilder::build`].
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a pair to the query of every request. It is escaped.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the transports. The default is a WebSocket, and polling where there can be none.
    pub fn transports(mut self, transports: Transports) -> Self {
        self.transports = transports;
        self
    }

    /// Sets the UDP port of [`TransportKind::Quic`]. The default is the port of the address.
    pub fn quic_port(mut self, port: u16) -> Self {
        self.quic.port = Some(port);
        self
    }

    /// Sets the names of the protocol that [`TransportKind::Quic`] offers by ALPN, of which the server has to know one.
    /// The default is `imks/1`.
    pub fn quic_alpn<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.quic.alpn = names.into_iter().map(Into::into).collect();
        self
    }

    /// Begins sessions on [`TransportKind::Quic`] together with the handshake (0-RTT) where the client was connected to
    /// the server before: one round trip less. The server has to allow it. The credentials of the client then leave
    /// before the server has proved itself anew, encrypted for the one that it was connected to. In a race it has no
    /// effect: whether a server is there shows in a handshake only.
    pub fn quic_0rtt(mut self, begins_early: bool) -> Self {
        self.quic.zero_rtt = begins_early;
        self
    }

    /// Takes large answers on a second stream where [`TransportKind::Quic`] carries the connection, so that events do not
    /// wait behind them. Such an answer may then overtake events that were sent before it, and be overtaken by events
    /// that were sent after it.
    pub fn quic_bulk(mut self, has_bulk: bool) -> Self {
        self.quic.has_bulk = has_bulk;
        self
    }

    /// Sets which servers are trusted, and how the client proves itself. The default trusts what the system trusts.
    /// With an address that is `http://` or `ws://` there is no TLS over TCP, whatever is set here. QUIC has it
    /// always.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets the pauses between attempts to connect again. The default is that of the stock client.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Treats the first attempt to connect like every later one. Without this its failure is the caller's, so that
    /// a wrong address shows at once.
    pub fn retry_initial(mut self) -> Self {
        self.retry_initial = true;
        self
    }

    /// Sets how long a transport may take to reach the server, and then to begin the session. The default is 5 seconds
    /// for each.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long the server may take to let the client into a namespace. The default is 20 seconds: imks holds
    /// a client for up to 9 when it cannot say at once.
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.join_timeout = timeout;
        self
    }

    /// Sets how long an answer may take where the call does not say so. The default is 10 seconds.
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// Sets when what is in the outbox is sent again. The default is ten times, a second apart.
    pub fn message_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how many events and bytes may wait to be sent, the outbox included, and what happens to one more. The
    /// default is 1,024 events, 16 MiB, and that the sender waits.
    pub fn send_queue(mut self, events: usize, bytes: usize, overflow: Overflow) -> Self {
        (self.send_queue, self.overflow) = ((events, bytes), overflow);
        self
    }

    /// Sets how many events of a namespace may wait for its handlers. While there are more, the connection is not
    /// read. The default is 1,024.
    pub fn receive_queue(mut self, events: usize) -> Self {
        self.receive_queue = events.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Sets the size of the largest message that is taken from the server. A larger one ends the connection. The
    /// default is 16 MiB.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Offers the server to compress messages of 1 KiB and more on a WebSocket (permessage-deflate, RFC 7692), both ways.
    /// [`ClientBuilder::message_bytes_max`] bounds what a message may become. The default is `false`: compressed text that
    /// holds a secret beside what others can choose gives the secret away by its length.
    pub fn compression(mut self, compression: bool) -> Self {
        self.compression = compression;
        self
    }

    /// Speaks to a server that uses the msgpack parser (npm `socket.io-msgpack-parser`), which sends each packet as one
    /// binary message. Both sides have to use the same.
    pub fn msgpack_parser(mut self) -> Self {
        self.encoding = Encoding::MsgPack;
        self
    }

    /// Sets what changes the arguments of events on their way, such as encryption between applications.
    pub fn payload_codec(mut self, codec: impl PayloadCodec) -> Self {
        self.payloads = Payloads::new(codec);
        self
    }

    /// Sets where the outbox is kept. Without a store it is gone with the client.
    pub fn outbox(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(Mutex::new(store)));
        self
    }

    /// Calls a function for everything that happens to the connection. It must not block. A panic in it is logged.
    pub fn on_event(mut self, listen: impl Fn(&ClientEvent) + Send + Sync + 'static) -> Self {
        self.listeners.push(Box::new(listen));
        self
    }

    /// Tells every event of the server as [`ClientEvent::MessageReceived`] too, for programs that watch a client from
    /// one place. It costs each event a place among those that are kept for whoever listens, so it is off by default.
    pub fn tell_received(mut self) -> Self {
        self.tells_received = true;
        self
    }

    /// Builds the client and connects it.
    ///
    /// # Errors
    /// Those of [`ClientBuilder::build`] and [`Client::connect`].
    pub async fn connect(self) -> ClientResult<Client> {
        let client = self.build()?;
        client.connect().await?;
        Ok(client)
    }

    /// Builds the client, which does not connect yet. Reads the outbox where there is a store.
    ///
    /// # Errors
    /// [`ClientError::Config`] for settings that cannot work, and outside a Tokio runtime;
    /// [`ClientError::Outbox`] if the store cannot be read; [`ClientError::Tls`] for the settings of TLS.
    pub fn build(self) -> ClientResult<Client> {
        if Handle::try_current().is_err() {
            return Err(ClientError::Config("a client must be built inside a Tokio runtime".into()));
        }
        let dialer = Arc::new(self.dialer()?);
        let entries = self.load()?;
        let auth = self.auth?;
        let racing = self.transports.race().cloned();
        let settings = Settings {
            reconnect: self.reconnect,
            retry_initial: self.retry_initial,
            connect_timeout: connect_timeout(&self.transports, self.connect_timeout),
            join_timeout: self.join_timeout,
            retry: self.retry,
            limits: Limits { attachments_max: usize::MAX, attachment_bytes_max: self.message_bytes_max },
            encoding: self.encoding,
            has_fresh_credentials: auth.is_fresh(),
            switch_without_recovery: racing.as_ref().is_some_and(Racing::switches_without_recovery),
        };
        let budget = Budget::new(self.send_queue.0, self.send_queue.1);
        let shared = Arc::new(Shared {
            budget: budget.clone(),
            status: watch::Sender::new(Status::Idle),
            events: Mutex::default(),
            tells_received: self.tells_received,
            listeners: self.listeners,
            counting: Mutex::new(Counting::default()),
            racer: Mutex::new(Racer::new(racing.clone().unwrap_or_default())),
            sockets: Mutex::new(HashMap::new()),
            store: self.store,
            payloads: self.payloads,
            tasks: TaskTracker::new(),
        });
        let mut core = Core::new(settings, budget, random);
        for entry in entries {
            // What was stored has its room, however much it is.
            let place = shared.budget.take_anyway(entry.args.bytes());
            core.queue(Instant::now(), entry, None, Some(place));
        }
        let (say, commands) = mpsc::channel(COMMANDS_MAX);
        if let Some(racing) = racing {
            let calls = (shared.clone(), say.downgrade());
            shared.tasks.spawn(measuring::run(calls, dialer.clone(), racing, random));
        }
        let driver = Driver::new(core, shared.clone(), auth, (dialer, self.transports), commands);
        shared.tasks.spawn(Box::pin(driver.run()));
        Ok(Client::new(say, shared, self.overflow, self.answer_timeout, self.receive_queue))
    }

    fn dialer(&self) -> ClientResult<Dialer> {
        let mut address = Address::parse(&self.url)?;
        self.query.iter().for_each(|(name, value)| address.push_query(name, value));
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let invalid =
                |part: &str| ClientError::Config(format!("the header {name:?} has an invalid {part}"));
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("name"))?;
            headers.append(key, HeaderValue::from_str(value).map_err(|_| invalid("value"))?);
        }
        if self.connect_timeout.is_zero() || self.join_timeout.is_zero() {
            return Err(ClientError::Config("the time to connect or to join is zero".into()));
        }
        let transports = self.transports.all();
        if transports.is_empty() {
            return Err(ClientError::Config("there is no transport to use".into()));
        }
        let has_quic =
            [TransportKind::WebTransport, TransportKind::Quic].iter().any(|it| transports.contains(it));
        if has_quic && !cfg!(feature = "client-quic") {
            return Err(ClientError::Config("QUIC needs the feature client-quic of imks".into()));
        }
        let verifier = (address.is_secure || has_quic).then(|| self.tls.verifier()).transpose()?;
        let tls = verifier.clone().filter(|_| address.is_secure);
        let tls = tls.map(|verifier| self.tls.tcp(verifier)).transpose()?;
        #[cfg(feature = "client-quic")]
        let (quic, raw) = self.quic(address.port, verifier)?;
        let (timeout, message_bytes_max) = (self.connect_timeout, self.message_bytes_max);
        let heard_at = Arc::new(Mutex::new(Instant::now()));
        Ok(Dialer {
            address,
            tls,
            #[cfg(feature = "client-quic")]
            quic,
            #[cfg(feature = "client-quic")]
            raw,
            headers,
            timeout,
            message_bytes_max,
            has_bulk: self.quic.has_bulk,
            compresses: self.compression,
            heard_at,
        })
    }

    /// Returns the settings of QUIC with HTTP/3 and without, where they are needed.
    #[cfg(feature = "client-quic")]
    fn quic(
        &self,
        port: u16,
        verifier: Option<Arc<dyn ServerCertVerifier>>,
    ) -> ClientResult<(Option<QuicConfig>, Option<Raw>)> {
        let transports = self.transports.all();
        let config = |transport, protocols: &[String], zero_rtt: bool| {
            let verifier = verifier.clone().filter(|_| transports.contains(&transport));
            let mut tls = verifier.map(|verifier| self.tls.quic(verifier, protocols)).transpose()?;
            tls.iter_mut().for_each(|tls| tls.enable_early_data = zero_rtt);
            tls.map(QuicConfig::new).transpose()
        };
        let is_racing = self.transports.race().is_some_and(|it| it.between().contains(&TransportKind::Quic));
        let zero_rtt = self.quic.zero_rtt && !is_racing;
        let raw = config(TransportKind::Quic, &self.quic.alpn, zero_rtt)?;
        let port = self.quic.port.unwrap_or(port);
        let http3 = config(TransportKind::WebTransport, &["h3".to_owned()], false)?;
        Ok((http3, raw.map(|config| Raw::new(config, port, zero_rtt))))
    }

    fn load(&self) -> ClientResult<Vec<Entry>> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        store.lock().load().map_err(|error| ClientError::Outbox(Arc::new(error)))
    }
}

/// Shows neither credentials nor headers nor the query, which may contain some.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transports, tls, reconnect, .. } = self;
        let url = self.url.split('?').next().unwrap_or_default();
        write!(formatter, "ClientBuilder({url}, {transports:?}, {tls:?}, {reconnect:?})")
    }
}

/// Returns the time for an attempt to connect. Each transport has its own time to reach the server and to begin. This is
/// for what is between them.
fn connect_timeout(transports: &Transports, each: Duration) -> Duration {
    let attempts = u32::try_from(transports.all().len()).unwrap_or(u32::MAX);
    each.saturating_mul(attempts.saturating_mul(2)).saturating_add(CONNECT_SLACK)
}

/// Returns a random number from 0 to 1, or a half if the system has none.
pub(crate) fn random() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

/// The name of the protocol for ALPN by default.
const QUIC_ALPN: &str = "imks/1";

/// The number of events that may wait to be sent by default.
const SEND_EVENTS: usize = 1_024;

/// The number of bytes that may wait to be sent by default.
const SEND_BYTES: usize = 16 * 1024 * 1024;

/// The number of events of a namespace that may wait for its handlers by default.
const RECEIVE_EVENTS: usize = 1_024;

/// The size of the largest message from the server by default.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The time for an attempt to connect beside that of its transports.
const CONNECT_SLACK: Duration = Duration::from_secs(1);

/// The maximum number of calls that wait for the task of a client. Further callers wait.
const COMMANDS_MAX: usize = 256;
