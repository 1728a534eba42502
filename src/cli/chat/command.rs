//! What a person types into `imks chat`: a message, or a command that begins with `/`.

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// A message for the channel that is shown.
    Say(String),
    /// Show the channels.
    List,
    /// Send a message to all channels.
    Broadcast(String),
    /// Measure how long an answer takes.
    Ping,
    /// Show a channel, and subscribe to it.
    Join(String),
    /// Leave a channel, or the one that is shown.
    Leave(Option<String>),
    /// Show so many earlier messages.
    History(usize),
    /// Add a reaction to a message, by default the last one.
    React { seq: Option<i64>, emoji: String },
    /// Replace the text of an own message, by default the last one.
    Edit { seq: Option<i64>, body: String },
    /// Show the thread of a message, or reply in it.
    Thread { seq: i64, body: Option<String> },
    /// Show who is online in the channel.
    Who,
    /// Show numbers about the connection.
    Stats,
    /// Show which transport carries the connection.
    Transport,
    /// End.
    Quit,
    /// Show the commands.
    Help,
}

impl Command {
    /// Returns the number of the message that it is about.
    pub(super) fn seq(&self) -> Option<i64> {
        match self {
            Self::React { seq, .. } | Self::Edit { seq, .. } => *seq,
            Self::Thread { seq, .. } => Some(*seq),
            _ => None,
        }
    }
}

/// Reads a line. `None` if it is blank.
///
/// # Errors
/// A sentence that says how the command is written.
pub(super) fn parse(line: &str) -> Result<Option<Command>, String> {
    let trimmed = line.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    let Some(command) = trimmed.strip_prefix('/') else {
        return Ok(Some(Command::Say(line.trim_end().to_owned())));
    };
    // A message that begins with a slash is written with two.
    if command.starts_with('/') {
        return Ok(Some(Command::Say(command.to_owned())));
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    named(&name.to_lowercase(), rest).map(Some)
}

fn named(name: &str, rest: &str) -> Result<Command, String> {
    let needs = |usage: &str| Err(format!("write it as {usage}"));
    Ok(match name {
        "list" => Command::List,
        "broadcast" if rest.is_empty() => return needs("/broadcast TEXT"),
        "broadcast" => Command::Broadcast(rest.to_owned()),
        "ping" => Command::Ping,
        "join" if rest.is_empty() => return needs("/join CHANNEL"),
        "join" => Command::Join(channel(rest)),
        "leave" => Command::Leave((!rest.is_empty()).then(|| channel(rest))),
        "history" => Command::History(count(rest)?),
        "react" => match numbered(rest) {
            (_, "") => return needs("/react [#NUMBER] EMOJI"),
            (seq, emoji) => Command::React { seq, emoji: emoji.to_owned() },
        },
        "edit" => match numbered(rest) {
            (_, "") => return needs("/edit [#NUMBER] TEXT"),
            (seq, body) => Command::Edit { seq, body: body.to_owned() },
        },
        "thread" => match numbered(rest) {
            (None, _) => return needs("/thread #NUMBER [TEXT]"),
            (Some(seq), body) => Command::Thread { seq, body: (!body.is_empty()).then(|| body.to_owned()) },
        },
        "who" => Command::Who,
        "stats" => Command::Stats,
        "transport" => Command::Transport,
        "quit" | "exit" => Command::Quit,
        "help" => Command::Help,
        other => {
            return Err(format!(
                "/{other} is no command; /help lists them, // begins a message with a slash"
            ));
        }
    })
}

/// Returns the name of a channel without the sign that people write before it.
fn channel(text: &str) -> String {
    text.strip_prefix('#').unwrap_or(text).to_owned()
}

fn count(text: &str) -> Result<usize, String> {
    let wrong = || format!("write it as /history NUMBER, 1 to {HISTORY_MAX}");
    match text {
        "" => Ok(HISTORY_DEFAULT),
        text => text.parse().ok().filter(|count| (1..=HISTORY_MAX).contains(count)).ok_or_else(wrong),
    }
}

/// Takes the number of a message from the beginning of a text.
fn numbered(text: &str) -> (Option<i64>, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match first.strip_prefix('#').and_then(|number| number.parse().ok()) {
        Some(number) => (Some(number), rest.trim_start()),
        None => (None, text),
    }
}

/// The commands, as `/help` shows them.
pub(super) const HELP: [&str; 16] = [
    "/list                    the channels, with what is unread",
    "/join CHANNEL            show a channel",
    "/leave [CHANNEL]         leave a channel until the next /join",
    "/history [NUMBER]        earlier messages, 50 or so many",
    "/react [#NUMBER] EMOJI   react to a message, or to the last one",
    "/edit [#NUMBER] TEXT     change a message of yours, or the last one",
    "/thread #NUMBER [TEXT]   show the replies to a message, or reply to it",
    "/broadcast TEXT          send a message to all channels",
    "/who                     who is online in the channel",
    "/ping                    how long an answer takes",
    "/stats                   numbers about the connection",
    "/transport               what carries the connection",
    "/quit                    end",
    "//TEXT                   a message that begins with a slash",
    "Up, Down                 what you wrote before",
    "Ctrl-N, Ctrl-P           the next and the previous channel; PgUp, PgDn scroll",
];

/// How many earlier messages are shown without a number.
const HISTORY_DEFAULT: usize = 50;
/// The most messages of one page.
const HISTORY_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Command {
        parse(line).unwrap().unwrap()
    }

    #[test]
    fn what_does_not_begin_with_a_slash_is_a_message() {
        assert_eq!(read("hello /quit "), Command::Say("hello /quit".into()));
        assert_eq!(read("//etc/hosts"), Command::Say("/etc/hosts".into()));
        assert_eq!(parse("   ").unwrap(), None);
    }

    #[test]
    fn every_command_is_read() {
        assert_eq!(read("/list"), Command::List);
        assert_eq!(read("/BROADCAST a b"), Command::Broadcast("a b".into()));
        assert_eq!(read("/join #general"), Command::Join("general".into()));
        assert_eq!(read("/leave"), Command::Leave(None));
        assert_eq!(read("/history 20"), Command::History(20));
        assert_eq!(read("/react 👍"), Command::React { seq: None, emoji: "👍".into() });
        assert_eq!(read("/react #12  👍"), Command::React { seq: Some(12), emoji: "👍".into() });
        assert_eq!(read("/edit #3 new text"), Command::Edit { seq: Some(3), body: "new text".into() });
        assert_eq!(read("/thread #3"), Command::Thread { seq: 3, body: None });
        assert_eq!(read("/thread #3 yes"), Command::Thread { seq: 3, body: Some("yes".into()) });
        for (text, command) in [
            ("/ping", Command::Ping),
            ("/who", Command::Who),
            ("/stats", Command::Stats),
            ("/transport", Command::Transport),
            ("/quit", Command::Quit),
            ("/help", Command::Help),
        ] {
            assert_eq!(read(text), command);
        }
    }

    #[test]
    fn a_command_that_lacks_something_says_how_it_is_written() {
        for (text, usage) in [
            ("/join", "/join CHANNEL"),
            ("/history 0", "/history NUMBER"),
            ("/react #1", "/react"),
            ("/edit", "/edit"),
            ("/thread yes", "/thread #NUMBER"),
            ("/dance", "/help"),
        ] {
            assert!(parse(text).unwrap_err().contains(usage), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".{0,60}") {
            let _ = parse(&line);
        }
    }
}
