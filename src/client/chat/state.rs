//! What the handles of a chat, its task and the handlers of its events share.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::message::{Author, ChannelInfo, Message};
use super::readers::Readers;
use super::wire::{
    Acks, Activity, Append, Deleted, Field, Horizon, Left, OfChannel, Reactions, Session, SyncRequired,
    Thread, Updated,
};
use crate::client::handlers::HandlerId;
use crate::client::socket::Socket;

/// What a chat knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) readers: Mutex<Readers>,
    /// What the server said about the user, from the first connection on.
    pub(super) me: watch::Sender<Option<Me>>,
    /// Whether the server has said that it will end this connection because its token is over.
    pub(super) is_expired: AtomicBool,
    /// Wakes the task of the chat when there may be something to ask.
    pub(super) poke: Notify,
}

/// The user of a chat, and their channels.
#[derive(Debug, Clone)]
pub(super) struct Me {
    pub(super) user: Author,
    pub(super) channels: Vec<ChannelInfo>,
}

impl State {
    pub(super) fn new(random: f64) -> Self {
        Self {
            readers: Mutex::new(Readers::new(random)),
            me: watch::Sender::new(None),
            is_expired: AtomicBool::new(false),
            poke: Notify::new(),
        }
    }

    /// Handles the events of imks that readers need. None of the handlers waits for anything.
    pub(super) fn listen(self: &Arc<Self>, socket: &Socket) -> Vec<HandlerId> {
        vec![
            self.on(socket, "session:ready", Self::session),
            self.on(socket, "session:channels", Self::session),
            self.on(socket, "auth:expired", |state, _: IgnoredAny| {
                state.is_expired.store(true, Ordering::Relaxed)
            }),
            self.on(socket, "auth:revoked", Self::put_out),
            self.on(socket, "session:ended", Self::put_out),
            self.on(socket, "channel:joined", Self::joined),
            self.on(socket, "channel:left", Self::left),
            self.on(socket, "sync:required", |state, event: SyncRequired| {
                let mut readers = state.readers.lock();
                event.channel_ids.into_iter().for_each(|channel| readers.missed(channel));
            }),
            self.on(socket, "channel:activity", |state, event: Activity| {
                let mut readers = state.readers.lock();
                event.channels.iter().for_each(|head| readers.heads(head));
            }),
            self.on(socket, "message:new", Self::live::<Message>),
            self.on(socket, "message:updated", Self::live::<Updated>),
            self.on(socket, "message:deleted", Self::live::<Deleted>),
            self.on(socket, "message:append", Self::live::<Append>),
            self.on(socket, "channel:horizon", Self::live::<Horizon>),
            self.on(socket, "reaction:updated", Self::live::<Reactions>),
            self.on(socket, "pin:updated", Self::live::<Field>),
            self.on(socket, "poll:updated", Self::live::<Field>),
            self.on(socket, "ack:updated", Self::live::<Acks>),
            self.on(socket, "thread:updated", Self::live::<Thread>),
        ]
    }

    fn on<T: DeserializeOwned + Send + 'static>(
        self: &Arc<Self>,
        socket: &Socket,
        event: &str,
        handle: fn(&Self, T),
    ) -> HandlerId {
        let state = self.clone();
        socket.on(event, move |argument: T| {
            handle(&state, argument);
            if state.readers.lock().due_at(Instant::now()).is_some() {
                state.poke.notify_one();
            }
            ready(())
        })
    }

    fn live<T: OfChannel>(&self, event: T) {
        let reader = self.me.borrow().as_ref().map(|me| me.user.id);
        let channel = event.channel();
        self.readers.lock().live(channel, &event.told_to(reader), Instant::now());
    }

    /// Whoever is put out for another reason than the end of a token stays out: that token may have been renewed meanwhile.
    fn put_out(&self, _: IgnoredAny) {
        self.is_expired.store(false, Ordering::Relaxed);
    }

    fn session(&self, Session { user, channels, resumed }: Session) {
        if user.is_some() {
            // The end of a token is told of one connection, and this is another one.
            self.is_expired.store(false, Ordering::Relaxed);
        }
        self.me.send_modify(|me| match (me, user) {
            (Some(me), None) => me.add(channels),
            (Some(me), Some(_)) if resumed => me.add(channels),
            (me, Some(user)) => *me = Some(Me { user, channels }),
            (None, None) => {}
        });
    }

    fn joined(&self, channel: Joined) {
        let info = ChannelInfo::new(channel.channel_id, channel.name);
        self.me.send_modify(|me| me.iter_mut().for_each(|me| me.add(vec![info.clone()])));
    }

    fn left(&self, event: Left) {
        let Left { channel_id, reason, message } = event;
        self.me.send_modify(|me| {
            me.iter_mut().for_each(|me| me.channels.retain(|channel| channel.channel_id != channel_id));
        });
        let code = if reason == "kicked" { "kicked" } else { "forbidden" };
        let message = message.unwrap_or_else(|| format!("left the channel: {reason}"));
        self.readers.lock().left(channel_id, code, &message);
    }
}

impl Me {
    fn add(&mut self, channels: Vec<ChannelInfo>) {
        for channel in channels {
            self.channels.retain(|known| known.channel_id != channel.channel_id);
            if self.channels.len() < CHANNELS_MAX {
                self.channels.push(channel);
            }
        }
    }
}

/// `channel:joined`.
#[derive(Deserialize)]
struct Joined {
    channel_id: Uuid,
    #[serde(default)]
    name: String,
}

/// The maximum number of channels of the user that a chat lists. Further ones can be read and written all the same.
const CHANNELS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_that_ended_on_an_earlier_connection_opens_no_door_to_who_is_put_out_later() {
        let state = State::new(0.5);
        let user = json!({ "user": { "id": Uuid::nil(), "username": "a" } });
        state.is_expired.store(true, Ordering::Relaxed);
        state.session(serde_json::from_value(user).unwrap());
        assert!(!state.is_expired.load(Ordering::Relaxed));
        state.is_expired.store(true, Ordering::Relaxed);
        state.session(serde_json::from_value(json!({ "channels": [] })).unwrap());
        assert!(state.is_expired.load(Ordering::Relaxed), "the rest of its channels is no other connection");
        state.put_out(IgnoredAny);
        assert!(!state.is_expired.load(Ordering::Relaxed));
    }
}
