//! Handshake, live-session table, accept queue; which request goes to which session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, StatusCode, header};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use wtransport::proto::session::SessionResponse;

use self::client_bundle::ClientBundle;
use self::reply::Reply;
use self::request::{BodyError, Query, RequestError};
use crate::engine::duplex::Duplex;
use crate::engine::metrics::{self, QuicHandshake};
use crate::engine::outbox::Shared;
use crate::engine::polling::{self, Inbox, Payload, PendingGet, PendingPost, Refusal};
use crate::engine::registry::Registry;
use crate::engine::websocket::WebSocket;
use crate::engine::webtransport::{self, First, WebTransport};
use crate::engine::{
    Config, Connection, Handshake, NodeId, OutboxLimits, Protocol, Secure, SessionRequest, Sid, Transport,
    connection, frame,
};
use crate::{ImksError, ImksResult};

mod client_bundle;
mod reply;
pub(in crate::engine) mod request;

/// An Engine.IO server. Clone it freely.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    config: Config,
    node: NodeId,
    prefix: String,
    client_bundle: Option<ClientBundle>,
    /// Of the OPEN packet: before and after the session id.
    open_end: [String; 2],
    limits: Arc<OutboxLimits>,
    registry: Arc<Registry>,
    accepting: RwLock<Option<mpsc::Sender<Connection>>>,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    tasks: TaskTracker,
}

impl Engine {
    /// Checks the configuration and starts with no session.
    ///
    /// # Errors
    /// [`ImksError::Config`] for values that cannot work.
    pub fn new(config: Config) -> ImksResult<Self> {
        config.validate()?;
        let (accepting, accepted) = mpsc::channel(config.accept_queue);
        let upgrades = [("\"websocket\"", config.websocket), ("\"webtransport\"", config.webtransport)];
        let offered = upgrades.iter().filter(|(_, on)| *on && config.allow_upgrades).map(|(name, _)| *name);
        let offered = offered.collect::<Vec<_>>().join(",");
        Ok(Self(Arc::new(Inner {
            node: config.node.map_or_else(NodeId::random, Ok)?,
            prefix: config.prefix(),
            client_bundle: config.client_bundle_dir.as_deref().map(ClientBundle::read).transpose()?,
            open_end: [open_end(&config, &offered), open_end(&config, "")],
            limits: Arc::new(config.outbox),
            registry: Arc::new(Registry::new(config.max_payload)),
            accepting: RwLock::new(Some(accepting)),
            accepted: Mutex::new(accepted),
            tasks: TaskTracker::new(),
            config,
        })))
    }

    /// Whether a request path is served here: by prefix, as the reference does.
    pub fn matches(&self, path: &str) -> bool {
        path.starts_with(&self.0.prefix)
    }

    /// Answers one HTTP request; a polling GET may take as long as nothing is to say.
    pub async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Reply
    where
        B: Body,
    {
        let (mut parts, body) = request.into_parts();
        let config = &self.0.config;
        if let Some(cors) = &config.cors
            && let Some(mut reply) = reply::preflight(cors, &parts)
        {
            reply::decorate(config, &parts, &mut reply);
            return reply;
        }
        if let Some(bundle) = &self.0.client_bundle
            && let Some(name) = parts.uri.path().strip_prefix(&self.0.prefix)
            && let Some(mut reply) = bundle.answer(name, &parts)
        {
            reply::decorate(config, &parts, &mut reply);
            return reply;
        }
        let upgrade = request::is_upgrade(&parts);
        let socket = parts.extensions.remove::<OnUpgrade>();
        let answered = self.route(&parts, body, peer, socket.filter(|_| upgrade)).await;
        let mut reply = answered.unwrap_or_else(|error| reply::error(&error, upgrade));
        reply::decorate(config, &parts, &mut reply);
        reply
    }

