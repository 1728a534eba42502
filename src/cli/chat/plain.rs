//! `imks chat` without a screen: reads lines, prints lines.

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Args;
use super::conversation::Conversation;
use super::effect::{Effect, Printed};
use super::message::Message;
use super::remote::{News, Remote, now_ms, tell};
use crate::ImksResult;
use crate::cli::terminal::{EXIT_INTERRUPTED, Endings, Progress, causes, text};
use crate::cli::{hint, say};
use crate::client::{ClientError, nonce};

/// How a chat without a screen ended.
enum End {
    Done,
    Interrupted,
    /// It could not sign in, which was said.
    NotConnected,
    /// The session ended, for this reason.
    SignedOut(String),
}

/// Chats until the input ends and everything is sent.
pub(super) async fn run(
    remote: Remote,
    mut news: mpsc::Receiver<News>,
    mut endings: Endings,
    args: &Args,
    shown: &str,
) -> ImksResult<ExitCode> {
    let conversation = Conversation::new(args.channel.clone(), false).with_outbox(remote.take_kept());
    let (input, is_json) = (lines(), args.json);
    let mut chat = Plain { conversation, remote, input, has_input: true, is_json, has_failed: false };
    let end = match Box::pin(chat.sign_in(&mut endings, shown)).await? {
        Some(end) => end,
        None => Box::pin(chat.run(&mut news, &mut endings)).await?,
    };
    chat.finish(end, news).await
}

/// Returns why there is no connection, and who finds out more.
pub(super) fn not_connected(error: &ClientError, shown: &str) -> String {
    format!("imks: {}; `imks doctor {shown}` finds out why", causes(error))
}

struct Plain {
    conversation: Conversation,
    remote: Remote,
    input: mpsc::Receiver<io::Result<String>>,
    has_input: bool,
    is_json: bool,
    has_failed: bool,
}

impl Plain {
    /// Signs in, again and again while there is input that an outbox keeps meanwhile. Returns how the chat ended, if it did.
    async fn sign_in(&mut self, endings: &mut Endings, shown: &str) -> ImksResult<Option<End>> {
        let mut progress = Some(Progress::show("connecting", self.is_json));
        let (mut signing_in, mut has_failed) = (Box::pin(self.remote.sign_in()), false);
        let mut next = None;
        loop {
            let takes_lines = self.takes_lines();
            if has_failed && !takes_lines {
                return Ok(Some(End::NotConnected));
            }
            tokio::select! {
                signed_in = &mut signing_in, if !has_failed => {
                    drop(progress.take());
                    let Err(error) = signed_in else { return Ok(None) };
                    if next.is_none() {
                        hint(&not_connected(&error, shown));
                    }
                    // The input of a person has no end that could be waited for.
                    if io::stdin().is_terminal() {
                        return Ok(Some(End::NotConnected));
                    }
                    has_failed = true;
                    next = error.is_retryable().then(|| Instant::now() + SIGN_IN_PAUSE);
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if has_failed && next.is_some() => {
                    (signing_in, has_failed) = (Box::pin(self.remote.sign_in()), false);
                }
                line = self.input.recv(), if takes_lines => self.take(line),
                () = endings.next() => return Ok(Some(End::Interrupted)),
            }
            self.carry_out()?;
        }
    }

    async fn run(&mut self, news: &mut mpsc::Receiver<News>, endings: &mut Endings) -> ImksResult<End> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ready_by = Instant::now() + READY_MAX;
        loop {
            let (is_ready, takes_lines) = (self.conversation.has_channels, self.takes_lines());
            tokio::select! {
                told = news.recv() => {
                    let Some(told) = told else { return Ok(End::SignedOut("the client has ended".into())) };
                    if let Some(error) = tell(&mut self.conversation, told) {
                        return Ok(End::SignedOut(causes(&error)));
                    }
                }
                line = self.input.recv(), if takes_lines => self.take(line),
                _ = ticks.tick() => self.conversation.tick(),
                () = sleep_until(ready_by), if !is_ready => {
                    let why = "no session:ready comes: the server is away, or it is not imks";
                    return Ok(End::SignedOut(why.into()));
                }
                () = endings.next() => return Ok(End::Interrupted),
            }
            self.conversation.proceed(now_ms(), nonce);
            if self.carry_out()? {
                // What waits is still sent.
                self.has_input = false;
            }
            if !self.has_input && self.conversation.is_done() {
                return Ok(End::Done);
            }
        }
    }

