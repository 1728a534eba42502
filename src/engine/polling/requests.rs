//! HTTP long-polling. A request hands itself over to the connection through a slot of the shared state and
//! waits; the connection answers when it runs. One GET and one POST at a time, as the protocol asks; a second
//! one ends the session, and so does a client that goes away in the middle.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::ImksResult;
use crate::engine::duplex::Duplex;
use crate::engine::outbox::{Queue, Shared};
use crate::engine::{Frame, Packet, Protocol, Transport, codec, legacy};

/// Body of the answer to a GET.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) body: Vec<u8>,
    /// Not text: only in version 3.
    pub(crate) binary: bool,
    /// The sender of some packet in it does not mind.
    pub(crate) compressible: bool,
}

impl Payload {
    /// What a client of this version is sent.
    pub(crate) fn new<'a>(
        protocol: Protocol,
        frames: impl IntoIterator<Item = &'a Frame, IntoIter: Clone>,
    ) -> Self {
        let frames = frames.into_iter();
        let compressible = frames.clone().any(Frame::is_compressible);
        let (body, binary) = match protocol {
            Protocol::V4 => (codec::encode_payload(frames).into_bytes(), false),
            Protocol::V3 { base64 } => legacy::encode_payload(frames, base64),
        };
        Self { body, binary, compressible }
    }
}

/// Where HTTP requests of a polling session arrive. Holds at most one of each.
#[derive(Default)]
pub(crate) struct Inbox {
    get: Option<oneshot::Sender<Payload>>,
    /// A GET waits, here or with the connection.
    get_open: bool,
    /// Answers the POST whose body is being read; dropped with the session.
    post_reply: Option<oneshot::Sender<()>>,
    post: Option<Post>,
    /// A POST is being read, waits here, or waits with the connection.
    post_open: bool,
    /// A wire that wants to take over.
    offer: Option<Box<Duplex>>,
    /// There is one, here or with the connection.
    offer_open: bool,
    /// Requests overlapped, or a client went away in the middle of one.
    fault: bool,
}

impl Inbox {
    /// Whether the connection has something to look at.
    pub(crate) fn has_news(&self) -> bool {
        self.get.is_some() || self.post.is_some() || self.offer.is_some() || self.fault
    }
}

/// Decoded body of a POST.
pub(crate) struct Post {
    pub(crate) packets: Vec<Packet>,
    /// What followed the packets was none.
    pub(crate) malformed: bool,
    pub(crate) reply: oneshot::Sender<()>,
}

/// What has arrived since the connection last looked.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) get: Option<oneshot::Sender<Payload>>,
    pub(crate) post: Option<Post>,
    pub(crate) offer: Option<Box<Duplex>>,
    pub(crate) fault: bool,
}

/// Why a request of a known session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session has ended meanwhile.
    Unknown,
    /// The session is carried by another wire, or about to be.
    Upgraded,
    /// Another request of the same kind is open.
    Overlap,
}

/// A GET that waits for its payload. Dropping it unanswered (the client went away) ends the session.
pub(crate) struct PendingGet {
    shared: Arc<Shared>,
    answer: oneshot::Receiver<Payload>,
    armed: bool,
}

/// A POST from its first byte to its answer. Dropping it unanswered ends the session.
pub(crate) struct PendingPost {
    shared: Arc<Shared>,
    answer: oneshot::Receiver<()>,
    armed: bool,
}

impl PendingGet {
    /// Opens the one GET a session may have.
    pub(crate) fn open(shared: Arc<Shared>) -> Result<Self, Refusal> {
        let (reply, answer) = oneshot::channel();
        with_inbox(&shared, |inbox| {
            if std::mem::replace(&mut inbox.get_open, true) {
                inbox.fault = true;
                return Err(Refusal::Overlap);
            }
            inbox.get = Some(reply);
            Ok(())
        })?;
        Ok(Self { shared, answer, armed: true })
    }

    /// Waits for the payload.
    pub(crate) async fn payload(mut self) -> Result<Payload, Refusal> {
        let answer = (&mut self.answer).await;
        self.armed = false;
        answer.map_err(|_| gone(&self.shared))
    }
}

impl Drop for PendingGet {
    fn drop(&mut self) {
        if self.armed {
            abandon(&self.shared);
        }
    }
}

impl PendingPost {
    /// Opens the one POST a session may have, before its body is read.
    pub(crate) fn open(shared: Arc<Shared>) -> Result<Self, Refusal> {
        let (reply, answer) = oneshot::channel();
        with_inbox(&shared, |inbox| {
            if std::mem::replace(&mut inbox.post_open, true) {
                inbox.fault = true;
                return Err(Refusal::Overlap);
            }
            inbox.post_reply = Some(reply);
            Ok(())
        })?;
        Ok(Self { shared, answer, armed: true })
    }

    /// Waits until polling carries the session no more.
    pub(crate) async fn gone(&mut self) -> Refusal {
        let _ = (&mut self.answer).await;
        gone(&self.shared)
    }

    /// Version of the session.
    pub(crate) fn protocol(&self) -> Protocol {
        self.shared.protocol
    }