    /// Answers one session request of WebTransport: it becomes a session, or carries one from now on, or is
    /// closed.
    pub async fn handle_webtransport(&self, request: SessionRequest) {
        let deadline = self.0.config.upgrade_timeout;
        let handled = tokio::time::timeout(deadline, Box::pin(self.open_webtransport(request))).await;
        match handled {
            Ok(Ok(())) => return,
            Ok(Err(SessionRefused::Request(error))) => {
                metrics::REQUESTS_REFUSED.of(&error).increment();
                tracing::debug!(error = error.message(), "WebTransport session refused");
            }
            Ok(Err(SessionRefused::Busy | SessionRefused::Gone)) | Err(_) => {}
        }
        metrics::QUIC_HANDSHAKES.of(QuicHandshake::Abandoned).increment();
    }

    /// The next new session; `None` after [`Engine::close`].
    pub async fn accept(&self) -> Option<Connection> {
        self.0.accepted.lock().await.recv().await
    }

    /// No new sessions from now on (503); existing ones go on.
    pub fn close(&self) {
        self.0.accepting.write().take();
    }

    /// Live sessions.
    pub fn sessions(&self) -> usize {
        self.0.registry.len()
    }

    async fn route<B: Body>(
        &self,
        parts: &Parts,
        body: B,
        peer: SocketAddr,
        socket: Option<OnUpgrade>,
    ) -> Result<Reply, RequestError> {
        let config = &self.0.config;
        if let Some(hook) = &config.hooks.on_request {
            hook(parts).map_err(|_| RequestError::BadRequest)?;
        }
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let transport = query.transport().filter(|transport| match transport {
            Transport::Polling => config.polling,
            Transport::WebSocket => config.websocket,
            // It never comes as an HTTP/1 request.
            Transport::WebTransport => false,
        });
        let transport = transport.ok_or(RequestError::TransportUnknown)?;
        if parts.headers.get(header::ORIGIN).is_some_and(|origin| origin.to_str().is_err()) {
            return Err(RequestError::BadRequest);
        }
        let Some(sid) = query.sid else {
            return self.open(parts, &query, transport, peer, socket).await;
        };
        let Some(shared) = self.0.registry.get(sid) else {
            return self.0.elsewhere(sid);
        };
        let same_version =
            |version| std::mem::discriminant(&version) == std::mem::discriminant(&shared.protocol);
        if !query.version().is_some_and(same_version) {
            return Err(RequestError::BadRequest);
        }
        match (transport, socket) {
            (Transport::WebSocket, Some(socket)) => self.upgrade(parts, &shared, socket),
            (Transport::Polling, None) if shared.transport() == Transport::Polling => {
                self.poll(parts, body, shared).await
            }
            _ => Err(RequestError::BadRequest),
        }
    }

    async fn open_webtransport(&self, request: SessionRequest) -> Result<(), SessionRefused> {
        let config = &self.0.config;
        let peer = request.remote_address();
        let parts = webtransport::head(request.path(), request.authority(), request.headers());
        let Some(parts) = parts.filter(|parts| config.webtransport && self.matches(parts.uri.path())) else {
            request.refuse(SessionResponse::not_found()).await;
            return Err(SessionRefused::Request(RequestError::TransportUnknown));
        };
        if let Some(hook) = &config.hooks.on_request
            && hook(&parts).is_err()
        {
            request.refuse(SessionResponse::forbidden()).await;
            return Err(SessionRefused::Request(RequestError::BadRequest));
        }
        if self.0.accepting.read().is_none() {
            request.refuse(SessionResponse::too_many_requests()).await;
            return Err(SessionRefused::Busy);
        }
        let session = request.accept().await.ok_or(SessionRefused::Gone)?;
        let opened = WebTransport::open(session, config.max_payload).await;
        let (wire, first) = opened.ok_or(SessionRefused::Request(RequestError::BadRequest))?;
        match first {
            First::Open => self.start_webtransport(&parts, peer, wire).await,
            First::Upgrade(sid) => self.upgrade_webtransport(&sid, wire).map_err(SessionRefused::Request),
        }
    }

