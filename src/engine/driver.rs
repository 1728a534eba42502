//! A connection: drives one session when it is polled. Wire, queue and one timer; no task of its own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Uri};
use tokio::time::{Instant, Sleep};

use super::{
    CloseReason, Config, Handshake, MemoryPeer, Message, Outbox, Packet, Sid, Transport,
    memory::{MemoryLink, Received},
    outbox::Shared,
    session::{Output, Session, Timing, Wire},
};

/// One session, owned by one task. It does its I/O when it is polled.
pub struct Connection {
    session: Session,
    link: Arc<MemoryLink>,
    outbox: Outbox,
    handshake: Arc<Handshake>,
    sleep: Pin<Box<Sleep>>,
    events: u32,
    closed: Option<CloseReason>,
}

/// What a connection tells its holder.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message from the peer.
    Message(Message),
    /// The end; comes once and last.
    Closed(CloseReason),
}

impl Connection {
    /// Facts of the first request.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.handshake
    }

    /// The sending half.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Reads, writes, keeps the heartbeat; gives the next event. Call it until it is pending: what was queued
    /// meanwhile is written just before that, all at once. With `reading` false no message comes, everything
    /// else goes on, and a pong that cannot be read is not missed. After [`Event::Closed`], drop it.
    pub fn poll_event(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Event> {
        self.outbox.0.enter();
        let now = Instant::now();
        self.session.handle_reading(reading, now);
        while reading && self.events < EVENTS_PER_TURN {
            match self.link.receive(cx.waker()) {
                Some(Received::Message(message)) => {
                    self.events += 1;
                    self.session.handle_packet(Wire::Current, Packet::Message(message), now);
                }
                Some(Received::Closed) => {
                    self.session.handle_lost(Wire::Current, CloseReason::TransportClose)
                }
                None => break,
            }
            if let Some(event) = self.outputs(now) {
                return Poll::Ready(event);
            }
        }
        if std::mem::take(&mut self.events) >= EVENTS_PER_TURN {
            cx.waker().wake_by_ref();
        }
        self.finish_turn(cx, now)
    }

    /// A connection without a network, and its peer.
    pub fn in_memory(config: &Config) -> (Self, MemoryPeer) {
        let sid =
            Sid::random().unwrap_or_else(|_| Sid::custom("in-memory").unwrap_or_else(|_| unreachable!()));
        let uri = Uri::from_static("/socket.io/?EIO=4&transport=websocket");
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        let handshake = Handshake::new(sid, peer, Transport::WebSocket, &uri, &HeaderMap::new());
        let link = Arc::new(MemoryLink::default());
        let timing = Timing {
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            upgrade_timeout: config.upgrade_timeout,
            close_timeout: config.close_timeout,
        };
        let now = Instant::now();
        let connection = Self {
            session: Session::new(Transport::WebSocket, timing, now),
            link: link.clone(),
            outbox: Outbox(Arc::new(Shared::new(Transport::WebSocket, Arc::new(config.outbox), None))),
            handshake: Arc::new(handshake),
            sleep: Box::pin(tokio::time::sleep_until(now)),
            events: 0,
            closed: None,
        };
        (connection, MemoryPeer::new(link))
    }

    fn finish_turn(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Event> {
        let taken = self.outbox.0.take_and_arm(cx.waker(), true, false);
        self.link.send(taken.frames);
        if taken.slow {
            self.session.handle_lost(Wire::Current, CloseReason::Slow);
        } else if let Some(close) = taken.closing {
            self.session.handle_close(close, now);
            self.session.handle_drained();
        }
        loop {
            self.session.handle_timeout(now);
            if let Some(event) = self.outputs(now) {
                return Poll::Ready(event);
            }
            let Some(deadline) = self.session.poll_timeout() else { return Poll::Pending };
            self.sleep.as_mut().reset(deadline);
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn outputs(&mut self, now: Instant) -> Option<Event> {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Ping => self.session.handle_packet(Wire::Current, Packet::Pong("".into()), now),
                Output::Deliver(message) => return Some(Event::Message(message)),
                Output::Closed(reason) => {
                    self.closed = Some(reason);
                    self.outbox.0.finish();
                    self.link.close();
                    return Some(Event::Closed(reason));
                }
                _ => {}
            }
        }
        None
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outbox.0.finish();
        self.link.close();
    }
}

/// Messages handed over before others get their turn.
const EVENTS_PER_TURN: u32 = 64;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::engine::{Close, Frame};

    #[tokio::test]
    async fn a_connection_in_memory_echoes_and_closes() {
        let (mut connection, peer) = Connection::in_memory(&Config::default());
        peer.send("hello");
        let event = poll_fn(|cx| connection.poll_event(cx, true)).await;
        assert_eq!(event, Event::Message(Message::Text("hello".into())));
        connection.outbox().send(Frame::text("back")).unwrap();
        connection.outbox().close(Close::Graceful);
        let event = poll_fn(|cx| connection.poll_event(cx, true)).await;
        assert_eq!(event, Event::Closed(CloseReason::ForcedClose));
        assert_eq!(peer.recv().await, Some(Message::Text("back".into())));
        assert_eq!(peer.recv().await, None);
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_noticed() {
        let (mut connection, peer) = Connection::in_memory(&Config::default());
        drop(peer);
        let event = poll_fn(|cx| connection.poll_event(cx, true)).await;
        assert_eq!(event, Event::Closed(CloseReason::TransportClose));
        assert!(connection.outbox().is_closed());
    }
}
