//! A Socket.IO server that plays along with `imks bench`, well or badly.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use imks::ImksResult;
use imks::engine;
use imks::http::{SocketIo, quic, webtransport};
use imks::socket::{Config, NamespaceBuilder, Recovery, Reply, Server, Socket};
use tokio_util::task::TaskTracker;

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    Nothing,
    /// Every fifth answer is another text.
    WrongAnswers,
    /// Every fifth broadcast is sent twice.
    Doubles,
    /// Every fifth broadcast is not sent.
    Loses,
    /// Nobody answers `broadcast`.
    Ignorant,
    /// Sessions are not restored.
    Forgets,
}

/// Starts a server in this process, and returns its URL.
pub(crate) fn start(fault: Fault) -> String {
    start_with_quic(fault).0
}

/// Starts a server in this process, and returns its URL and its port for QUIC without HTTP/3.
pub(crate) fn start_with_quic(fault: Fault) -> (String, u16) {
    let recovery = (fault != Fault::Forgets).then(Recovery::default);
    let config = Config { recovery, ..Config::default() };
    let server =
        Server::builder(config).namespace("/", move |namespace| play(namespace, fault)).build().unwrap();
    let webtransport =
        webtransport::Config { mode: webtransport::Mode::On, ..webtransport::Config::default() };
    let io = SocketIo::builder(server).with_engine(engine::Config::default());
    let listen = Some(([127, 0, 0, 1], 0).into());
    let io = io.with_webtransport(webtransport).with_quic(quic::Config { listen, ..quic::Config::default() });
    let bound = io.build().unwrap().bind(([127, 0, 0, 1], 0)).unwrap();
    let (address, quic): (SocketAddr, SocketAddr) = (bound.addr(), bound.quic_addr().unwrap());
    TaskTracker::new().spawn(bound.serve());
    (format!("http://{address}"), quic.port())
}

fn play(namespace: &mut NamespaceBuilder, fault: Fault) {
    let (answers, broadcasts) = (AtomicU64::new(0), AtomicU64::new(0));
    namespace.on_sync("echo", move |mut event| {
        let is_fifth = answers.fetch_add(1, Ordering::SeqCst) % 5 == 4;
        let Some(ack) = event.take_ack() else { return };
        match is_fifth && fault == Fault::WrongAnswers {
            true => ack.send_args(&("sorry",)).unwrap(),
            false => ack.send_args(event.args()).unwrap(),
        }
    });
    namespace.on_typed("join", |socket: Socket, room: String| async move {
        socket.join(&room);
        Reply(())
    });
    if fault == Fault::Ignorant {
        return;
    }
    namespace.on_typed("broadcast", move |socket: Socket, (room, text): (String, String)| {
        let is_fifth = broadcasts.fetch_add(1, Ordering::SeqCst) % 5 == 4;
        let times = match fault {
            Fault::Doubles if is_fifth => 2,
            Fault::Loses if is_fifth => 0,
            _ => 1,
        };
        async move {
            (0..times).try_for_each(|_| socket.namespace().emit_to_room(&room, "msg", &text))
                as ImksResult<()>
        }
    });
}