    async fn start_webtransport(
        &self,
        parts: &Parts,
        peer: SocketAddr,
        wire: Box<WebTransport>,
    ) -> Result<(), SessionRefused> {
        let refused = SessionRefused::Request;
        if let Some(allow) = &self.0.config.hooks.allow_request {
            allow(parts).await.map_err(RequestError::Forbidden).map_err(refused)?;
        }
        // The stock client sends no query.
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        if query.protocol.is_some_and(|protocol| protocol != "4") {
            return Err(refused(RequestError::BadProtocol));
        }
        let sid = self.generate_id(parts).await.map_err(refused)?;
        let handshake = Handshake::new(sid, peer, Transport::WebTransport, true, &parts.uri, &parts.headers);
        self.0.start_webtransport(handshake, wire)
    }

    fn upgrade_webtransport(&self, sid: &str, wire: Box<WebTransport>) -> Result<(), RequestError> {
        let shared = self.0.registry.get(sid).ok_or(RequestError::SessionUnknown)?;
        // Version 3 has no form for it.
        if shared.protocol != Protocol::V4 {
            return Err(RequestError::BadRequest);
        }
        let wire = Box::new(Duplex::WebTransport(wire));
        polling::offer(&shared, wire).map_err(|(refusal, _)| refusal.into())
    }

    /// The first request of a session.
    async fn open(
        &self,
        parts: &Parts,
        query: &Query<'_>,
        transport: Transport,
        peer: SocketAddr,
        socket: Option<OnUpgrade>,
    ) -> Result<Reply, RequestError> {
        if parts.method != Method::GET {
            return Err(RequestError::BadMethod);
        }
        let socket = match (transport, socket) {
            (Transport::WebSocket, Some(socket)) => {
                Some((request::websocket_key(parts).ok_or(RequestError::BadRequest)?, socket))
            }
            (Transport::Polling, None) => None,
            _ => return Err(RequestError::BadRequest),
        };
        let config = &self.0.config;
        if let Some(allow) = &config.hooks.allow_request {
            allow(parts).await.map_err(RequestError::Forbidden)?;
        }
        let known = query.version().filter(|version| config.allow_eio3 || *version == Protocol::V4);
        let protocol = known.ok_or(RequestError::BadProtocol)?;
        let sid = self.generate_id(parts).await?;
        let secure = parts.extensions.get::<Secure>().is_some();
        let mut handshake = Handshake::new(sid, peer, transport, secure, &parts.uri, &parts.headers);
        handshake.protocol = protocol;
        self.0.start(parts, handshake, socket)
    }

    async fn generate_id(&self, parts: &Parts) -> Result<Sid, RequestError> {
        let sid = match &self.0.config.hooks.generate_id {
            None => Sid::random(self.0.node),
            Some(generate) => match generate(parts).await {
                Ok(text) => Sid::custom(&text),
                Err(reason) => Err(ImksError::invalid("sid", reason)),
            },
        };
        sid.map_err(|error| {
            tracing::warn!(%error, "no session id");
            RequestError::BadRequest
        })
    }

    /// A WebSocket that wants to take over a session.
    fn upgrade(&self, parts: &Parts, shared: &Arc<Shared>, socket: OnUpgrade) -> Result<Reply, RequestError> {
        let key = request::websocket_key(parts).ok_or(RequestError::BadRequest)?;
        let (wire, extensions) = WebSocket::accept(socket, parts, shared.protocol, &self.0.config);
        match polling::offer(shared, Box::new(Duplex::WebSocket(wire))) {
            Err((Refusal::Unknown, _)) => return Err(RequestError::SessionUnknown),
            // Clients do not expect an HTTP error here: it is opened, and closed.
            Err((_, wire)) => self.0.refuse_wire(*wire),
            Ok(()) => {}
        }
        Ok(reply::switching(key, extensions))
    }

