//! A complete Socket.IO server, which listens itself or is a service inside another application.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::engine::{self, Engine};
use crate::http::config::BoxFuture;
use crate::http::front::{self, Front};
use crate::http::serving::Serving;
use crate::http::tls::{self, Certificates};
use crate::http::{listener, quic, webtransport};
use crate::socket::Server;
use crate::{ImksError, ImksResult};

/// A [`Server`] with the [`Engine`] below it. Cheap to clone.
///
/// It listens by itself, over TCP and with a certificate also over QUIC (WebTransport): see [`SocketIo::builder`].
///
/// As a [`tower::Layer`] it stands in front of another service, for example as `Router::layer(io)` of axum. As a
/// [`tower::Service`] it answers the requests of Socket.IO clients alone, including WebSocket upgrades. Either takes the
/// address of a client from an extension of the request: axum's `ConnectInfo<SocketAddr>`, or a plain `SocketAddr`.
#[derive(Clone)]
pub struct SocketIo {
    server: Server,
    engine: Engine,
    front: Arc<Settings>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the listeners need.
struct Settings {
    front: front::Config,
    engine: engine::Config,
    certificates: Option<Certificates>,
    routes: Router,
}

impl SocketIo {
    /// Starts the settings of a server that listens by itself.
    ///
    /// ```no_run
    /// # async fn run(server: imks::socket::Server) -> imks::ImksResult<()> {
    /// use imks::http::SocketIo;
    ///
    /// SocketIo::builder(server)
    ///     .with_cert_path("cert.pem")
    ///     .with_key_path("key.pem")
    ///     .listen(([0, 0, 0, 0], 443))?
    ///     .stopped()
    ///     .await;
    /// # Ok(()) }
    /// ```
    pub fn builder(server: Server) -> SocketIoBuilder {
        let (engine, front) = (engine::Config::default(), front::Config::default());
        SocketIoBuilder { server, engine, front, self_signed: None, routes: Router::new() }
    }

    /// Creates an engine and starts to serve its connections, without a certificate. Requires a tokio runtime.
    ///
    /// # Errors
    /// [`crate::ImksError::Config`] for values that cannot work.
    pub fn start(server: Server, config: engine::Config) -> ImksResult<Self> {
        Self::builder(server).with_engine(config).build()
    }

    /// Listens on an address until [`SocketIo::close`]: over TCP, and with a certificate also over UDP.
    /// [`SocketIoBuilder::listen`] returns at once, with a handle.
    ///
    /// # Errors
    /// [`crate::ImksError::Io`] naming the address.
    pub async fn listen(&self, addr: impl Into<SocketAddr>) -> ImksResult<()> {
        self.bind(addr)?.serve().await;
        Ok(())
    }

    /// Binds an address, which nobody answers before [`Bound::serve`]. Port 0 stands for any free port.
    ///
    /// # Errors
    /// [`crate::ImksError::Io`] naming the address.
    pub fn bind(&self, addr: impl Into<SocketAddr>) -> ImksResult<Bound> {
        let Settings { front, engine, certificates, .. } = &*self.front;
        let front = Front::bind(addr.into(), front.clone(), certificates.clone(), engine)?;
        Ok(Bound { io: self.clone(), front })
    }

    /// Reads the files with the certificate again, and uses it for new connections; open ones continue. Not
    /// needed where [`tls::Config::reload`] is soon enough.
    ///
    /// # Errors
    /// [`crate::ImksError::Config`] that names the file and its problem. The old certificate then stays in use.
    pub fn reload_certificate(&self) -> ImksResult<()> {
        self.front.certificates.as_ref().map_or(Ok(()), Certificates::reload)
    }

    /// Closes every connection after its queued packets are sent, stops listening, and waits for both.
    pub async fn close(&self) {
        self.server.close().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits until the server is closed and every connection has ended.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
        self.tasks.wait().await;
    }

    /// Returns the Socket.IO server with its namespaces.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns the engine, for use with a custom listener.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// The settings of a [`SocketIo`] that listens by itself. Without any, it serves plain HTTP and WebSockets with the
/// limits of [`listener::Config`].
pub struct SocketIoBuilder {
    server: Server,
    engine: engine::Config,
    front: front::Config,
    /// The names in a certificate that is made for development.
    self_signed: Option<Vec<String>>,
    routes: Router,
}

impl SocketIoBuilder {
    /// Sets the PEM file with the certificate and its chain. Together with [`SocketIoBuilder::with_key_path`] it
    /// turns on HTTPS and secure WebSockets over TCP, and WebTransport over UDP on the same port.
    pub fn with_cert_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.front.tls.cert = Some(path.into());
        self
    }

    /// Sets the PEM file with the private key of the certificate.
    pub fn with_key_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.front.tls.key = Some(path.into());
        self
    }

    /// Makes a certificate for development, with these names and addresses, and serves with it what a certificate from
    /// files turns on. It is valid for 13 days, and renewed before its end. Clients refuse it unless they know its hash
    /// (`/webtransport/certificate-hashes`), or check nothing.
    pub fn with_self_signed<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.self_signed = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Sets all of TLS: both files, the oldest version, deadlines, and how often the files are looked at.
    pub fn with_tls(mut self, config: tls::Config) -> Self {
        self.front.tls = config;
        self
    }

