//! The public listeners over TCP and UDP, and their certificate.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::engine::Engine;
use crate::http::tls::Certificates;
use crate::http::{listener, webtransport};
use crate::{ImksError, ImksResult};

/// The public listeners, bound but not served yet.
pub(super) struct Front {
    /// One listener per address; `localhost` has two addresses.
    tcp: Vec<TcpListener>,
    udp: Vec<webtransport::Listener>,
    served: Served,
}

/// The addresses and certificates of the listeners that are being served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) addr: SocketAddr,
    pub(super) udp_addr: Option<SocketAddr>,
    pub(super) certificates: Option<Certificates>,
}

impl Front {
    /// Reads the certificate, binds the addresses, and configures whether the engine offers WebTransport.
    pub(super) fn bind(config: &mut Config) -> ImksResult<Self> {
        let certificates = certificates(config)?;
        if let Some(certificates) = certificates.as_ref().filter(|_| config.tls.is_on()) {
            config.http.tls = Some(certificates.tls(&config.tls)?);
        }
        config.engine.webtransport = config.serves_webtransport();
        let tcp = listener::bind_loopbacks(config.listen)?;
        let bound = tcp.first().ok_or(ImksError::Internal("no listener"))?;
        let addr = bound.local_addr().map_err(ImksError::io("reading the listening address"))?;
        let udp = match certificates.as_ref().filter(|_| config.serves_webtransport()) {
            Some(certificates) => quic(config, addr, certificates)?,
            None => Vec::new(),
        };
        let udp_addr = udp.first().map(webtransport::Listener::addr).transpose()?;
        Ok(Self { tcp, udp, served: Served { addr, udp_addr, certificates } })
    }

    /// Serves clients in tasks spawned on `tasks`, until `stop` is cancelled.
    pub(super) fn serve(
        self,
        config: &Config,
        mut router: Router,
        engine: &Engine,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Served {
        if let Some(certificates) = &self.served.certificates {
            tasks.spawn(certificates.clone().watch(config.tls.reload, stop.clone()));
            if !self.udp.is_empty() {
                router = router.merge(webtransport::routes(certificates.clone()));
            }
        }
        for udp in self.udp {
            tasks.spawn(udp.serve(engine.clone(), tasks.clone(), stop.clone()));
        }
        let routes = listener::routes(engine.clone(), router, &config.http);
        for tcp in self.tcp {
            let routes = routes.clone();
            tasks.spawn(listener::serve(tcp, config.http.clone(), routes, tasks.clone(), stop.clone()));
        }
        self.served
    }
}

/// Opens the configured certificate, or creates one for development if WebTransport is on without one.
fn certificates(config: &Config) -> ImksResult<Option<Certificates>> {
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) {
        return Certificates::open(cert.clone(), key.clone()).map(Some);
    }
    if !config.serves_webtransport() {
        return Ok(None);
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.push(config.listen.ip().to_string());
    names.dedup();
    Certificates::self_signed(names).map(Some)
}

/// Binds the QUIC listeners to the configured address, or to the address of the TCP listener.
fn quic(
    config: &Config,
    tcp: SocketAddr,
    certificates: &Certificates,
) -> ImksResult<Vec<webtransport::Listener>> {
    let heartbeat = webtransport::Heartbeat {
        interval: config.engine.ping_interval,
        timeout: config.engine.ping_timeout,
    };
    let sockets = webtransport::bind_loopbacks(config.webtransport.listen.unwrap_or(tcp))?;
    let listen = |socket| webtransport::Listener::new(socket, certificates, &config.webtransport, heartbeat);
    sockets.into_iter().map(listen).collect()
}
