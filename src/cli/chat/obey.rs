//! What `imks chat` does about each line that a person types.

use serde_json::json;
use uuid::Uuid;

use super::command::{self, Command, HELP};
use super::conversation::Conversation;
use super::effect::{Effect, Purpose};
use super::message::Message;

impl Conversation {
    /// Handles a line: a message or a command. `nonce` makes a new value at each call.
    pub(super) fn enter(&mut self, line: &str, now_ms: u64, nonce: impl Fn() -> String) {
        match command::parse(line) {
            Ok(None) => {}
            Ok(Some(command)) => self.obey(command, now_ms, &nonce),
            Err(usage) => self.notice(usage),
        }
    }

    fn obey(&mut self, command: Command, now_ms: u64, nonce: &dyn Fn() -> String) {
        match command {
            Command::List => self.show_list(),
            Command::Broadcast(body) => {
                let all: Vec<String> = self.here();
                self.notice(format!("sent to {} channels", all.len()));
                all.iter().for_each(|channel| self.send(channel, body.clone(), None, nonce()));
            }
            Command::Ping => {
                let purpose = Purpose::Ping { started_ms: now_ms, now_ms };
                self.ask(purpose, "ping", json!({}));
            }
            Command::Join(name) => self.join(&name),
            Command::Leave(name) => self.leave(name),
            Command::Stats => self.effects.push(Effect::Stats),
            Command::Transport => self.effects.push(Effect::Transport),
            Command::Quit => self.quit(),
            Command::Help => HELP.iter().for_each(|line| self.notice(*line)),
            command => match self.current.clone() {
                Some(channel) => self.obey_in(&channel, command, nonce),
                None => self.without_channel(&command),
            },
        }
    }

    /// Says that there is no channel for a line. Without a screen a message is lost then.
    fn without_channel(&mut self, command: &Command) {
        if !self.is_screen && matches!(command, Command::Say(_) | Command::Thread { body: Some(_), .. }) {
            self.effects.push(Effect::Failed);
        }
        self.notice("you are in no channel: /join one");
    }

    /// Does what concerns the channel that is shown.
    fn obey_in(&mut self, channel: &str, command: Command, nonce: &dyn Fn() -> String) {
        match command {
            Command::Say(body) => self.send(channel, body, None, nonce()),
            Command::History(limit) => {
                let first = self.shown().and_then(|channel| channel.messages().first());
                let before = first.map(|message| message.id.clone());
                self.load(channel, before, limit);
            }
            Command::React { seq, emoji } => {
                if let Some(message) = self.meant(seq, |_| true) {
                    let request = json!({ "channel_id": channel, "message_id": message, "emoji": emoji });
                    self.ask(Purpose::Change, "reaction:add", request);
                }
            }
            Command::Edit { seq, body } => {
                let me = self.me.clone().unwrap_or_default();
                if let Some(message) = self.meant(seq, |message| message.author.id == me.id) {
                    let request = json!({ "channel_id": channel, "message_id": message, "body": body });
                    self.ask(Purpose::Change, "message:edit", request);
                }
            }
            Command::Thread { seq, body } => self.thread_of(channel, seq, body, nonce),
            Command::Who => {
                let purpose = Purpose::Who { channel: channel.to_owned(), is_asked: true };
                self.ask(purpose, "presence:list", json!({ "channel_id": channel }));
            }
            // The others concern no channel.
            _ => {}
        }
    }

    fn thread_of(&mut self, channel: &str, seq: i64, body: Option<String>, nonce: &dyn Fn() -> String) {
        let Some(root) = self.meant(Some(seq), |_| true) else { return };
        match body {
            Some(body) => self.send(channel, body, Some(root), nonce()),
            None => {
                let request = json!({ "channel_id": channel, "thread_id": root });
                self.ask(Purpose::Thread { channel: channel.to_owned(), seq }, "history", request);
            }
        }
    }

    /// Returns the id of the message that is meant: with this number, or the last one that fits.
    fn meant(&mut self, seq: Option<i64>, fits: impl Fn(&Message) -> bool) -> Option<String> {
        let channel = self.shown()?;
        let found = match seq {
            Some(seq) => channel.numbered(seq),
            None => {
                channel.messages().iter().rev().find(|message| message.deleted_at.is_none() && fits(message))
            }
        };
        let id = found.map(|message| message.id.clone());
        match (&id, seq) {
            (None, Some(seq)) => {
                self.notice(format!("there is no message #{seq} here; /history shows earlier ones"))
            }
            (None, None) => self.notice("there is no such message here"),
            _ => {}
        }
        id
    }

    fn here(&self) -> Vec<String> {
        self.channels.iter().filter(|channel| !channel.is_left).map(|channel| channel.id.clone()).collect()
    }

    fn show_list(&mut self) {
        let lines: Vec<String> = self
            .channels
            .iter()
            .map(|channel| match (channel.is_left, channel.unread) {
                (true, _) => format!("{} (left)", channel.name),
                (false, 0) => channel.name.clone(),
                (false, unread) => format!("{} ({unread} unread)", channel.name),
            })
            .collect();
        self.notice(format!("channels: {}", lines.len()));
        lines.into_iter().for_each(|line| self.notice(format!("  {line}")));
    }

    fn join(&mut self, name: &str) {
        // Of channels that this user is not in, the server knows no names.
        let unknown = || Uuid::parse_str(name).is_ok().then(|| name.to_owned());
        let Some(id) = self.named(name).or_else(unknown) else {
            return self.not_joined(format!("there is no channel {name} for you: /list shows yours"));
        };
        let is_here = self.channels.iter().any(|channel| channel.id == id && !channel.is_left);
        match is_here {
            true => self.open(&id),
            false => {
                let request = json!({ "channel_ids": [id] });
                self.is_joining = true;
                self.ask(Purpose::Join { channel: id }, "channel:subscribe", request);
            }
        }
    }

    fn leave(&mut self, name: Option<String>) {
        let id = match &name {
            Some(name) => self.named(name),
            None => self.current.clone(),
        };
        match id {
            Some(id) => {
                let request = json!({ "channel_ids": [id] });
                self.ask(Purpose::Leave { channel: id }, "channel:unsubscribe", request);
            }
            None => self.notice(format!("there is no channel {}", name.unwrap_or_default())),
        }
    }

    /// Ends, or says what would be lost, once.
    fn quit(&mut self) {
        let waiting = self.on_their_way();
        if waiting == 0 || self.was_warned {
            return self.effects.push(Effect::Quit);
        }
        self.was_warned = true;
        self.notice(format!("{waiting} messages are not sent yet; /quit again ends anyway"));
    }
}