    /// Sets the limits of QUIC, its address if it is not that of TCP, and whether there is any: `Mode::On` without a
    /// certificate makes one for development, which pages know by its hash (`/webtransport/certificate-hashes`).
    pub fn with_webtransport(mut self, config: webtransport::Config) -> Self {
        self.front.webtransport = config;
        self
    }

    /// Sets where QUIC is served without HTTP/3, for clients in Rust. Without a certificate, one is made for
    /// development.
    pub fn with_quic(mut self, config: quic::Config) -> Self {
        self.front.quic = config;
        self
    }

    /// Sets the limits of connections over TCP.
    pub fn with_http(mut self, config: listener::Config) -> Self {
        self.front.http = config;
        self
    }

    /// Sets the configuration of the engine: heartbeat, sizes, origins. Whether it offers WebTransport follows from
    /// the certificate.
    pub fn with_engine(mut self, config: engine::Config) -> Self {
        self.engine = config;
        self
    }

    /// Sets what is served beside Socket.IO on the same port.
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.routes = routes;
        self
    }

    /// Reads the certificate, creates an engine and starts to serve its connections. Requires a tokio runtime.
    ///
    /// # Errors
    /// [`crate::ImksError::Config`] for values that cannot work, and for files that cannot be used.
    pub fn build(mut self) -> ImksResult<SocketIo> {
        let certificates = self.certificates()?;
        self.engine.webtransport |= self.front.webtransport.is_on(&self.front.tls);
        let (engine, tasks, stop) =
            (Engine::new(self.engine.clone())?, TaskTracker::new(), CancellationToken::new());
        let (serving, accepted) = (self.server.clone(), engine.clone());
        let (listeners, others) = (stop.clone(), tasks.clone());
        tasks.spawn(async move {
            serving.serve(accepted).await;
            // `Server::close` ends no listeners, and may be all that is called.
            listeners.cancel();
            others.close();
        });
        let Self { server, engine: config, front, routes, .. } = self;
        let front = Arc::new(Settings { front, engine: config, certificates, routes });
        Ok(SocketIo { server, engine, front, tasks, stop })
    }

    /// Opens the certificate, or makes the one for development, and turns on what it is used for.
    fn certificates(&mut self) -> ImksResult<Option<Certificates>> {
        let front = &mut self.front;
        let wrong = |text: &str| Err(ImksError::Config(text.to_owned()));
        if let Some(problem) = front.quic.problem() {
            return wrong(problem);
        }
        if front.tls.cert.is_some() != front.tls.key.is_some() {
            return wrong("a certificate needs its private key, and the other way round");
        }
        let Some(names) = self.self_signed.take() else { return front.certificates(None) };
        if front.tls.is_on() {
            return wrong("a certificate is either read from files or made for development, not both");
        }
        let certificates = Certificates::self_signed(names)?;
        front.http.tls = Some(certificates.tls(&front.tls)?);
        if front.webtransport.mode == webtransport::Mode::Auto {
            front.webtransport.mode = webtransport::Mode::On;
        }
        Ok(Some(certificates))
    }
}

impl fmt::Debug for SocketIoBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SocketIoBuilder").field("front", &self.front).finish_non_exhaustive()
    }
}

/// The bound addresses of a [`SocketIo`].
pub struct Bound {
    io: SocketIo,
    front: Front,
}

impl Bound {
    /// Returns the TCP address, with the actual port.
    pub fn addr(&self) -> SocketAddr {
        self.front.served().addr
    }

    /// Returns the UDP address, if WebTransport is served.
    pub fn webtransport_addr(&self) -> Option<SocketAddr> {
        self.front.served().udp_addr
    }

    /// Returns the UDP address of QUIC without HTTP/3, if it is served.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.front.served().quic_addr
    }

    /// Serves clients from now on.
    pub fn start(self) -> Serving {
        let Self { io, front } = self;
        let served = front.serve(io.front.routes.clone(), &io.engine, &io.tasks, &io.stop);
        Serving::new(io, served)
    }

    /// Serves clients until [`SocketIo::close`].
    pub async fn serve(self) {
        self.start().stopped().await;
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bound").field("served", self.front.served()).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for SocketIo
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (engine, peer) = (self.engine.clone(), peer(&request));
        Box::pin(async move { Ok(engine.handle(request, peer).await) })
    }
}

/// Returns the address of the client that sent a request, as its listener noted it.
pub(super) fn peer<B>(request: &Request<B>) -> SocketAddr {
    let extensions = request.extensions();
    let of_axum = extensions.get().map(|ConnectInfo(peer)| *peer);
    of_axum.or_else(|| extensions.get().copied()).unwrap_or(UNKNOWN_PEER)
}

impl fmt::Debug for SocketIo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SocketIo").field("sessions", &self.engine.sessions()).finish_non_exhaustive()
    }
}

/// The address of a client whose listener does not provide one.
const UNKNOWN_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
