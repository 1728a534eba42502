//! What this node does for Node.js servers: it applies their broadcasts and changes, and answers their requests.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::value::RawValue;

use super::super::ack_relay::{AckRequester, relay_acks};
use super::ClassicLink;
use super::encode::{self, JsonResponse, with_buffers};
use super::questions::unnamed;
use super::rooms::{Room, names};
use super::sockets::Described;
use super::wire::{self, Event, Incoming, LIMITS, OneChange, Options, Request, kind};
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::msgpack::servers::read_event;
use crate::socket::codec::packet::{Args, PacketType};
use crate::socket::namespace::cluster_link::{Change, Operation, Target, Waits};
use crate::socket::namespace::delivery::Delivery;
use crate::socket::namespace::handlers::{ServerEvent, ServerReply};
use crate::socket::namespace::namespace::Namespace;
use crate::socket::socket_id::SocketId;

impl ClassicLink {
    /// Does what a message wants. Those of this node are ignored, and those to other namespaces.
    pub(super) fn handle(&self, namespace: &Namespace, message: &[u8]) -> ImksResult<()> {
        match wire::incoming(message)? {
            Incoming::Broadcast { uid, event, options } => {
                let concerns = *uid != *self.0.uid && event.namespace() == namespace.path();
                if concerns && is_addressed(namespace, &options) {
                    deliver(namespace, &event, &options)
                } else {
                    Ok(())
                }
            }
            Incoming::Request { uid: Some(uid), .. } if *uid == *self.0.uid => Ok(()),
            Incoming::Request { uid, request } => self.perform(namespace, uid.as_deref(), request),
        }
    }

    /// Takes a response, if it is one to a question of this node.
    pub(super) fn answered(&self, message: &[u8]) -> ImksResult<()> {
        let response = wire::response(message)?;
        match self.own_number(&response.id) {
            Some(number) => self.0.questions.take(number, &response.content, message.len()),
            None => Ok(()),
        }
    }

    fn perform(&self, namespace: &Namespace, uid: Option<&str>, request: Request<'_>) -> ImksResult<()> {
        match request {
            Request::Sockets { id, rooms } => self.tell_ids(namespace, &id, &names(&rooms)),
            Request::AllRooms { id } => self.tell_rooms(namespace, &id),
            Request::Join { options, rooms } => {
                names(&rooms)
                    .into_iter()
                    .try_for_each(|room| apply(namespace, &options.target(), Change::Join { room }))?;
            }
            Request::Leave { options, rooms } => {
                names(&rooms)
                    .into_iter()
                    .try_for_each(|room| apply(namespace, &options.target(), Change::Leave { room }))?;
            }
            Request::Disconnect { options, close } => {
                apply(namespace, &options.target(), Change::Disconnect { close })?;
            }
            Request::One { id, sid, change } => self.change_one(namespace, id.as_deref(), &sid, &change)?,
            Request::Fetch { id, options } => self.describe_sockets(namespace, &id, &options),
            Request::ServerEvent { id, data } => self.server_event(namespace, uid, id, data)?,
            Request::BroadcastWithAck { id, event, options } => {
                if event.namespace() == namespace.path() {
                    self.relay(namespace, id, &event, &options)?;
                }
            }
        }
        Ok(())
    }

    /// Tells the ids of the sockets in any of these rooms, or of all.
    fn tell_ids(&self, namespace: &Namespace, id: &str, rooms: &[&str]) {
        let target = Target { rooms: rooms.to_vec(), except: Vec::new() };
        let sockets = namespace.targets(&target, None);
        let ids: Vec<&str> = sockets.iter().map(|socket| socket.id()).collect();
        self.respond(JsonResponse { sockets: Some(ids), ..JsonResponse::to(id) }.encode());
    }

    /// Tells the rooms that have members here. As in the reference, the own rooms of sockets are among them.
    fn tell_rooms(&self, namespace: &Namespace, id: &str) {
        let (shared, sockets) = (namespace.room_names(), namespace.sockets());
        let own = sockets.iter().map(|socket| socket.id());
        let rooms: Vec<&str> = shared.iter().map(|room| &**room).chain(own).collect();
        self.respond(JsonResponse { rooms: Some(rooms), ..JsonResponse::to(id) }.encode());
    }

    fn describe_sockets(&self, namespace: &Namespace, id: &str, options: &Options<'_>) {
        let sockets = namespace.targets(&options.target(), None);
        let described: Vec<Described> = sockets.iter().map(Described::of).collect();
        self.respond(JsonResponse { sockets: Some(described), ..JsonResponse::to(id) }.encode());
    }

