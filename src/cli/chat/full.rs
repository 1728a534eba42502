//! `imks chat` on a whole terminal: keys in, screens out.

use std::process::ExitCode;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::conversation::Conversation;
use super::effect::Effect;
use super::input::Input;
use super::remote::{News, Remote, now_ms, tell};
use super::view;
use crate::ImksResult;
use crate::cli::terminal::{Endings, FullScreen};
use crate::client::nonce;

/// Chats until the person ends it.
pub(super) async fn run(
    remote: Remote,
    mut news: mpsc::Receiver<News>,
    mut endings: Endings,
    channel: Option<String>,
) -> ImksResult<ExitCode> {
    let screen = FullScreen::open()?;
    let mut chat = Full {
        conversation: Conversation::new(channel, true).with_outbox(remote.take_kept()),
        remote,
        input: Input::default(),
        screen,
        back: 0,
        is_whole: true,
    };
    Box::pin(chat.run(&mut news, &mut endings)).await?;
    let Full { remote, screen, conversation, is_whole, .. } = chat;
    // The terminal is given back before the goodbye, which may take a moment.
    drop(screen);
    let left_over = remote.left_over(conversation.waiting());
    remote.close().await;
    if let Some(left_over) = &left_over {
        crate::cli::hint(&format!("imks: {left_over}"));
    }
    Ok(if is_whole && left_over.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Full {
    conversation: Conversation,
    remote: Remote,
    input: Input,
    screen: FullScreen,
    /// By how many rows the messages are scrolled back.
    back: usize,
    /// Whether the person is still signed in, and no message was refused.
    is_whole: bool,
}

impl Full {
    async fn run(&mut self, news: &mut mpsc::Receiver<News>, endings: &mut Endings) -> ImksResult<()> {
        let mut keys = EventStream::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_over = tokio::select! {
                told = news.recv() => {
                    let Some(told) = told else { return Ok(()) };
                    self.hear(told, news);
                    false
                }
                key = keys.next() => match key {
                    Some(Ok(event)) => self.happen(event),
                    // The terminal is gone.
                    Some(Err(_)) | None => true,
                },
                _ = ticks.tick() => {
                    self.conversation.tick();
                    false
                }
                () = endings.next() => true,
            };
            if self.carry_out() || is_over {
                return Ok(());
            }
            self.draw()?;
        }
    }

    /// Handles what was told, and what has been told since, before the screen is drawn again.
    fn hear(&mut self, told: News, news: &mut mpsc::Receiver<News>) {
        self.take(told);
        for _ in 1..NEWS_PER_SCREEN {
            let Ok(told) = news.try_recv() else { return };
            self.take(told);
        }
    }

    fn take(&mut self, told: News) {
        if let Some(error) = tell(&mut self.conversation, told) {
            let why = crate::cli::terminal::causes(&error);
            self.conversation.notice(format!("the connection is over: {why}; /quit ends"));
            self.is_whole = false;
        }
    }

    fn draw(&mut self) -> ImksResult<()> {
        let size = self.screen.size();
        let screen = view::screen(&mut self.conversation, &self.input, size, &mut self.back, now_ms());
        self.screen.show(screen)
    }

    /// Does what the conversation wants. Returns whether it is over.
    fn carry_out(&mut self) -> bool {
        let mut is_over = false;
        let mut effects = self.conversation.take_effects();
        while !effects.is_empty() {
            for effect in effects {
                match self.remote.carry_out(effect, &mut self.conversation) {
                    Some(Effect::Quit) => is_over = true,
                    Some(Effect::Failed) => self.is_whole = false,
                    _ => {}
                }
            }
            effects = self.conversation.take_effects();
        }
        is_over
    }

    /// Handles an event of the terminal. Returns whether the person ends it.
    fn happen(&mut self, event: Event) -> bool {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => return self.press(key),
            Event::Paste(text) => {
                self.input.paste(&text);
                self.conversation.types(now_ms());
            }
            Event::Resize(..) => self.screen.forget(),
            _ => {}
        }
        false
    }

    fn press(&mut self, key: KeyEvent) -> bool {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, is_control) {
            (KeyCode::Char('c' | 'd'), true) => return true,
            (KeyCode::Char(c), true) => self.control(c),
            (KeyCode::Char(c), false) => {
                self.input.insert(c);
                if !self.input.text().starts_with('/') {
                    self.conversation.types(now_ms());
                }
            }
            (KeyCode::Enter, _) => self.enter(),
            (KeyCode::PageUp, _) => self.back += self.page(),
            (KeyCode::PageDown, _) => self.back = self.back.saturating_sub(self.page()),
            (code, _) => self.edit(code),
        }
        false
    }

    fn enter(&mut self) {
        let line = self.input.take();
        self.back = 0;
        self.conversation.enter(&line, now_ms(), nonce);
    }

    fn edit(&mut self, code: KeyCode) {
        match code {
            KeyCode::Backspace => self.input.backspace(),
            KeyCode::Delete => self.input.delete(),
            KeyCode::Left => self.input.left(),
            KeyCode::Right => self.input.right(),
            KeyCode::Home => self.input.home(),
            KeyCode::End => self.input.end(),
            KeyCode::Up => self.input.older(),
            KeyCode::Down => self.input.newer(),
            _ => {}
        }
    }

    fn control(&mut self, c: char) {
        match c {
            'a' => self.input.home(),
            'e' => self.input.end(),
            'k' => self.input.delete_after(),
            'u' => self.input.delete_before(),
            'w' => self.input.delete_word(),
            'l' => self.screen.forget(),
            'n' | 'p' => {
                self.back = 0;
                self.conversation.turn(c == 'n');
            }
            _ => {}
        }
    }

    fn page(&self) -> usize {
        (self.screen.size().1 / 2).max(1)
    }
}

/// The interval of what is done now and then.
const TICK: std::time::Duration = std::time::Duration::from_secs(1);
/// How much news is handled before the screen is drawn again.
const NEWS_PER_SCREEN: usize = 256;
