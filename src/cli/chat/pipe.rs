//! The lines of `imks chat` without a screen: each is obeyed when what stands before it is answered.

use super::command::Command;
use super::conversation::Conversation;
use super::effect::{Effect, Kept};
use crate::cli::terminal::text::counted;

impl Conversation {
    /// Adds an outbox, if there is one, with the messages that it keeps from before.
    pub(super) fn with_outbox(mut self, kept: Option<Vec<Kept>>) -> Self {
        self.has_outbox = kept.is_some();
        self.kept.extend(kept.into_iter().flatten());
        self
    }

    /// Obeys the lines whose turn it is. A message waits for the commands before it, a command for everything.
    pub(super) fn proceed(&mut self, now_ms: u64, nonce: impl Fn() -> String) {
        while let Some(line) = self.lines.pop_front() {
            match line {
                Ok(Command::Say(body)) if self.may_keep() => self.keep_line(body, nonce()),
                line if self.is_turn_of(&line) => self.follow(line, now_ms, &nonce),
                line => return self.lines.push_front(line),
            }
        }
    }

    /// Whether another line may be read: what waits is kept in memory.
    pub(super) fn wants_line(&self) -> bool {
        self.lines.is_empty() && (self.has_channels || self.may_keep())
    }

    /// Whether everything was done that was typed, and answered.
    pub(super) fn is_done(&self) -> bool {
        self.has_channels && self.lines.is_empty() && self.waiting() == 0 && self.asked == 0
    }

    /// Returns how many messages are not sent yet.
    pub(super) fn waiting(&self) -> usize {
        self.kept.len() + self.on_their_way()
    }

    /// Returns why not all of the input was taken before the first sign-in, where that matters to an outbox.
    pub(super) fn not_taken(&self) -> Option<String> {
        if self.has_channels || !self.has_outbox {
            return None;
        }
        if self.wanted_channel.is_none() {
            return Some("nothing of the input was taken: with --channel it is kept in the outbox".into());
        }
        if self.kept.len() >= KEPT_MAX {
            return Some(format!("no more than {KEPT_MAX} messages are kept: what followed was not taken"));
        }
        let is_stuck = self.lines.front().is_some_and(|line| *line != Ok(Command::Quit));
        is_stuck.then(|| "a command needs the server: it, and what followed it, was not taken".into())
    }

    /// Sends what the outbox keeps, now that the channels are known. What is for none of them is lost, and said.
    pub(super) fn send_kept(&mut self) {
        if !self.has_channels {
            return;
        }
        while self.on_their_way() < WAITING_MAX
            && let Some(Kept { channel, body, thread, nonce }) = self.kept.pop_front()
        {
            match self.named(&channel) {
                Some(id) => self.send(&id, body, thread, nonce),
                None => {
                    self.effects.extend([Effect::Forget { nonce }, Effect::Failed]);
                    self.notice(format!("not sent: there is no channel {channel} for you: {body}"));
                }
            }
        }
    }

    fn is_turn_of(&self, line: &Result<Command, String>) -> bool {
        let is_message = matches!(line, Ok(Command::Say(_)));
        let is_free = self.has_channels && self.kept.is_empty() && self.commands == 0;
        is_free
            && match is_message {
                true => self.on_their_way() < WAITING_MAX,
                false => self.on_their_way() == 0 && self.asked == 0,
            }
    }

    fn may_keep(&self) -> bool {
        let is_early = !self.has_channels && self.has_outbox && self.wanted_channel.is_some();
        is_early && self.kept.len() < KEPT_MAX
    }

    fn keep_line(&mut self, body: String, nonce: String) {
        let Some(channel) = self.wanted_channel.clone() else { return };
        let kept = Kept { channel, body, thread: None, nonce };
        self.effects.push(Effect::Keep(kept.clone()));
        self.kept.push_back(kept);
    }
}

/// Returns what becomes of messages that are not sent when the chat ends, if there are any.
pub(super) fn left_over(waiting: usize, outbox: Option<&str>) -> Option<String> {
    let text = match outbox {
        Some(file) => {
            format!(
                "{} kept in {file}: the next run sends what is there",
                counted(waiting as u64, "message is", "messages are")
            )
        }
        None => format!("{} not sent", counted(waiting as u64, "message was", "messages were")),
    };
    (waiting > 0).then_some(text)
}

/// How many messages may be on their way before the next one is sent.
const WAITING_MAX: usize = 64;
/// The most messages that the outbox keeps before a sign-in.
pub(super) const KEPT_MAX: usize = 1_000;
