//! What `imks chat` does about each line that a person types.

use serde_json::json;
use uuid::Uuid;

use super::command::{self, Command, HELP};
use super::conversation::Conversation;
use super::effect::{Effect, Purpose};
use crate::cli::terminal::text::counted;

impl Conversation {
    /// Handles a line: a message or a command. Without a screen it waits for what stands before it. `nonce` makes a new
    /// value at each call.
    pub(super) fn enter(&mut self, line: &str, now_ms: u64, nonce: impl Fn() -> String) {
        let Some(line) = command::parse(line).transpose() else { return };
        if self.is_screen {
            return self.follow(line, now_ms, &nonce);
        }
        self.lines.push_back(line);
        self.proceed(now_ms, nonce);
    }

    /// Does what a line says.
    pub(super) fn follow(&mut self, line: Result<Command, String>, now_ms: u64, nonce: &dyn Fn() -> String) {
        match line {
            Ok(command) => self.obey(command, now_ms, nonce),
            Err(usage) => self.fails(usage),
        }
    }

    /// Says why something was not done. Without a screen nobody looks, so that the exit code says it too.
    pub(super) fn fails(&mut self, why: impl Into<String>) {
        if !self.is_screen {
            self.effects.push(Effect::Failed);
        }
        self.notice(why);
    }

    fn obey(&mut self, command: Command, now_ms: u64, nonce: &dyn Fn() -> String) {
        match command {
            Command::List => self.show_list(),
            Command::Broadcast(body) => {
                let all: Vec<String> = self.here();
                if all.is_empty() {
                    return self.fails("you are in no channel");
                }
                self.notice(format!("sent to {}", counted(all.len() as u64, "channel", "channels")));
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
                None => self.fails("you are in no channel: /join one"),
            },
        }
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
            Command::React { .. } | Command::Edit { .. } | Command::Thread { .. } => {
                self.obey_about(channel, command, nonce());
            }
            Command::Who => {
                let purpose = Purpose::Who { channel: channel.to_owned(), is_asked: true };
                self.ask(purpose, "presence:list", json!({ "channel_id": channel }));
            }
            // The others concern no channel.
            _ => {}
        }
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
            None => match name {
                Some(name) => self.fails(format!("there is no channel {name}")),
                None => self.fails("you are in no channel"),
            },
        }
    }

    /// Ends, or says what would be lost, once. Without a screen nothing is on its way when the turn of this line comes.
    fn quit(&mut self) {
        let waiting = self.waiting();
        if waiting == 0 || self.was_warned || !self.is_screen {
            self.lines.clear();
            return self.effects.push(Effect::Quit);
        }
        self.was_warned = true;
        let are = counted(waiting as u64, "message is", "messages are");
        self.notice(format!("{are} not sent yet; /quit again ends anyway"));
    }
}
