//! The engine: its live sessions, its accept queue, and the routing of requests to sessions.

mod client_bundle;
pub(crate) mod cors;
mod forward;
mod open;
mod open_packet;
mod reply;
mod request;
mod session_requests;
mod webtransport;

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Uri};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::TaskTracker;

use self::client_bundle::ClientBundle;
use self::cors::{CurrentCors, RefusedOrigins};
use self::open_packet::OpenPacket;
use self::reply::Reply;
use self::request::Query;
use crate::ImksResult;
use crate::engine::config::Timing;
use crate::engine::newcomers::Newcomers;
use crate::engine::registry::{LiveSession, Registry};
use crate::engine::request_error::RequestError;
use crate::engine::{Config, Connection, KnownClients, OutboxLimits, Transport};
use crate::node::NodeId;

/// An Engine.IO server. Cloning it is cheap.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    config: Config,
    cors: CurrentCors,
    node: NodeId,
    prefix: String,
    client_bundle: Option<ClientBundle>,
    refused_origins: RefusedOrigins,
    open_packet: OpenPacket,
    limits: Arc<OutboxLimits>,
    timing: Arc<Timing>,
    registry: Arc<Registry>,
    accepting: RwLock<Option<mpsc::Sender<Connection>>>,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    newcomers: Arc<Newcomers>,
    tasks: TaskTracker,
}

impl Engine {
    /// Checks the configuration and creates an engine without sessions.
    ///
    /// # Errors
    /// [`crate::ImksError::Config`] for values that cannot work.
    pub fn new(config: Config) -> ImksResult<Self> {
        config.validate()?;
        let (accepting, accepted) = mpsc::channel(config.accept_queue);
        Ok(Self(Arc::new(Inner {
            node: config.node.map_or_else(NodeId::random, Ok)?,
            prefix: config.prefix(),
            cors: CurrentCors::new(config.cors.clone()),
            refused_origins: RefusedOrigins::default(),
            client_bundle: config.client_bundle_dir.as_deref().map(ClientBundle::read).transpose()?,
            open_packet: OpenPacket::new(&config),
            limits: Arc::new(config.outbox),
            timing: Arc::new(Timing::from(&config)),
            registry: Arc::new(Registry::new()),
            accepting: RwLock::new(Some(accepting)),
            accepted: Mutex::new(accepted),
            newcomers: Arc::new(Newcomers::new()),
            tasks: TaskTracker::new(),
            config,
        })))
    }

    /// Returns the node that is part of this engine's session ids.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Whether the engine serves a request path. Paths are compared by prefix, as in the reference server.
    pub fn matches(&self, path: &str) -> bool {
        path.starts_with(&self.0.prefix)
    }

    /// Whether a request belongs to a session. All others begin one, or need none.
    #[cfg(feature = "socketio")]
    pub(crate) fn is_of_a_session(uri: &Uri) -> bool {
        Query::parse(uri.query().unwrap_or_default()).sid.is_some()
    }

    /// Answers one HTTP request. A polling GET waits until there is something to send.
    pub async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Reply
    where
        B: Body,
    {
        let (mut parts, body) = request.into_parts();
        let upgrade = request::is_upgrade(&parts);
        let socket = parts.extensions.remove::<OnUpgrade>().filter(|_| upgrade);
        let mut reply = match self.answer_alone(&parts) {
            Some(reply) => reply,
            None => {
                let answered = self.route(&parts, body, peer, socket).await;
                answered.unwrap_or_else(|error| reply::error(&error, &parts, upgrade))
            }
        };
        let cors = self.0.cors.get();
        reply::decorate(&self.0.config, cors.as_deref(), &parts, &mut reply);
        if !upgrade || cors.as_ref().is_some_and(|cors| cors.enforce) {
            self.0.refused_origins.note(cors.as_deref(), &parts.headers);
        }
        reply
    }

    /// Answers a request without a session: a preflight, or one for the browser build of the client.
    fn answer_alone(&self, parts: &Parts) -> Option<Reply> {
        let inner = &self.0;
        if let Some(reply) = inner.cors.get().and_then(|cors| reply::preflight(&cors, parts)) {
            return Some(reply);
        }
        let name = parts.uri.path().strip_prefix(&inner.prefix).filter(|name| !name.is_empty())?;
        match &inner.client_bundle {
            Some(bundle) => bundle.answer(name, parts),
            None => ClientBundle::has(name).then(reply::no_client_bundle),
        }
    }

    /// Returns the next new session; `None` after [`Engine::close`].
    pub async fn accept(&self) -> Option<Connection> {
        self.0.accepted.lock().await.recv().await
    }

    /// Returns the policy about pages of other origins.
    pub(crate) fn cors(&self) -> &CurrentCors {
        &self.0.cors
    }

    /// Refuses new sessions from now on (503). Existing sessions continue.
    pub fn close(&self) {
        self.0.accepting.write().take();
    }

    /// Sets how many sessions may be new at a time, which are those whose holder has not called [`Connection::settle`].
    /// Further ones are refused (503). The last quarter of the places is kept for clients that come back.
    pub(crate) fn set_new_max(&self, max: usize) {
        self.0.newcomers.set_max(max);
    }

    /// Returns the clients that are connected, or were shortly before.
    pub(crate) fn known_clients(&self) -> &Arc<KnownClients> {
        self.0.newcomers.known()
    }

    /// Returns the number of live sessions.
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
        cors::enforce(self.0.cors.get().as_deref(), &parts.headers)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let transport = self.transport(&query).ok_or(RequestError::TransportUnknown)?;
        let Some(sid) = query.sid.as_deref() else {
            return self.open(parts, &query, transport, peer, socket).await;
        };
        match self.0.registry.get(sid) {
            Some(session) => self.session_request(parts, body, &query, transport, socket, &session).await,
            // Boxed, so that it does not enlarge requests of own sessions.
            None => Box::pin(self.forward(sid, parts, body, socket)).await,
        }
    }

    /// Returns the transport that a request asks for, if it is served.
    fn transport(&self, query: &Query<'_>) -> Option<Transport> {
        let config = &self.0.config;
        query.transport().filter(|transport| match transport {
            Transport::Polling => config.polling,
            Transport::WebSocket => config.websocket,
            // Sessions on QUIC never arrive as an HTTP/1 request of a client.
            Transport::WebTransport | Transport::Quic => false,
        })
    }

    async fn session_request<B: Body>(
        &self,
        parts: &Parts,
        body: B,
        query: &Query<'_>,
        transport: Transport,
        socket: Option<OnUpgrade>,
        session: &LiveSession,
    ) -> Result<Reply, RequestError> {
        let same_version =
            |version| std::mem::discriminant(&version) == std::mem::discriminant(&session.protocol());
        if !query.version().is_some_and(same_version) {
            return Err(RequestError::BadRequest);
        }
        match (transport, socket, session.inbox()) {
            (Transport::WebSocket, Some(socket), _) => self.upgrade(parts, session, socket),
            (Transport::Polling, None, Some(inbox)) => self.poll(parts, body, inbox.clone()).await,
            _ => Err(RequestError::BadRequest),
        }
    }
}