    /// The body was refused; the session goes on.
    pub(crate) fn cancel(mut self) {
        self.armed = false;
        let _ = with_inbox(&self.shared, |inbox| {
            inbox.post_open = false;
            inbox.post_reply = None;
            Ok(())
        });
    }

    /// Hands the body over and waits until its packets are accepted.
    pub(crate) async fn submit(mut self, body: &[u8], binary: bool) -> Result<(), Refusal> {
        let (packets, malformed) = match self.shared.protocol {
            Protocol::V4 => collect(codec::decode_payload(body)),
            Protocol::V3 { .. } => collect(legacy::decode_payload(body, binary)),
        };
        with_inbox(&self.shared, |inbox| {
            inbox.post = inbox.post_reply.take().map(|reply| Post { packets, malformed, reply });
            Ok(())
        })?;
        let answer = (&mut self.answer).await;
        self.armed = false;
        answer.map_err(|_| gone(&self.shared))
    }
}

impl Drop for PendingPost {
    fn drop(&mut self) {
        if self.armed {
            abandon(&self.shared);
        }
    }
}

/// Offers a wire to a session. It must still be polling and have no other candidate.
pub(crate) fn offer(shared: &Arc<Shared>, wire: Box<Duplex>) -> Result<(), (Refusal, Box<Duplex>)> {
    let mut offer = Some(wire);
    let offered = with_inbox(shared, |inbox| {
        if std::mem::replace(&mut inbox.offer_open, true) {
            return Err(Refusal::Upgraded);
        }
        inbox.offer = offer.take();
        Ok(())
    });
    match (offered, offer) {
        (Err(refusal), Some(wire)) => Err((refusal, wire)),
        _ => Ok(()),
    }
}

/// Ends a session whose request cannot be answered.
pub(crate) fn abandon(shared: &Arc<Shared>) {
    let _ = with_inbox(shared, |inbox| {
        inbox.fault = true;
        Ok(())
    });
}

/// Changes the inbox and wakes the connection.
fn with_inbox(
    shared: &Arc<Shared>,
    change: impl FnOnce(&mut Inbox) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut queue = shared.lock();
    let Some(inbox) = queue.inbox.as_deref_mut() else {
        drop(queue);
        return Err(gone(shared));
    };
    let changed = change(inbox);
    shared.wake(queue);
    changed
}

fn gone(shared: &Shared) -> Refusal {
    match shared.transport() {
        Transport::Polling => Refusal::Unknown,
        Transport::WebSocket | Transport::WebTransport => Refusal::Upgraded,
    }
}

fn collect(decoded: impl Iterator<Item = ImksResult<Packet>>) -> (Vec<Packet>, bool) {
    let mut packets = Vec::new();
    for packet in decoded {
        match packet {
            Ok(packet) if packets.len() < PACKETS_MAX => packets.push(packet),
            _ => return (packets, true),
        }
    }
    (packets, false)
}

/// The connection's side.
#[derive(Default)]
pub(crate) struct Polling {
    /// What the session itself sends: pings.
    pub(crate) queue: VecDeque<Frame>,
    pub(crate) get: Option<oneshot::Sender<Payload>>,
    pub(crate) post: Option<oneshot::Sender<()>>,
}

impl Polling {
    /// What has arrived. Only while the session is carried by polling.
    pub(crate) fn inputs(shared: &Shared) -> Inputs {
        let mut queue = shared.lock();
        let Queue { inbox: Some(inbox), .. } = &mut *queue else { return Inputs::default() };
        Inputs {
            get: inbox.get.take(),
            post: inbox.post.take(),
            offer: inbox.offer.take(),
            fault: std::mem::take(&mut inbox.fault),
        }
    }

    /// Answers the GET that waits, if any. Its place is free before the client can know.
    fn answer_get(&mut self, shared: &Shared, payload: Payload) {
        let Some(get) = self.get.take() else { return };
        if let Some(inbox) = shared.lock().inbox.as_deref_mut() {
            inbox.get_open = false;
        }
        // A client that went away is found by the guard of its request.
        let _ = get.send(payload);
    }

    /// Answers the GET that waits, if any, with these packets.
    pub(crate) fn answer_frames(&mut self, shared: &Shared, frames: &VecDeque<Frame>) {
        if self.get.is_some() {
            self.answer_get(shared, Payload::new(shared.protocol, frames));
        }
    }

    /// Answers the GET that waits, if any, with this packet.
    pub(crate) fn answer_frame(&mut self, shared: &Shared, frame: &Frame) {
        if self.get.is_some() {
            self.answer_get(shared, Payload::new(shared.protocol, [frame]));
        }
    }

    /// Answers the POST that waits, if any.
    pub(crate) fn answer_post(&mut self, shared: &Shared) {
        let Some(post) = self.post.take() else { return };
        if let Some(inbox) = shared.lock().inbox.as_deref_mut() {
            inbox.post_open = false;
        }
        let _ = post.send(());
    }

    /// The candidate is gone; another one may come.
    pub(crate) fn free_candidate(shared: &Shared) {
        if let Some(inbox) = shared.lock().inbox.as_deref_mut() {
            inbox.offer_open = false;
        }
    }
}

/// Packets in one body. A million empty ones would fit into the default `max_payload`.
const PACKETS_MAX: usize = 65_536;
