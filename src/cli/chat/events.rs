//! What `imks chat` does about each event and each answer of the server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::channel::{CatchingUp, Channel};
use super::conversation::{Conversation, number, word};
use super::effect::{Effect, Printed, Purpose};
use super::message::{Author, Message, Reaction, Thread};
use crate::cli::terminal::text::{self, counted};

impl Conversation {
    pub(super) fn ready(&mut self, payload: &Value) {
        let user = &payload["user"];
        self.me = Some(Author { id: word(user, "id"), username: word(user, "username") });
        (self.is_online, self.is_token_over) = (true, false);
        self.list(payload);
    }

    /// Shows the channel to begin with, or again the one that was shown, when all channels are known.
    fn begin(&mut self) {
        let is_first = !std::mem::replace(&mut self.has_channels, true);
        if let Some(current) = self.current.clone() {
            return self.open(&current);
        }
        // Without a screen, a channel that is gone is not replaced by the first one.
        if !is_first && !self.is_screen {
            return;
        }
        let wanted = self.wanted_channel.as_ref().and_then(|name| self.named(name));
        if let (None, Some(name)) = (&wanted, self.wanted_channel.clone()) {
            self.notice(format!("there is no channel {name} for you"));
            if !self.is_screen {
                self.lines.clear();
                return self.effects.extend([Effect::Failed, Effect::Quit]);
            }
        }
        let first = wanted.or_else(|| self.channels.first().map(|channel| channel.id.clone()));
        match first {
            Some(first) => self.open(&first),
            None => self.notice("you are in no channel"),
        }
    }

    /// Takes channels of `session:ready` and of the events that follow it. Those that have gone on without this client are
    /// caught up with.
    pub(super) fn list(&mut self, payload: &Value) {
        if payload["resumed"] == true {
            // An answer that was on its way when the connection was lost does not come any more; nothing else is missing.
            let asked = self.channels.iter_mut().filter(|channel| channel.catching_up == CatchingUp::Asked);
            asked.for_each(|channel| {
                channel.catching_up = CatchingUp::Done;
                channel.miss();
            });
        }
        for told in payload["channels"].as_array().into_iter().flatten() {
            let (id, seq, rev) = (word(told, "channel_id"), number(told, "last_seq"), number(told, "rev"));
            let unread = number(told, "unread_count");
            match self.channel(&id) {
                Some(channel) => {
                    channel.unread = unread;
                    // An answer that was on its way when the connection was lost does not come any more.
                    channel.catching_up = CatchingUp::Done;
                    // Lower numbers are those of another history, which the answer says.
                    if (seq, rev) != (channel.seq, channel.rev) {
                        channel.miss();
                    }
                }
                None => {
                    let name = word(told, "name");
                    let mut channel = Channel::new(id, name, seq, rev);
                    channel.unread = unread;
                    self.add(channel);
                }
            }
        }
        self.channels.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        // A channel that is not there yet may come in a later event.
        if self.me.is_some() && payload["channels_complete"] != false {
            self.begin();
        }
    }

    /// Asks for what is missing, of all channels at once.
    pub(super) fn catch_up(&mut self) {
        if !self.is_online {
            return;
        }
        let mut cursors = Vec::new();
        let wanted = self.channels.iter_mut().filter(|channel| channel.catching_up == CatchingUp::Wanted);
        for channel in wanted.take(SYNC_CHANNELS_MAX) {
            channel.ask();
            cursors.push(json!({ "channel_id": channel.id, "seq": channel.seq, "rev": channel.rev }));
        }
        if !cursors.is_empty() {
            let channels = cursors.iter().map(|cursor| word(cursor, "channel_id")).collect();
            self.ask(Purpose::Sync { channels }, "sync", json!({ "channels": cursors }));
        }
    }

    pub(super) fn synchronise(&mut self, asked: &[String], data: &Value) {
        let before = self.unanswered();
        for told in data["channels"].as_array().into_iter().flatten() {
            self.catch_up_with(told);
        }
        for state in data["user"]["read_states"].as_array().into_iter().flatten() {
            self.read(state);
        }
        for id in data["removed_channels"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.gone(id);
        }
        // What did not fit into the answer is asked for again: after a pause, if nothing did.
        let again = if self.unanswered() < before { CatchingUp::Wanted } else { CatchingUp::Failed };
        for id in asked {
            if let Some(channel) = self.channel(id)
                && channel.catching_up == CatchingUp::Asked
            {
                channel.catching_up = again;
            }
        }
        self.mark_shown();
    }