    /// GET and POST of a polling session.
    async fn poll<B: Body>(
        &self,
        parts: &Parts,
        body: B,
        shared: Arc<Shared>,
    ) -> Result<Reply, RequestError> {
        match parts.method {
            Method::GET => match PendingGet::open(shared) {
                Ok(pending) => {
                    let payload = pending.payload().await?;
                    Ok(reply::payload(&self.0.config, parts, payload))
                }
                Err(Refusal::Overlap) => Ok(reply::empty(StatusCode::BAD_REQUEST)),
                Err(refusal) => Err(refusal.into()),
            },
            Method::POST => self.post(parts, body, shared).await,
            _ => Err(RequestError::BadRequest),
        }
    }

    async fn post<B: Body>(
        &self,
        parts: &Parts,
        body: B,
        shared: Arc<Shared>,
    ) -> Result<Reply, RequestError> {
        let config = &self.0.config;
        let mut pending = match PendingPost::open(shared) {
            Ok(pending) => pending,
            Err(Refusal::Overlap) => return Ok(reply::empty(StatusCode::BAD_REQUEST)),
            Err(refusal) => return Err(refusal.into()),
        };
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let binary = content_type.is_some_and(|value| value == "application/octet-stream");
        if binary && pending.protocol() == Protocol::V4 {
            // Dropping `pending` ends the session: version 4 knows no binary bodies.
            return Ok(reply::empty(StatusCode::BAD_REQUEST));
        }
        let body = request::read_body(&parts.headers, body, config.max_payload, config.body_timeout);
        let body = tokio::select! {
            biased;
            body = body => body,
            // Nobody waits for the rest of the body.
            refusal = pending.gone() => return reply::refused_post(refusal),
        };
        match body {
            Ok(body) => match pending.submit(&request::payload(parts, body), binary).await {
                Ok(()) => Ok(reply::ok()),
                Err(refusal) => reply::refused_post(refusal),
            },
            Err(BodyError::TooLarge) => {
                tracing::info!(limit = config.max_payload, "body too large");
                pending.cancel();
                Ok(reply::empty(StatusCode::PAYLOAD_TOO_LARGE))
            }
            Err(BodyError::TooSlow) => Ok(reply::empty(StatusCode::REQUEST_TIMEOUT)),
            Err(BodyError::Broken) => Ok(reply::empty(StatusCode::BAD_REQUEST)),
        }
    }
}

impl Inner {
    /// A request for a session that is not here. One that another node owns would be relayed to that node from
    /// here; as long as nodes do not talk to each other, it is unknown like all others.
    fn elsewhere(&self, sid: &str) -> Result<Reply, RequestError> {
        if Sid::owner(sid).is_some_and(|owner| owner != self.node) {
            metrics::SESSIONS_ELSEWHERE.increment();
        }
        Err(RequestError::SessionUnknown)
    }

    /// A new session and its connection, handed to whoever accepts.
    fn start(
        &self,
        parts: &Parts,
        handshake: Handshake,
        socket: Option<(&[u8], OnUpgrade)>,
    ) -> Result<Reply, RequestError> {
        // Read first: the client counts from the OPEN packet it gets.
        let now = Instant::now();
        let accepting = self.accepting.read();
        let Some(permit) = self.reserve(accepting.as_ref()) else { return Ok(reply::unavailable()) };
        let shared = self.register(&handshake)?;
        let (mut reply, wire) = self.greet(parts, &handshake, socket);
        if let Some(edit) = &self.config.hooks.initial_headers {
            edit(reply.headers_mut(), parts);
        }
        let (handshake, registry) = (Arc::new(handshake), self.registry.clone());
        let parts = connection::Parts { shared, handshake, registry, wire, now };
        permit.send(Connection::new(parts, &self.config));
        Ok(reply)
    }

    /// The same for a session that starts on WebTransport.
    fn start_webtransport(
        &self,
        handshake: Handshake,
        mut wire: Box<WebTransport>,
    ) -> Result<(), SessionRefused> {
        let now = Instant::now();
        let accepting = self.accepting.read();
        let permit = self.reserve(accepting.as_ref()).ok_or(SessionRefused::Busy)?;
        let shared = self.register(&handshake).map_err(SessionRefused::Request)?;
        wire.push(frame::Frame::packet(&[OPEN_START, handshake.sid.expose(), &self.open_end[1]].concat()));
        if let Some(initial) = self.config.initial_packet.as_deref() {
            wire.push(frame::Frame::text(initial));
        }
        let (handshake, registry) = (Arc::new(handshake), self.registry.clone());
        let wire = Some(Duplex::WebTransport(wire));
        permit.send(Connection::new(
            connection::Parts { shared, handshake, registry, wire, now },
            &self.config,
        ));
        Ok(())
    }

