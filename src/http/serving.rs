//! Servers that listen: the handle of one that does, and the calls that start it in one line.

use std::future::Future;
use std::net::SocketAddr;

use crate::ImksResult;
use crate::http::front::Served;
use crate::http::{SocketIo, SocketIoBuilder};
use crate::socket::{Server, ServerBuilder};

impl ServerBuilder {
    /// Builds the server, and serves clients on an address from now on: plain HTTP and WebSockets, with the default
    /// settings. Port 0 stands for any free port. Requires a tokio runtime.
    ///
    /// [`SocketIo::builder`] has a certificate, WebTransport and every other setting.
    ///
    /// ```no_run
    /// use imks::socket::{Reply, Server, Socket};
    ///
    /// # async fn shutdown() {}
    /// # async fn run() -> imks::ImksResult<()> {
    /// let server = Server::builder(Default::default()).namespace("/", |ns| {
    ///     ns.on_typed("double", |_: Socket, number: i64| async move { Reply(2 * number) });
    /// });
    /// server.listen(([127, 0, 0, 1], 3000))?.until(shutdown()).await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`ServerBuilder::build`], and [`crate::ImksError::Io`] naming the address.
    pub fn listen(self, addr: impl Into<SocketAddr>) -> ImksResult<Serving> {
        self.build()?.listen(addr)
    }
}

impl Server {
    /// Serves clients on an address from now on: plain HTTP and WebSockets, with the default settings. Port 0 stands
    /// for any free port. Requires a tokio runtime.
    ///
    /// # Errors
    /// [`crate::ImksError::Io`] naming the address.
    pub fn listen(self, addr: impl Into<SocketAddr>) -> ImksResult<Serving> {
        SocketIo::builder(self).listen(addr)
    }
}

impl SocketIoBuilder {
    /// Builds the server, and serves clients on an address from now on. Port 0 stands for any free port.
    ///
    /// # Errors
    /// Those of [`SocketIoBuilder::build`], and [`crate::ImksError::Io`] naming the address.
    pub fn listen(self, addr: impl Into<SocketAddr>) -> ImksResult<Serving> {
        Ok(self.build()?.bind(addr)?.start())
    }
}

/// A server that serves clients. Dropping it changes nothing: it serves until it is closed, or the runtime ends.
#[derive(Debug)]
pub struct Serving {
    io: SocketIo,
    served: Served,
}

impl Serving {
    pub(super) fn new(io: SocketIo, served: Served) -> Self {
        Self { io, served }
    }

    /// Returns the TCP address, with the actual port.
    pub fn addr(&self) -> SocketAddr {
        self.served.addr
    }

    /// Returns the UDP address, if WebTransport is served.
    pub fn webtransport_addr(&self) -> Option<SocketAddr> {
        self.served.udp_addr
    }

    /// Returns the UDP address of QUIC without HTTP/3, if it is served.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.served.quic_addr
    }

    /// Returns the Socket.IO server with its namespaces.
    pub fn server(&self) -> &Server {
        self.io.server()
    }

    /// Returns the server with its engine. Clones of it can close the server from elsewhere.
    pub fn io(&self) -> &SocketIo {
        &self.io
    }

    /// Waits until the server is closed and every connection has ended.
    pub async fn stopped(&self) {
        self.io.stopped().await;
    }

    /// Closes the server gracefully: see [`SocketIo::close`].
    pub async fn close(&self) {
        self.io.close().await;
    }

    /// Serves until `signal` completes, for example `tokio::signal::ctrl_c()`, and then closes the server gracefully;
    /// or until somebody else closes it.
    pub async fn until(self, signal: impl Future) {
        tokio::select! {
            _ = signal => self.close().await,
            () = self.stopped() => {}
        }
    }
}
