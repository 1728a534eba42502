//! The public listeners over TCP and UDP, and the certificate that they share.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background;
use crate::engine::{self, Engine};
use crate::http::tls::{self, Certificates};
use crate::http::{listener, quic, webtransport};
use crate::{ImksError, ImksResult};

/// The settings of the public listeners.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// The limits of connections over TCP.
    pub http: listener::Config,
    /// The certificate, and how it is used.
    pub tls: tls::Config,
    /// The limits of connections over QUIC, and whether there are any for WebTransport.
    pub webtransport: webtransport::Config,
    /// Where QUIC is served without HTTP/3.
    pub quic: quic::Config,
}

impl Config {
    /// Opens the configured certificate, or creates one for development if QUIC is served without one: for
    /// `localhost` and the address of `listen`.
    ///
    /// # Errors
    /// [`ImksError::Config`] that names the file and its problem.
    pub(crate) fn certificates(&self, listen: Option<SocketAddr>) -> ImksResult<Option<Certificates>> {
        if let (Some(cert), Some(key)) = (&self.tls.cert, &self.tls.key) {
            return Certificates::open(cert.clone(), key.clone()).map(Some);
        }
        if !self.webtransport.is_on(&self.tls) && self.quic.listen.is_none() {
            return Ok(None);
        }
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(listen.map(|addr| addr.ip().to_string()));
        names.dedup();
        Certificates::self_signed(names).map(Some)
    }
}

/// The public listeners, bound but not served yet.
pub(crate) struct Front {
    /// One listener per address; `localhost` has two addresses.
    tcp: Vec<TcpListener>,
    udp: Vec<webtransport::Listener>,
    quic: Option<webtransport::Listener>,
    config: Config,
    served: Served,
}

/// The addresses and certificates of the listeners.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The TCP address.
    pub addr: SocketAddr,
    /// The UDP address, if WebTransport is served.
    pub udp_addr: Option<SocketAddr>,
    /// The UDP address of QUIC without HTTP/3, if it is served.
    pub quic_addr: Option<SocketAddr>,
    /// The certificate, if there is one.
    pub certificates: Option<Certificates>,
}

impl Front {
    /// Binds the addresses: `listen` over TCP and, if WebTransport is on, over UDP.
    ///
    /// # Errors
    /// [`ImksError::Io`] naming the address, [`ImksError::Config`] if a certificate cannot be used.
    pub(crate) fn bind(
        listen: SocketAddr,
        mut config: Config,
        certificates: Option<Certificates>,
        engine: &engine::Config,
    ) -> ImksResult<Self> {
        if let Some(certificates) = certificates.as_ref().filter(|_| config.tls.is_on()) {
            config.http.tls = Some(certificates.tls(&config.tls)?);
        }
        let http3 = certificates.as_ref().filter(|_| config.webtransport.is_on(&config.tls));
        let (addr, tcp, sockets) = bind_both(listen, http3.map(|_| &config.webtransport))?;
        let udp = match http3 {
            Some(certificates) => with_http3(sockets, &config.webtransport, certificates, engine)?,
            None => Vec::new(),
        };
        let udp_addr = udp.first().map(webtransport::Listener::addr).transpose()?;
        let quic = match (config.quic.listen, &certificates) {
            (Some(listen), Some(certificates)) => Some(without_http3(listen, &config, certificates, engine)?),
            _ => None,
        };
        let quic_addr = quic.as_ref().map(webtransport::Listener::addr).transpose()?;
        Ok(Self { tcp, udp, quic, config, served: Served { addr, udp_addr, quic_addr, certificates } })
    }

    /// Returns the addresses and certificates of the listeners.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    /// Serves clients in tasks spawned on `tasks`, until `stop` is cancelled. Follows changes of the certificate.
    pub(crate) fn serve(
        mut self,
        mut router: Router,
        engine: &Engine,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Served {
        if let Some(certificates) = &self.served.certificates {
            let (watched, reload) = (certificates.clone(), self.config.tls.reload);
            let watch = move |stop| watched.clone().watch(reload, stop);
            tasks.spawn(background::keep("certificates", stop.clone(), watch));
            if !self.udp.is_empty() || self.quic.is_some() {
                router = router.merge(webtransport::routes(certificates.clone()));
            }
        }
        for udp in self.udp.into_iter().chain(self.quic) {
            let serving = udp.serve(engine.clone(), tasks.clone(), stop.clone());
            tasks.spawn(background::essential("quic", serving));
        }
        self.config.http.connections.know(engine);
        let routes = listener::routes(engine.clone(), router, &self.config.http);
        for tcp in self.tcp {
            let (config, routes) = (self.config.http.clone(), routes.clone());
            let serving = listener::serve(tcp, config, routes, tasks.clone(), stop.clone());
            tasks.spawn(background::essential("http", serving));
        }
        self.served
    }
}

/// Binds the TCP address and, for WebTransport, the configured UDP address or the same one as over TCP. Returns the address as
/// well. Of free ports (port 0), one is taken that is free over both.
fn bind_both(
    listen: SocketAddr,
    http3: Option<&webtransport::Config>,
) -> ImksResult<(SocketAddr, Vec<TcpListener>, Vec<UdpSocket>)> {
    let may_differ = listen.port() == 0 && http3.is_some_and(|config| config.listen.is_none());
    let mut more = if may_differ { FREE_PORTS_TRIED } else { 0 };
    loop {
        let tcp = listener::bind_loopbacks(listen)?;
        let bound = tcp.first().ok_or(ImksError::Internal("no listener"))?;
        let addr = bound.local_addr().map_err(ImksError::io("reading the listening address"))?;
        let Some(config) = http3 else { return Ok((addr, tcp, Vec::new())) };
        match webtransport::bind_loopbacks(config.listen.unwrap_or(addr)) {
            Err(ImksError::Io { source, .. }) if more > 0 && source.kind() == io::ErrorKind::AddrInUse => {
                more -= 1;
            }
            udp => return Ok((addr, tcp, udp?)),
        }
    }
}

/// Returns the listeners for WebTransport.
fn with_http3(
    sockets: Vec<UdpSocket>,
    config: &webtransport::Config,
    certificates: &Certificates,
    engine: &engine::Config,
) -> ImksResult<Vec<webtransport::Listener>> {
    let heartbeat = heartbeat(engine);
    let listen = |socket| webtransport::Listener::new(socket, certificates, config, heartbeat);
    sockets.into_iter().map(listen).collect()
}

/// Binds the listener for QUIC without HTTP/3.
fn without_http3(
    listen: SocketAddr,
    config: &Config,
    certificates: &Certificates,
    engine: &engine::Config,
) -> ImksResult<webtransport::Listener> {
    let (socket, limits) = (webtransport::bind(listen)?, &config.webtransport);
    webtransport::Listener::raw(socket, certificates, &config.quic, limits, heartbeat(engine))
}

fn heartbeat(engine: &engine::Config) -> webtransport::Heartbeat {
    webtransport::Heartbeat { interval: engine.ping_interval, timeout: engine.ping_timeout }
}

/// How many further free ports are tried.
const FREE_PORTS_TRIED: usize = 16;
