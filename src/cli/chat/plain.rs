//! `imks chat` without a screen: reads lines, prints lines.

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Args;
use super::conversation::Conversation;
use super::effect::{Effect, Printed};
use super::message::Message;
use super::remote::{News, Remote, now_ms, tell};
use crate::cli::terminal::{EXIT_INTERRUPTED, Endings, causes, text};
use crate::cli::{hint, say};
use crate::client::nonce;
use crate::{ImksError, ImksResult};

/// How a chat without a screen ended.
enum End {
    Done,
    Interrupted,
    SignedOut,
}

/// Chats until the input ends and everything is sent.
pub(super) async fn run(
    remote: Remote,
    mut news: mpsc::Receiver<News>,
    mut endings: Endings,
    args: &Args,
) -> ImksResult<ExitCode> {
    let (conversation, is_json) = (Conversation::new(args.channel.clone(), false), args.json);
    let mut chat = Plain { conversation, remote, is_json, has_failed: false };
    let end = Box::pin(chat.run(&mut news, &mut endings)).await?;
    let is_whole = !chat.has_failed && chat.conversation.on_their_way() == 0;
    chat.remote.close().await;
    Ok(match (end, is_whole) {
        (End::Interrupted, _) => ExitCode::from(EXIT_INTERRUPTED),
        (End::Done, true) => ExitCode::SUCCESS,
        (End::Done, false) | (End::SignedOut, _) => ExitCode::FAILURE,
    })
}

struct Plain {
    conversation: Conversation,
    remote: Remote,
    is_json: bool,
    has_failed: bool,
}

impl Plain {
    async fn run(&mut self, news: &mut mpsc::Receiver<News>, endings: &mut Endings) -> ImksResult<End> {
        let mut input = lines();
        let (mut has_input, mut ticks) = (true, interval(TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ready_by = Instant::now() + READY_MAX;
        loop {
            // Lines are for the channels that the first event of the session names.
            let is_ready = self.conversation.me.is_some();
            let takes_lines = has_input && is_ready && !self.conversation.is_joining && self.has_room();
            tokio::select! {
                told = news.recv() => {
                    let Some(told) = told else { return Ok(End::SignedOut) };
                    if let Some(error) = tell(&mut self.conversation, told) {
                        hint(&format!("imks: {}", causes(&error)));
                        return Ok(End::SignedOut);
                    }
                }
                line = input.recv(), if takes_lines => match line {
                    Some(line) => {
                        let line = line.map_err(ImksError::io("reading standard input"))?;
                        self.conversation.enter(&line, now_ms(), nonce);
                    }
                    None => has_input = false,
                },
                _ = ticks.tick() => self.conversation.tick(),
                () = sleep_until(ready_by), if !is_ready => {
                    hint("imks: no session:ready comes: the server is away, or it is not imks");
                    return Ok(End::SignedOut);
                }
                () = endings.next() => return Ok(End::Interrupted),
            }
            if self.carry_out()? || (!has_input && self.is_idle()) {
                return Ok(End::Done);
            }
        }
    }

    /// Whether another line may be typed: what waits for the server is kept in memory.
    fn has_room(&self) -> bool {
        self.conversation.on_their_way() < WAITING_MAX && self.conversation.asked < WAITING_MAX
    }

    /// Whether everything was answered that was typed.
    fn is_idle(&self) -> bool {
        self.conversation.on_their_way() == 0 && self.conversation.asked == 0
    }

    /// Does what the conversation wants. Returns whether it is over.
    fn carry_out(&mut self) -> ImksResult<bool> {
        let mut is_over = false;
        let mut effects = self.conversation.take_effects();
        while !effects.is_empty() {
            for effect in effects {
                match self.remote.carry_out(effect, &mut self.conversation) {
                    Some(Effect::Print(printed)) => self.print(&printed)?,
                    Some(Effect::Failed) => self.has_failed = true,
                    Some(Effect::Quit) => is_over = true,
                    _ => {}
                }
            }
            effects = self.conversation.take_effects();
        }
        Ok(is_over)
    }

    fn print(&self, printed: &Printed) -> ImksResult<()> {
        match (self.is_json, printed) {
            (true, printed) => say(&as_json(printed).to_string()),
            (false, Printed::Notice(_) | Printed::Link(_)) => {
                hint(&as_line(printed));
                Ok(())
            }
            (false, printed) => say(&as_line(printed)),
        }
    }
}

/// Reads the lines of standard input in a thread of its own, which may wait for ever.
fn lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (say, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            // Nobody listens any more when the chat has ended.
            if say.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn as_line(printed: &Printed) -> String {
    let message = |channel: &str, message: &Message, mark: &str| {
        let (time, name) = (message.time(), message.name());
        let body = text::line(&message.shown().replace('\n', " ⏎ "));
        format!("[{channel}] {time} #{}{mark} {name}: {body}", message.seq)
    };
    match printed {
        Printed::Message { channel, message: new } => message(channel, new, ""),
        Printed::Edited { channel, message: edited } => message(channel, edited, " (changed)"),
        Printed::Notice(text) => format!("* {text}"),
        Printed::Link(text) => format!("* {}", text::line(text)),
    }
}

fn as_json(printed: &Printed) -> Value {
    let message = |event: &str, channel: &str, message: &Message| {
        json!({
            "event": event, "channel": channel, "channel_id": message.channel_id, "id": message.id, "seq": message.seq,
            "author": message.author.username, "body": message.body, "created_at": message.created_at,
            "thread_id": message.thread_id,
        })
    };
    match printed {
        Printed::Message { channel, message: new } => message("message", channel, new),
        Printed::Edited { channel, message: edited } => message("changed", channel, edited),
        Printed::Notice(text) => json!({ "event": "notice", "text": text }),
        Printed::Link(text) => json!({ "event": "connection", "text": text }),
    }
}

/// How many lines of the input are read ahead.
const LINES_MAX: usize = 64;
/// How many messages and questions may wait for the server before further lines are read.
const WAITING_MAX: usize = 64;
/// How long the first event of the session may take.
const READY_MAX: Duration = Duration::from_secs(30);
/// The interval of what is done now and then.
const TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_cannot_act_on_the_terminal() {
        let message = Message {
            seq: 7,
            body: "one\ntwo\u{1b}[2J".into(),
            created_at: "2026-06-11T10:02:00.000Z".into(),
            author: super::super::message::Author { id: "u".into(), username: "a\u{7}nn".into() },
            ..Message::default()
        };
        let printed = Printed::Message { channel: "general".into(), message: Box::new(message) };
        assert_eq!(as_line(&printed), "[general] 10:02 #7 ann: one ⏎ two[2J");
        assert_eq!(as_json(&printed)["body"], "one\ntwo\u{1b}[2J");
    }
}
