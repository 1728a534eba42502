//! What a namespace sends to Node.js servers and asks of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::ClassicLink;
use super::encode::{self, JsonOptions, JsonRequest, with_buffers};
use super::questions::{Answers, unnamed};
use super::rooms::{Names, Room};
use super::wire::{Flags, Options, kind};
use crate::bus::BoxFuture;
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::namespace::ack_collector::AckCollector;
use crate::socket::namespace::cluster_link::{
    Change, ClusterLink, Guard, NodeAnswers, NodeRooms, NodeSockets, Operation, PacketData, Target,
};

impl ClusterLink for ClassicLink {
    fn node(&self) -> NodeId {
        self.0.node
    }

    fn reaches_others(&self) -> bool {
        self.0.pipe.reaches_others()
    }

    fn others(&self) -> Vec<NodeId> {
        (0..self.0.others.load(Ordering::Relaxed)).map(unnamed).collect()
    }

    fn count_others(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.count().await;
        })
    }

    fn publish(&self, _namespace: &str, target: &Target<'_>, operation: &Operation<'_>) -> ImksResult<()> {
        let mut options = Options::of(target);
        match operation {
            // Node.js servers know neither keys of the latest state nor lanes.
            Operation::Broadcast { event, volatile, .. } => {
                options.flags = Flags { volatile: *volatile, compress: event.compress, ..Flags::default() };
                let message = encode::broadcast(&self.0.uid, &self.0.path, event, &options)?;
                self.0.pipe.publish(&self.0.channels.to(&target.rooms), message);
            }
            Operation::Change(change) => self.publish_request(self.change(&options, *change)?),
            // A namespace that is shared with Node.js servers has no log that nodes share.
            Operation::Logged { .. } => {}
        }
        Ok(())
    }

    fn request_acks(
        &self,
        _namespace: &str,
        target: &Target<'_>,
        event: &EncodedPacket,
        timeout: Duration,
        acks: Arc<AckCollector>,
    ) -> ImksResult<Guard> {
        let (mut options, event) = (Options::of(target), PacketData::of(event));
        let timeout_millis = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        options.flags = Flags { compress: event.compress, timeout_millis, ..Flags::default() };
        let open = self.0.questions.open(0, Answers::Acks(acks))?;
        let id = self.request_id(open.number);
        let request = encode::broadcast_with_ack(&self.0.uid, &id, &self.0.path, &event, &options)?;
        self.publish_request(request);
        Ok(Box::new(open))
    }

    fn fetch_sockets(
        &self,
        _namespace: &str,
        target: &Target<'_>,
    ) -> ImksResult<BoxFuture<'static, NodeSockets>> {
        let options = Options::of(target);
        let opts = serde_json::value::to_raw_value(&JsonOptions::of(&options))?;
        let (link, timeout) = (self.clone(), self.0.request_timeout);
        Ok(Box::pin(async move {
            let request = |uid: &str, id: &str| {
                JsonRequest { id: Some(id), opts: Some(&opts), ..JsonRequest::new(uid, kind::FETCH) }.encode()
            };
            match link.ask(Answers::Sockets(Vec::new()), timeout, request).await {
                (Some(Answers::Sockets(sockets)), silent) => (sockets, silent),
                (_, silent) => (Vec::new(), silent),
            }
        }))
    }

    fn all_rooms(&self, _namespace: &str) -> ImksResult<BoxFuture<'static, NodeRooms>> {
        let (link, timeout) = (self.clone(), self.0.request_timeout);
        Ok(Box::pin(async move {
            let request = |uid: &str, id: &str| {
                JsonRequest { id: Some(id), ..JsonRequest::new(uid, kind::ALL_ROOMS) }.encode()
            };
            match link.ask(Answers::Rooms(BTreeSet::new()), timeout, request).await {
                (Some(Answers::Rooms(rooms)), silent) => (rooms, silent),
                (_, silent) => (BTreeSet::new(), silent),
            }
        }))
    }

    fn server_side_emit(&self, _namespace: &str, event: &EncodedPacket) -> ImksResult<()> {
        let data = server_event(event)?;
        let request = JsonRequest { data: Some(&data), ..JsonRequest::new(&self.0.uid, kind::SERVER_EVENT) };
        self.publish_request(request.encode()?);
        Ok(())
    }

    fn server_side_emit_with_ack(
        &self,
        _namespace: &str,
        event: &EncodedPacket,
        timeout: Duration,
    ) -> ImksResult<BoxFuture<'static, NodeAnswers>> {
        let (link, data) = (self.clone(), server_event(event)?);
        Ok(Box::pin(async move {
            let request = |uid: &str, id: &str| {
                let kind = kind::SERVER_EVENT;
                JsonRequest { id: Some(id), data: Some(&data), ..JsonRequest::new(uid, kind) }.encode()
            };
            match link.ask(Answers::Server(Vec::new()), timeout, request).await {
                (Some(Answers::Server(answers)), silent) => (answers, silent),
                (_, silent) => (Vec::new(), silent),
            }
        }))
    }
}

impl ClassicLink {
    fn change(&self, options: &Options<'_>, change: Change<'_>) -> ImksResult<Bytes> {
        let opts = serde_json::value::to_raw_value(&JsonOptions::of(options))?;
        let request = JsonRequest { opts: Some(&opts), ..JsonRequest::new(&self.0.uid, kind::DISCONNECT) };
        match change {
            Change::Disconnect { close } => JsonRequest { close: Some(close), ..request }.encode(),
            // A socket joins a room under one name, and leaves it under all that it may have there.
            Change::Join { room } => {
                let rooms = Some(serde_json::value::to_raw_value(&[room])?);
                JsonRequest { r#type: kind::JOIN, rooms: rooms.as_deref(), ..request }.encode()
            }
            Change::Leave { room } => {
                let rooms = Some(serde_json::value::to_raw_value(&Names(&[Room(room.into())]))?);
                JsonRequest { r#type: kind::LEAVE, rooms: rooms.as_deref(), ..request }.encode()
            }
        }
    }

    /// Asks all other nodes and waits for their answers. If they cannot be counted, those that were there count as silent.
    async fn ask(
        &self,
        answers: Answers,
        timeout: Duration,
        request: impl Fn(&str, &str) -> ImksResult<Bytes>,
    ) -> (Option<Answers>, Vec<NodeId>) {
        let counted = self.count().await;
        let others = self.0.others.load(Ordering::Relaxed);
        if !counted || others == 0 {
            return (Some(answers), self.others());
        }
        let asked = self.0.questions.open(others, answers).and_then(|open| {
            self.publish_request(request(&self.0.uid, &self.request_id(open.number))?);
            Ok(open)
        });
        match asked {
            Ok(open) => open.wait(timeout).await,
            Err(error) => {
                tracing::warn!(%error, "Node.js servers not asked");
                (None, self.others())
            }
        }
    }
}

/// Returns the array of a server event in JSON.
fn server_event(event: &EncodedPacket) -> ImksResult<Box<serde_json::value::RawValue>> {
    let attachments: Vec<&[u8]> = event.attachments().collect();
    with_buffers(event.json(), &attachments)
}
