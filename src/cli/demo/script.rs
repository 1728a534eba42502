//! What the people of the demo say, and how long people take for it.

use std::time::Duration;

/// One message, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// Who writes it: an index of [`PEOPLE`].
    pub(super) who: usize,
    pub(super) text: &'static str,
    /// Whether it answers the message before it.
    pub(super) is_reply: bool,
    /// Who reacts to it, and how.
    pub(super) reaction: Option<(usize, &'static str)>,
}

/// The names of the people.
pub(super) const PEOPLE: [&str; 3] = ["ada", "ben", "chen"];

/// The conversation, which begins anew at its end.
pub(super) const LINES: [Line; 12] = [
    say(0, "Good morning! Is anybody testing the new server yet?"),
    reply(1, "Morning. Yes, since an hour. It is quiet, in a good way.").with(0, "👍"),
    say(2, "I pulled the plug on it twice."),
    reply(0, "And?"),
    reply(2, "Everything that was acknowledged is still there. `imks prove` says the same.").with(1, "🎉"),
    say(1, "What does a phone see after a tunnel?"),
    reply(2, "What it missed, once, in order. The client asks with `sync`.").with(0, "👀"),
    say(0, "Then I can finish the release notes today."),
    say(1, "Coffee first?"),
    reply(2, "Coffee first.").with(0, "☕"),
    reply(0, "Five minutes."),
    say(1, "See you there. Whoever watches: join us, your token is printed above."),
];

const fn say(who: usize, text: &'static str) -> Line {
    Line { who, text, is_reply: false, reaction: None }
}

const fn reply(who: usize, text: &'static str) -> Line {
    Line { is_reply: true, ..say(who, text) }
}

impl Line {
    const fn with(self, who: usize, emoji: &'static str) -> Self {
        Self { reaction: Some((who, emoji)), ..self }
    }

    /// Returns how long a person thinks before writing this; `random` is from 0 to 1.
    pub(super) fn thinking(&self, random: f64) -> Duration {
        THINKING + THINKING.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Returns how long a person types this.
    pub(super) fn typing(&self) -> Duration {
        let keys = u32::try_from(self.text.chars().count()).unwrap_or(u32::MAX);
        KEY.saturating_mul(keys).min(TYPING_MAX)
    }
}

/// How long people think before they write, up to twice as long.
const THINKING: Duration = Duration::from_millis(900);

/// The time for one character.
const KEY: Duration = Duration::from_millis(45);

/// The longest time for one message: the server shows somebody as typing for 6 s.
const TYPING_MAX: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_speaks_answers_and_reacts_and_nobody_reacts_to_themselves() {
        for who in 0..PEOPLE.len() {
            assert!(LINES.iter().any(|line| line.who == who && line.is_reply));
        }
        assert!(LINES.iter().all(|line| line.who < PEOPLE.len() && !line.text.is_empty()));
        let reactions: Vec<_> = LINES.iter().filter_map(|line| Some((line.who, line.reaction?.0))).collect();
        assert!(reactions.len() >= 3);
        assert!(reactions.iter().all(|(who, by)| who != by && *by < PEOPLE.len()));
        assert!(!LINES[0].is_reply, "there is nothing to answer yet");
    }

    #[test]
    fn people_take_their_time_and_not_for_ever() {
        for line in &LINES {
            let (shortest, longest) = (line.thinking(0.0), line.thinking(1.0));
            assert!(shortest >= Duration::from_millis(500) && longest <= Duration::from_secs(3));
            assert!(line.typing() <= TYPING_MAX && line.typing() > Duration::ZERO);
        }
    }
}