    /// A place in the accept queue; `None` when there are too many sessions, or no new ones are wanted.
    fn reserve<'a>(
        &self,
        accepting: Option<&'a mpsc::Sender<Connection>>,
    ) -> Option<mpsc::Permit<'a, Connection>> {
        let permit = accepting?.try_reserve().ok()?;
        (self.registry.len() < self.config.sessions_max).then_some(permit)
    }

    fn register(&self, handshake: &Handshake) -> Result<Arc<Shared>, RequestError> {
        let transport = handshake.transport;
        let inbox = (transport == Transport::Polling).then(|| Box::new(Inbox::default()));
        let shared = Shared::new(transport, self.limits.clone(), inbox).speaking(handshake.protocol);
        let shared = Arc::new(shared);
        let is_new = self.registry.insert(&handshake.sid, &shared);
        is_new.then_some(shared).ok_or(RequestError::BadRequest)
    }

    /// OPEN, and the initial packet if there is one: in the response, or on the WebSocket to come.
    fn greet(
        &self,
        parts: &Parts,
        handshake: &Handshake,
        socket: Option<(&[u8], OnUpgrade)>,
    ) -> (Reply, Option<Duplex>) {
        let end = &self.open_end[usize::from(socket.is_some())];
        let open = [OPEN_START, handshake.sid.expose(), end].concat();
        let initial = self.config.initial_packet.as_deref();
        let Some((key, socket)) = socket else {
            let frames = std::iter::once(frame::Frame::packet(&open)).chain(initial.map(frame::Frame::text));
            let frames: Vec<_> = frames.collect();
            let mut reply = reply::payload(&self.config, parts, Payload::new(handshake.protocol, &frames));
            if let Some(cookie) = &self.config.cookie
                && let Ok(value) =
                    format!("{}={}{}", cookie.name, handshake.sid.expose(), cookie.attributes).parse()
            {
                reply.headers_mut().append(header::SET_COOKIE, value);
            }
            return (reply, None);
        };
        let (mut socket, extensions) = WebSocket::accept(socket, parts, handshake.protocol, &self.config);
        socket.push(frame::Frame::packet(&open));
        if let Some(initial) = initial {
            socket.push(frame::Frame::text(initial));
        }
        (reply::switching(key, extensions), Some(Duplex::WebSocket(socket)))
    }

    /// Opens a WebSocket that no session wants and closes it with a code.
    fn refuse_wire(&self, mut wire: Duplex) {
        wire.push_close(SESSION_TAKEN);
        self.tasks.spawn(async move {
            let flushed = std::future::poll_fn(|cx| wire.poll_flush(cx));
            // Nobody depends on the outcome.
            let _ = tokio::time::timeout(REFUSE_TIME, flushed).await;
            std::future::poll_fn(|cx| {
                wire.shutdown(cx);
                std::task::Poll::Ready(())
            })
            .await;
        });
    }
}

/// Why a WebTransport session was closed before it carried anything.
enum SessionRefused {
    Request(RequestError),
    Busy,
    Gone,
}

/// The OPEN packet after the session id. Five keys, no more.
fn open_end(config: &Config, upgrades: &str) -> String {
    format!(
        r#"","upgrades":[{upgrades}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
        config.ping_interval.as_millis(),
        config.ping_timeout.as_millis(),
        config.max_payload,
    )
}

const OPEN_START: &str = r#"0{"sid":""#;
/// Close code of a WebSocket for a session that has one.
const SESSION_TAKEN: u16 = 1008;
/// How long a refused WebSocket may take to open and close.
const REFUSE_TIME: Duration = Duration::from_secs(5);