    /// Changes one socket, if it is on this node, and says that it was done.
    fn change_one(
        &self,
        namespace: &Namespace,
        id: Option<&str>,
        sid: &str,
        change: &OneChange<'_>,
    ) -> ImksResult<()> {
        if namespace.socket(sid).is_none() {
            return Ok(());
        }
        let change = match change {
            OneChange::Join(Room(room)) => Change::Join { room },
            OneChange::Leave(Room(room)) => Change::Leave { room },
            OneChange::Disconnect { close } => Change::Disconnect { close: *close },
        };
        apply(namespace, &Target { rooms: vec![sid], except: Vec::new() }, change)?;
        if let Some(id) = id {
            self.respond(JsonResponse::<()>::to(id).encode());
        }
        Ok(())
    }

    /// Calls the handler of a server event. An event that nobody handles here is answered with no value, so that its
    /// sender need not wait.
    fn server_event(
        &self,
        namespace: &Namespace,
        uid: Option<&str>,
        id: Option<Cow<'_, str>>,
        data: &RawValue,
    ) -> ImksResult<()> {
        let args = Args::from_parts(PacketType::Event, data.get(), Vec::new())?;
        let Some(handler) = namespace.server_handler(args.name()) else {
            if let Some(id) = id {
                self.answer(&id, None);
            }
            return Ok(());
        };
        let link = self.clone();
        let reply = id.map(Cow::into_owned);
        let reply = reply.map(|id| -> ServerReply { Box::new(move |args| link.answer(&id, args.as_ref())) });
        let event = ServerEvent::new(namespace.clone(), sender(uid), args, reply);
        self.spawn(async move { handler(event).await })
    }

    /// Answers a server event with the first of these arguments.
    fn answer(&self, id: &str, args: Option<&Args>) {
        let first = args.filter(|args| !args.first_json().is_empty());
        let data = first.map(|args| {
            let attachments: Vec<&[u8]> = args.attachments().iter().map(|bytes| &**bytes).collect();
            with_buffers(args.first_json(), &attachments)
        });
        self.respond(data.transpose().and_then(|data| {
            let response = JsonResponse::<()>::to(id);
            JsonResponse { r#type: Some(kind::SERVER_EVENT), data: data.as_deref(), ..response }.encode()
        }));
    }

    /// Sends an event with ack to sockets of this node, and passes their acks on.
    fn relay(
        &self,
        namespace: &Namespace,
        id: &str,
        event: &Event<'_>,
        options: &Options<'_>,
    ) -> ImksResult<()> {
        let args = read_event(event.data, &LIMITS)?;
        let requester = Requester { link: self.clone(), id: id.into() };
        let timeout = options.flags.timeout_millis.map_or(ACK_TIMEOUT, Duration::from_millis);
        let target = options.target();
        self.spawn(relay_acks(requester, namespace, &target, &args, options.flags.compress, timeout)?)
    }
}

/// A Node.js server that has asked for acks.
struct Requester {
    link: ClassicLink,
    id: Box<str>,
}

impl AckRequester for Requester {
    fn asked(&self, sockets: Vec<SocketId>) {
        let response = JsonResponse::<()>::to(&self.id);
        let (r#type, clients) = (Some(kind::CLIENT_COUNT), Some(sockets.len()));
        self.link.respond(JsonResponse { r#type, clients, ..response }.encode());
    }

    fn acked(&self, _socket: SocketId, args: &Args) {
        self.link.respond(encode::ack(&self.id, args));
    }

    /// Node.js servers have no word for it.
    fn gone(&self, _socket: SocketId) {}
}

/// Whether a broadcast can concern a client of this node.
fn is_addressed(namespace: &Namespace, options: &Options<'_>) -> bool {
    let is_here = |Room(room): &Room<'_>| namespace.has_room(room) || namespace.socket(room).is_some();
    // With sessions, clients that are away count too.
    let has_sessions = matches!(namespace.delivery(), Delivery::Logged(_));
    has_sessions || options.rooms.is_empty() || options.rooms.iter().any(is_here)
}

fn deliver(namespace: &Namespace, event: &Event<'_>, options: &Options<'_>) -> ImksResult<()> {
    let args = read_event(event.data, &LIMITS)?;
    let flags = options.flags;
    namespace.apply_event(&options.target(), &args, flags.compress, flags.volatile, Waits::default())
}

fn apply(namespace: &Namespace, target: &Target<'_>, change: Change<'_>) -> ImksResult<()> {
    namespace.apply(target, &Operation::Change(change))
}

/// Returns the id of the node that calls itself so. Nodes of imks use their ids; those of Node.js servers have six
/// characters, which become seven.
fn sender(uid: Option<&str>) -> NodeId {
    let uid = uid.unwrap_or_default();
    let node = NodeId::parse(uid).or_else(|| NodeId::parse(&format!("{uid}A")));
    node.unwrap_or_else(|| unnamed(0))
}

/// How long acks are awaited if a request does not say it, in the reference's default for questions.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
