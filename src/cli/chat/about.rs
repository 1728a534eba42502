//! Commands of `imks chat` about one message, which is looked for at the server where it is not known.

use serde_json::{Value, json};

use super::channel::Channel;
use super::command::Command;
use super::conversation::Conversation;
use super::effect::{Purpose, Search};
use super::message::Message;

impl Conversation {
    /// Does what a command says about a message: the one with its number, or the last one that fits.
    pub(super) fn obey_about(&mut self, channel: &str, command: Command, nonce: String) {
        let known = self.channels.iter().find(|known| known.id == channel);
        match known.and_then(|known| self.meant(&command, known.messages())) {
            Some(message) => self.act(channel, command, &message, nonce),
            None => self.search(Search { channel: channel.to_owned(), command, nonce, pages: 0 }, None),
        }
    }

    /// Takes a page of the search for a message.
    pub(super) fn searched(&mut self, search: Search, data: &Value) {
        let page = data["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let messages: Vec<Message> = page.iter().filter_map(Message::read).collect();
        if let Some(message) = self.meant(&search.command, &messages) {
            return self.act(&search.channel, search.command, &message, search.nonce);
        }
        let is_passed = |seq| messages.first().is_some_and(|first| first.seq < seq);
        let is_over = search.command.seq().is_some_and(is_passed) || data["has_more_before"] != true;
        match messages.first() {
            Some(first) if !is_over && search.pages < PAGES_MAX => {
                let before = first.id.clone();
                self.search(search, Some(before));
            }
            _ => self.not_found(&search, is_over),
        }
    }

    /// Asks for the next page of messages, which is the one before `before`, or else the one before what is known.
    fn search(&mut self, mut search: Search, before: Option<String>) {
        search.pages += 1;
        let wanted = search.command.seq();
        let after_it = |channel: &Channel| {
            let is_after = |message: &&Message| wanted.is_none_or(|seq| message.seq > seq);
            channel.messages().iter().find(is_after).map(|message| message.id.clone())
        };
        let before = before.or_else(|| self.channel(&search.channel).and_then(|channel| after_it(channel)));
        let mut request = json!({ "channel_id": search.channel, "limit": PAGE });
        if let Some(before) = before {
            request["before"] = json!(before);
        }
        self.ask(Purpose::Find(search), "history", request);
    }

    fn not_found(&mut self, search: &Search, is_over: bool) {
        let name = self.name_of(&search.channel);
        let place = match is_over {
            true => format!("in {name}"),
            false => format!("among the last {} of {name}", PAGES_MAX * PAGE),
        };
        match search.command.seq() {
            Some(seq) => self.fails(format!("there is no message #{seq} {place}")),
            None => self.fails(format!("there is no such message {place}")),
        }
    }

    /// Returns the id of the message that is meant, if it is one of these, which stand in their order.
    fn meant(&self, command: &Command, messages: &[Message]) -> Option<String> {
        let me = self.me.as_ref().map(|me| me.id.as_str()).unwrap_or_default();
        let is_meant = |message: &&Message| match (command.seq(), command) {
            (Some(seq), _) => message.seq == seq,
            (None, Command::Edit { .. }) => message.deleted_at.is_none() && message.author.id == me,
            (None, _) => message.deleted_at.is_none(),
        };
        messages.iter().rev().find(is_meant).map(|message| message.id.clone())
    }

    fn act(&mut self, channel: &str, command: Command, message: &str, nonce: String) {
        match command {
            Command::React { emoji, .. } => {
                let request = json!({ "channel_id": channel, "message_id": message, "emoji": emoji });
                self.ask(Purpose::Change, "reaction:add", request);
            }
            Command::Edit { body, .. } => {
                let request = json!({ "channel_id": channel, "message_id": message, "body": body });
                self.ask(Purpose::Change, "message:edit", request);
            }
            Command::Thread { body: Some(body), .. } => {
                self.send(channel, body, Some(message.to_owned()), nonce);
            }
            Command::Thread { seq, body: None } => {
                let request = json!({ "channel_id": channel, "thread_id": message });
                self.ask(Purpose::Thread { channel: channel.to_owned(), seq }, "history", request);
            }
            // The others are about no message.
            _ => {}
        }
    }
}

/// The messages of one page of a search.
const PAGE: usize = 100;
/// The most pages of a search.
const PAGES_MAX: usize = 50;