    fn unanswered(&self) -> usize {
        self.channels.iter().filter(|channel| channel.catching_up == CatchingUp::Asked).count()
    }

    /// Takes what an answer says of one channel.
    fn catch_up_with(&mut self, told: &Value) {
        let id = word(told, "channel_id");
        let (seq, rev) = (number(told, "seq"), number(told, "rev"));
        let (is_cut, is_reset) = (told["truncated"] == true, told["reset"] == true);
        let messages = told["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(channel) = self.channel(&id) else { return };
        let known_seq = channel.seq;
        let known = if is_reset { channel.restart(seq, rev) } else { Vec::new() };
        if is_cut {
            // Those before a hole give way; what has overtaken the answer stays.
            let first = messages.first().map_or(seq, |first| number(first, "seq").saturating_sub(1));
            channel.drop_up_to(first);
        }
        channel.drop_up_to(number(told, "horizon_seq"));
        for change in told["changes"].as_array().into_iter().flatten() {
            if let Some(message) = Message::read(&change["message"]) {
                channel.replace(message);
            }
        }
        let is_other_history = seq < known_seq;
        for message in messages {
            let Some(message) = self.keep(message) else { continue };
            // After a reset the newest page comes, whatever of it was known.
            let is_told = known.iter().any(|known| known.id == message.id);
            if !is_reset || (!is_told && (is_other_history || message.seq > known_seq)) {
                self.print_new(message);
            }
        }
        if let Some(channel) = self.channel(&id) {
            channel.caught_up(seq, rev);
        }
        if is_cut || is_reset {
            let name = self.name_of(&id);
            self.notice(format!(
                "much has happened in {name}: only the newest messages are here, /history has more"
            ));
        }
    }

    pub(super) fn refused(&mut self, purpose: Purpose, why: &str) {
        match purpose {
            Purpose::Sync { channels } => {
                for id in channels {
                    if let Some(channel) = self.channel(&id) {
                        channel.catching_up = CatchingUp::Failed;
                    }
                }
            }
            Purpose::History { channel, .. } => {
                if let Some(channel) = self.channel(&channel) {
                    channel.has_history = !channel.messages().is_empty();
                }
                self.fails(format!("earlier messages: {why}"));
            }
            Purpose::Who { is_asked: false, .. } => {}
            Purpose::Join { .. } => self.not_joined(format!("join: {why}")),
            purpose => self.fails(format!("{}: {why}", purpose.name())),
        }
    }

    /// Takes earlier messages, which may be as they were when changes were known up to `rev`.
    pub(super) fn history(&mut self, id: &str, rev: i64, data: &Value) {
        let messages = data["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        for message in messages {
            self.store(message);
        }
        if messages.is_empty() && !self.is_screen {
            self.notice("there are no earlier messages");
        }
        if let Some(channel) = self.channel(id) {
            channel.has_history = true;
            channel.recheck(rev);
        }
    }

    /// Adds a message that came as an event or as the answer to one.
    pub(super) fn arrive(&mut self, payload: &Value) {
        let Some(message) = Message::read(payload) else { return };
        let (id, seq) = (message.channel_id.clone(), message.seq);
        let is_own = self.me.as_ref().is_some_and(|me| me.id == message.author.id);
        let counts = message.is_in_channel() && !is_own && self.current.as_ref() != Some(&id);
        if let Some(channel) = self.channel(&id) {
            channel.typing.remove(&message.author.id);
        }
        let is_new = self.store(payload);
        let Some(channel) = self.channel(&id) else { return };
        if is_new && counts {
            channel.unread = channel.unread.saturating_add(1);
        }
        channel.note_seq(seq);
        self.mark_shown();
    }

    /// Adds a message, and prints it if it is new. Returns whether it is.
    fn store(&mut self, payload: &Value) -> bool {
        let Some(message) = self.keep(payload) else { return false };
        self.print_new(message);
        true
    }

    /// Adds a message. Returns it if it is new.
    fn keep(&mut self, payload: &Value) -> Option<Message> {
        let message = Message::read(payload)?;
        if self.names.len() < NAMES_MAX {
            self.names.insert(message.author.id.clone(), message.author.username.clone());
        }
        let channel = self.channel(&message.channel_id)?;
        channel.insert(message.clone()).then_some(message)
    }

    fn print_new(&mut self, message: Message) {
        let channel = self.name_of(&message.channel_id);
        self.effects.push(Effect::Print(Printed::Message { channel, message: Box::new(message) }));
    }

    fn add(&mut self, channel: Channel) {
        if self.channels.len() < CHANNELS_MAX {
            self.channels.push(channel);
        }
    }

    /// Notes that everything in the channel that is shown is read.
    fn mark_shown(&mut self) {
        if let Some((id, seq)) = self.shown().map(|channel| (channel.id.clone(), channel.seq)) {
            self.to_read = Some((id, seq));
        }
    }

    pub(super) fn update(&mut self, payload: &Value) {
        let Some(message) = Message::read(payload) else { return };
        let printed = Printed::Edited {
            channel: self.name_of(&message.channel_id),
            message: Box::new(message.clone()),
        };
        if let Some(channel) = self.channel(&message.channel_id) {
            channel.replace(message);
            self.effects.push(Effect::Print(printed));
        }
    }

    pub(super) fn delete(&mut self, payload: &Value) {
        let at = word(payload, "deleted_at");
        let id = word(payload, "id");
        if let Some(message) =
            self.channel(&word(payload, "channel_id")).and_then(|channel| channel.find(&id))
        {
            (message.deleted_at, message.body) = (Some(at), String::new());
            message.reactions.clear();
            message.attachments.clear();
        }
    }

    pub(super) fn react(&mut self, payload: &Value) {
        let id = word(payload, "message_id");
        let Some(message) = self.channel(&word(payload, "channel_id")).and_then(|channel| channel.find(&id))
        else {
            return;
        };
        let all = payload["reactions"].as_object().into_iter().flatten();
        message.reactions =
            all.map(|(emoji, state)| (emoji.clone(), Reaction { count: number(state, "count") })).collect();
    }

    pub(super) fn thread(&mut self, payload: &Value) {
        let id = word(payload, "thread_id");
        if let Some(message) =
            self.channel(&word(payload, "channel_id")).and_then(|channel| channel.find(&id))
        {
            message.thread = Some(Thread { reply_count: number(payload, "reply_count") });
        }
    }

    pub(super) fn show_thread(&mut self, channel: &str, seq: i64, data: &Value) {
        let replies = data["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let count = counted(replies.len() as u64, "reply", "replies");
        self.notice(format!("{count} to #{seq} in {}", self.name_of(channel)));
        for message in replies.iter().filter_map(Message::read) {
            self.notice(format!("  {} {}: {}", message.time(), message.name(), message.shown()));
        }
    }

    pub(super) fn typing(&mut self, payload: &Value, now_ms: u64) {
        let user = word(&payload["user"], "id");
        let name = text::line(&word(&payload["user"], "username"));
        let lease_ms = u64::try_from(number(payload, "expires_in_ms")).unwrap_or_default();
        let until = now_ms.saturating_add(lease_ms);
        let Some(channel) = self.channel(&word(payload, "channel_id")) else { return };
        channel.typing.retain(|id, (_, until)| *id != user && *until > now_ms);
        if payload["typing"] == true && channel.typing.len() < TYPISTS_MAX {
            channel.typing.insert(user, (name, until));
        }
    }

    /// Takes a read position of this user. Those of others are left out.
    pub(super) fn read(&mut self, payload: &Value) {
        let is_other =
            payload["user_id"].as_str().is_some_and(|id| self.me.as_ref().is_none_or(|me| me.id != id));
        let Some(unread) = payload["unread_count"].as_i64() else { return };
        if is_other || payload["thread_id"].is_string() {
            return;
        }
        let current = self.current.clone();
        if let Some(channel) = self.channel(&word(payload, "channel_id")) {
            channel.unread = if current.as_ref() == Some(&channel.id) { 0 } else { unread };
        }
    }

    pub(super) fn who(&mut self, id: &str, is_asked: bool, data: &Value) {
        let mut online = BTreeMap::new();
        for presence in data["presences"].as_array().into_iter().flatten() {
            online.insert(word(presence, "user_id"), word(presence, "status"));
        }
        let users: Vec<String> = online.keys().take(WATCHED_MAX).cloned().collect();
        let shown: Vec<String> = online
            .iter()
            .map(|(user, status)| format!("{} ({})", self.user(user), text::line(status)))
            .collect();
        if let Some(channel) = self.channel(id) {
            channel.online = online;
        }
        if is_asked {
            self.notice(format!("{} here: {}", shown.len(), shown.join(", ")));
        }
        if !users.is_empty() {
            self.tell("presence:subscribe", json!({ "user_ids": users }));
        }
    }

    pub(super) fn presence(&mut self, payload: &Value) {
        let (user, status) = (word(payload, "user_id"), word(payload, "status"));
        for channel in self.channels.iter_mut().filter(|channel| channel.online.contains_key(&user)) {
            channel.online.insert(user.clone(), status.clone());
        }
    }

    pub(super) fn joined(&mut self, payload: &Value) {
        let (id, name) = (word(payload, "channel_id"), word(payload, "name"));
        self.notice(format!("you are in the channel {name} now"));
        match self.channel(&id) {
            Some(channel) => channel.is_left = false,
            None => self.add(Channel::new(id.clone(), name, 0, 0)),
        }
        if let Some(channel) = self.channel(&id) {
            channel.miss();
        }
    }

    pub(super) fn left(&mut self, payload: &Value) {
        let id = word(payload, "channel_id");
        self.notice(format!("you are not in {} any more: {}", self.name_of(&id), word(payload, "reason")));
        self.gone(&id);
    }

    pub(super) fn gone(&mut self, id: &str) {
        if let Some(channel) = self.channel(id) {
            (channel.is_left, channel.catching_up) = (true, CatchingUp::Done);
        }
        if self.current.as_deref() != Some(id) {
            return;
        }
        match self.is_screen {
            true => self.turn(true),
            false => self.current = None,
        }
    }

    /// Says why a channel is not shown that was asked for. Without a screen none is then: what follows was meant for it.
    pub(super) fn not_joined(&mut self, why: String) {
        if !self.is_screen {
            self.current = None;
        }
        self.fails(why);
    }

    pub(super) fn subscribed(&mut self, id: &str, data: &Value) {
        let told = &data["channels"][0];
        if told["ok"] != true {
            let name = self.name_of(id);
            return self.not_joined(format!("{name}: {}", word(&told["error"], "code")));
        }
        if self.channel(id).is_none() {
            let (seq, rev) = (number(told, "last_seq"), number(told, "rev"));
            self.add(Channel::new(id.into(), id.into(), seq, rev));
        }
        if let Some(channel) = self.channel(id) {
            channel.is_left = false;
            channel.miss();
        }
        self.open(id);
    }

    pub(super) fn horizon(&mut self, payload: &Value) {
        let seq = number(payload, "horizon_seq");
        if let Some(channel) = self.channel(&word(payload, "channel_id")) {
            channel.drop_up_to(seq);
        }
    }

    pub(super) fn sync_required(&mut self, payload: &Value) {
        for id in payload["channel_ids"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some(channel) = self.channel(id) {
                channel.miss();
            }
        }
    }

    pub(super) fn note_rev(&mut self, payload: &Value) {
        let (Some(id), Some(rev)) = (payload["channel_id"].as_str(), payload["rev"].as_i64()) else { return };
        if let Some(channel) = self.channel(id).filter(|_| rev > 0) {
            channel.note_rev(rev);
        }
    }
}

/// The most channels that are known: more than anybody is a member of.
const CHANNELS_MAX: usize = 10_000;
/// The most names of users that are remembered.
const NAMES_MAX: usize = 10_000;
/// The most users who are shown as typing in a channel.
const TYPISTS_MAX: usize = 20;
/// The most users whose presence is watched for a channel.
const WATCHED_MAX: usize = 200;
/// The most channels of one request to catch up.
const SYNC_CHANNELS_MAX: usize = 500;
