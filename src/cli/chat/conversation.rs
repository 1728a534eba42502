//! What `imks chat` knows, and what it does about what happens: a state machine without I/O.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::channel::{CatchingUp, Channel, Pending};
use super::command::Command;
use super::effect::{Effect, Kept, Printed, Purpose};
use super::message::Author;
use crate::cli::terminal::text;

/// Channels, messages and the state of the connection.
pub(super) struct Conversation {
    pub(super) me: Option<Author>,
    pub(super) channels: Vec<Channel>,
    /// Whether the server has told all channels, which may take several events.
    pub(super) has_channels: bool,
    /// The id of the channel that is shown.
    pub(super) current: Option<String>,
    pub(super) link: String,
    pub(super) is_online: bool,
    pub(super) notices: VecDeque<Notice>,
    pub(super) effects: Vec<Effect>,
    /// Whether there is a screen: then earlier messages are fetched for the channel that is shown, and it counts as read.
    /// Without one nobody sees what is shown, so that no channel takes the place of another.
    pub(super) is_screen: bool,
    pub(super) wanted_channel: Option<String>,
    pub(super) names: BTreeMap<String, String>,
    /// The position that must be told as read.
    pub(super) to_read: Option<(String, i64)>,
    pub(super) typing_told_ms: u64,
    /// How many questions to the server are not answered yet.
    pub(super) asked: usize,
    /// How many of these come from commands. Without a screen, the next line waits for their answers.
    pub(super) commands: usize,
    /// The lines of a pipe that are not obeyed yet, each as it was read.
    pub(super) lines: VecDeque<Result<Command, String>>,
    /// Whether there is an outbox, which keeps messages before the first sign-in.
    pub(super) has_outbox: bool,
    /// The messages that it keeps until the channels are known.
    pub(super) kept: VecDeque<Kept>,
    /// Whether the server has said that the token ends here.
    pub(super) is_token_over: bool,
    /// Whether the person was told that messages are not sent yet.
    pub(super) was_warned: bool,
}

/// A line of `imks chat` itself, at its place between the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) channel: Option<String>,
    /// The number of the message that it follows.
    pub(super) after: i64,
    pub(super) text: String,
}

impl Conversation {
    /// Creates a conversation that begins with this channel, by name or id, or else with the first.
    pub(super) fn new(wanted_channel: Option<String>, is_screen: bool) -> Self {
        Self {
            me: None,
            channels: Vec::new(),
            has_channels: false,
            current: None,
            link: "connecting".into(),
            is_online: false,
            notices: VecDeque::new(),
            effects: Vec::new(),
            is_screen,
            wanted_channel,
            names: BTreeMap::new(),
            to_read: None,
            typing_told_ms: 0,
            asked: 0,
            commands: 0,
            lines: VecDeque::new(),
            has_outbox: false,
            kept: VecDeque::new(),
            is_token_over: false,
            was_warned: false,
        }
    }

    /// Returns the channel that is shown.
    pub(super) fn shown(&self) -> Option<&Channel> {
        let current = self.current.as_ref()?;
        self.channels.iter().find(|channel| channel.id == *current)
    }