    /// Says what is left to be said, and closes the connection.
    async fn finish(self, end: End, mut news: mpsc::Receiver<News>) -> ImksResult<ExitCode> {
        let Self { mut conversation, remote, is_json, has_failed, .. } = self;
        let left_over = remote.left_over(conversation.waiting());
        remote.close().await;
        if let End::SignedOut(why) = &end {
            hear_out(&mut conversation, &mut news).await;
            for effect in conversation.take_effects() {
                if let Effect::Print(printed) = effect {
                    print(is_json, &printed)?;
                }
            }
            if !conversation.is_token_over {
                hint(&format!("imks: {why}"));
            }
        }
        for told in [left_over.clone(), conversation.not_taken()].into_iter().flatten() {
            hint(&format!("imks: {told}"));
        }
        Ok(match end {
            End::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
            End::Done if !has_failed && left_over.is_none() => ExitCode::SUCCESS,
            End::Done | End::NotConnected | End::SignedOut(_) => ExitCode::FAILURE,
        })
    }

    fn takes_lines(&self) -> bool {
        self.has_input && self.conversation.wants_line()
    }

    /// Takes a line. One that cannot be read, such as one that is not UTF-8, is the last: what came before is still sent.
    fn take(&mut self, line: Option<io::Result<String>>) {
        match line {
            Some(Ok(line)) => self.conversation.enter(&line, now_ms(), nonce),
            Some(Err(error)) => {
                self.conversation.fails(format!("the input ends here: {}", causes(&error)));
                self.has_input = false;
            }
            None => self.has_input = false,
        }
    }

    /// Does what the conversation wants. Returns whether it is over.
    fn carry_out(&mut self) -> ImksResult<bool> {
        let mut is_over = false;
        let mut effects = self.conversation.take_effects();
        while !effects.is_empty() {
            for effect in effects {
                match self.remote.carry_out(effect, &mut self.conversation) {
                    Some(Effect::Print(printed)) => print(self.is_json, &printed)?,
                    Some(Effect::Failed) => self.has_failed = true,
                    Some(Effect::Quit) => is_over = true,
                    _ => {}
                }
            }
            effects = self.conversation.take_effects();
        }
        Ok(is_over)
    }
}

/// Hears the events that came before the end of the session, which its end has overtaken.
async fn hear_out(conversation: &mut Conversation, news: &mut mpsc::Receiver<News>) {
    let hearing = async {
        while let Some(told) = news.recv().await {
            if matches!(told, News::Event { .. }) {
                tell(conversation, told);
            }
        }
    };
    // Whoever does not end then has nothing more to say.
    let _ = timeout(HEAR_OUT_MAX, hearing).await;
}

fn print(is_json: bool, printed: &Printed) -> ImksResult<()> {
    match (is_json, printed) {
        (true, printed) => say(&as_json(printed).to_string()),
        (false, Printed::Notice(_) | Printed::Link(_)) => {
            hint(&as_line(printed));
            Ok(())
        }
        (false, printed) => say(&as_line(printed)),
    }
}

/// Reads the lines of standard input in a thread of its own, which may wait for ever.
fn lines() -> mpsc::Receiver<io::Result<String>> {
    let (say, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
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
/// How long the first event of the session may take.
const READY_MAX: Duration = Duration::from_secs(30);
/// The pause before signing in is tried again while there is input.
const SIGN_IN_PAUSE: Duration = Duration::from_secs(5);
/// How long what came before the end of a session is waited for.
const HEAR_OUT_MAX: Duration = Duration::from_secs(2);
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
