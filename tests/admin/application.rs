//! What the instrumented server does; the reference's side is tests/js/admin_reference.js.

use std::net::SocketAddr;

use imks::http::{SocketIo, listener};
use imks::socket::{Event, NamespaceBuilder, Server, admin};

/// imks on a free port, for as long as the runtime.
pub(crate) fn serve(admin: admin::Config) -> SocketAddr {
    let server = Server::builder(Default::default())
        .namespace("/", talk)
        .namespace("/chat", talk)
        .instrument(admin)
        .build()
        .unwrap();
    let io = SocketIo::start(server, Default::default()).unwrap();
    // The port must be known before it is listened on.
    let listener = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    tokio_util::task::TaskTracker::new().spawn(async move { io.listen(address).await });
    address
}

fn talk(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("join", |event| done(event, |socket, room| socket.join(&room)));
    namespace.on_sync("leave", |event| done(event, |socket, room| socket.leave(&room)));
    namespace.on_sync("name", |event| done(event, |socket, name| socket.share_data("name", name)));
    namespace.on_sync("echo", |event| event.socket().emit_args("echoed", event.args()).unwrap());
    namespace.on_sync("bye", |event| event.socket().disconnect(false));
}

fn done(mut event: Event, act: impl FnOnce(&imks::socket::Socket, String)) {
    act(event.socket(), event.first().unwrap());
    event.take_ack().unwrap().send_args(&()).unwrap();
}