    /// Returns a channel by its id.
    pub(super) fn channel(&mut self, id: &str) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|channel| channel.id == id)
    }

    /// Returns the id of a channel by its name or id.
    pub(super) fn named(&self, name: &str) -> Option<String> {
        let is_it = |channel: &&Channel| channel.name == name || channel.id == name;
        self.channels.iter().find(is_it).map(|channel| channel.id.clone())
    }

    /// Returns the name of a channel.
    pub(super) fn name_of(&self, id: &str) -> String {
        let found = self.channels.iter().find(|channel| channel.id == id);
        text::line(found.map_or(id, |channel| &channel.name))
    }

    /// Returns the name of a user, as far as one is known.
    pub(super) fn user(&self, id: &str) -> String {
        let own = self.me.as_ref().filter(|me| me.id == id).map(|me| &me.username);
        text::line(own.or_else(|| self.names.get(id)).map_or(id, String::as_str))
    }

    /// Takes what is to be done.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        self.send_kept();
        self.catch_up();
        std::mem::take(&mut self.effects)
    }

    /// Adds a line of the program itself.
    pub(super) fn notice(&mut self, text: impl Into<String>) {
        let text = text::line(&text.into());
        let after = self.shown().and_then(|channel| channel.messages().last()).map_or(0, |last| last.seq);
        self.effects.push(Effect::Print(Printed::Notice(text.clone())));
        self.notices.push_back(Notice { channel: self.current.clone(), after, text });
        if self.notices.len() > NOTICES_MAX {
            self.notices.pop_front();
        }
    }

    /// Handles an event of the server.
    pub(super) fn event(&mut self, name: &str, payload: &Value, now_ms: u64) {
        match name {
            "session:ready" => self.ready(payload),
            "session:channels" => self.list(payload),
            "message:new" => self.arrive(payload),
            "message:updated" => self.update(payload),
            "message:deleted" => self.delete(payload),
            "reaction:updated" => self.react(payload),
            "thread:updated" => self.thread(payload),
            "typing" => self.typing(payload, now_ms),
            "read:updated" => self.read(payload),
            "presence:update" => self.presence(payload),
            "channel:joined" => self.joined(payload),
            "channel:left" => self.left(payload),
            "channel:horizon" => self.horizon(payload),
            "sync:required" => self.sync_required(payload),
            "auth:expiring" => self.notice("your token expires in a minute: the connection ends then"),
            "auth:expired" | "auth:revoked" => {
                self.is_token_over = true;
                self.notice("your token is not valid any more");
            }
            "session:ended" => self.notice(format!("the session was ended: {}", word(payload, "reason"))),
            "server:shutdown" => self.notice("the server restarts; the connection comes back by itself"),
            "error" => self.notice(format!("refused: {}: {}", word(payload, "event"), word(payload, "code"))),
            _ => {}
        }
        self.note_rev(payload);
    }

    /// Handles an answer of the server to what `purpose` says.
    pub(super) fn answer(&mut self, purpose: Purpose, answer: Result<Value, String>) {
        self.asked = self.asked.saturating_sub(1);
        self.commands = self.commands.saturating_sub(usize::from(purpose.is_of_person()));
        let data = match answer {
            Ok(data) => data,
            Err(why) => return self.refused(purpose, &why),
        };
        match purpose {
            Purpose::History { channel, rev } => self.history(&channel, rev, &data),
            Purpose::Thread { channel, seq } => self.show_thread(&channel, seq, &data),
            Purpose::Sync { channels } => self.synchronise(&channels, &data),
            Purpose::Join { channel } => self.subscribed(&channel, &data),
            Purpose::Leave { channel } => self.gone(&channel),
            Purpose::Who { channel, is_asked } => self.who(&channel, is_asked, &data),
            Purpose::Ping { started_ms, now_ms } => {
                self.notice(format!("answer after {} ms", now_ms.saturating_sub(started_ms)));
            }
            Purpose::Change => {}
            Purpose::Find(search) => self.searched(search, &data),
        }
    }

    /// Handles the outcome of a message: the message as it was stored, or why it was refused for good.
    pub(super) fn sent(&mut self, channel: &str, nonce: &str, outcome: Result<Value, String>) {
        match outcome {
            Ok(data) => {
                if let Some(channel) = self.channel(channel) {
                    channel.pending.retain(|pending| pending.nonce != nonce);
                }
                self.arrive(&data["message"]);
            }
            Err(why) => {
                let is_screen = self.is_screen;
                if let Some(channel) = self.channel(channel) {
                    match is_screen {
                        true => channel.fail(nonce, &why),
                        // What nobody sees would pile up.
                        false => channel.pending.retain(|pending| pending.nonce != nonce),
                    }
                }
                self.effects.push(Effect::Failed);
                self.notice(format!("not sent: {why}"));
            }
        }
    }

    /// Handles a change of the connection.
    pub(super) fn linked(&mut self, is_online: bool, link: &str) {
        let link = text::line(link);
        if self.link != link {
            self.effects.push(Effect::Print(Printed::Link(link.clone())));
        }
        (self.is_online, self.link) = (is_online, link);
    }

    /// Does what is due every second.
    pub(super) fn tick(&mut self) {
        for channel in &mut self.channels {
            if channel.catching_up == CatchingUp::Failed {
                channel.catching_up = CatchingUp::Wanted;
            }
        }
        if !self.is_online {
            return;
        }
        if let Some((channel_id, seq)) = self.to_read.take().filter(|(_, seq)| self.is_screen && *seq > 0) {
            self.tell("read:mark", json!({ "channel_id": channel_id, "seq": seq }));
        }
    }

    /// Says that the person types, now and then.
    pub(super) fn types(&mut self, now_ms: u64) {
        let Some(channel_id) = self.current.clone() else { return };
        if self.is_online && now_ms.saturating_sub(self.typing_told_ms) >= TYPING_PAUSE_MS {
            self.typing_told_ms = now_ms;
            self.tell("typing:start", json!({ "channel_id": channel_id }));
        }
    }

    /// Shows a channel.
    pub(super) fn open(&mut self, id: &str) {
        let (loads, is_online) = (self.is_screen, self.is_online);
        let Some(channel) = self.channel(id) else { return };
        let needs_history = loads && !channel.has_history && is_online;
        channel.has_history |= needs_history;
        (channel.unread, channel.is_left) = (0, false);
        let seq = channel.seq;
        self.current = Some(id.to_owned());
        self.to_read = Some((id.to_owned(), seq));
        if needs_history {
            self.load(id, None, HISTORY_PAGE);
            let who = Purpose::Who { channel: id.to_owned(), is_asked: false };
            self.ask(who, "presence:list", json!({ "channel_id": id }));
        }
    }

    /// Shows the next channel, or the one before.
    pub(super) fn turn(&mut self, is_forward: bool) {
        let here: Vec<&Channel> = self.channels.iter().filter(|channel| !channel.is_left).collect();
        let at = here.iter().position(|channel| Some(&channel.id) == self.current.as_ref()).unwrap_or(0);
        let step = if is_forward { 1 } else { here.len().saturating_sub(1) };
        let Some(next) = (at + step).checked_rem(here.len()).and_then(|at| here.get(at)) else { return };
        let id = next.id.clone();
        self.open(&id);
    }

    /// Asks for earlier messages of a channel.
    pub(super) fn load(&mut self, channel: &str, before: Option<String>, limit: usize) {
        let mut request = json!({ "channel_id": channel, "limit": limit });
        if let Some(before) = before {
            request["before"] = json!(before);
        }
        let rev = self.channel(channel).map_or(0, |channel| channel.rev);
        self.ask(Purpose::History { channel: channel.to_owned(), rev }, "history", request);
    }

    /// Sends a message, which is shown as on its way until the server has it.
    pub(super) fn send(&mut self, channel: &str, body: String, thread: Option<String>, nonce: String) {
        let mut payload = json!({ "channel_id": channel, "body": body, "nonce": nonce });
        if let Some(thread) = thread {
            payload["thread_id"] = json!(thread);
        }
        if let Some(channel) = self.channel(channel) {
            channel.pending.push(Pending { nonce: nonce.clone(), body, failure: None });
        }
        self.effects.push(Effect::Send { channel: channel.to_owned(), nonce, payload });
    }

    /// Returns how many messages are on their way.
    pub(super) fn on_their_way(&self) -> usize {
        let waiting = |channel: &Channel| channel.pending.iter().filter(|p| p.failure.is_none()).count();
        self.channels.iter().map(waiting).sum()
    }

    /// Asks the server something.
    pub(super) fn ask(&mut self, purpose: Purpose, event: &'static str, payload: Value) {
        self.asked += 1;
        self.commands += usize::from(purpose.is_of_person());
        self.effects.push(Effect::Ask { purpose, event, payload });
    }

    pub(super) fn tell(&mut self, event: &'static str, payload: Value) {
        self.effects.push(Effect::Tell { event, payload });
    }
}

/// Returns a field as text; empty if it is none.
pub(super) fn word(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// Returns a field as a number; 0 if it is none.
pub(super) fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

/// The most lines of the program itself that are kept.
const NOTICES_MAX: usize = 200;
/// How many earlier messages are fetched for a channel.
const HISTORY_PAGE: usize = 50;
/// How often the server is told that the person types.
const TYPING_PAUSE_MS: u64 = 4_000;

#[cfg(test)]
mod tests;
