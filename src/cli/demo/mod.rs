//! `imks demo`: a server and three people who chat on it, to see it work.

mod people;
mod script;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use self::people::{People, Seen};
use self::script::{LINES, PEOPLE};
use super::prove::world::Folder;
use super::serve::Signals;
use super::terminal::text::counted;
use crate::app::App;
use crate::config::{Config, Setting};
use crate::socket::admin::hash_password;
use crate::{ImksError, ImksResult};

/// Options of `imks demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Keeps the data in this directory; without it, they are temporary and removed at the end
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// Ends by itself after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// How many times faster than people
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = pace)]
    pace: f64,
    /// Your name in the chat
    #[arg(long, value_name = "NAME", default_value = "you", value_parser = super::token::user)]
    name: String,
    /// Prints JSON lines
    #[arg(long)]
    json: bool,
}

/// What is needed to join.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "ready")]
struct Ready {
    url: String,
    /// The stock Admin UI in a browser, and what to enter there.
    console: &'static str,
    console_server: String,
    console_user: &'static str,
    console_password: String,
    user: String,
    token: String,
    data: String,
    is_temporary: bool,
}

/// What happened, at the end.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "summary")]
struct Summary {
    seconds: f64,
    messages: u64,
    replies: u64,
    reactions: u64,
    reads: u64,
    /// What the people could not do, such as write into a channel that was closed.
    failures: u64,
}

/// Runs the demo until Ctrl-C, or as long as asked for.
///
/// # Errors
/// Those of the server that cannot start: its address is in use, its directory cannot be written.
pub(super) async fn run(args: Args, config: &Config) -> ImksResult<ExitCode> {
    let mut signals = Signals::of_tool()?;
    let folder = args.data.is_none().then(Folder::create).transpose()?;
    let data = args.data.clone().or_else(|| Some(folder.as_ref()?.path.join("data"))).unwrap_or_default();
    let password = format!("{:016x}", getrandom::u64()?);
    let config = settings(config, data.clone(), &password)?;
    let drain = config.drain;
    let app = Box::pin(App::start(config)).await.map_err(explain)?;
    let url = format!("http://{}", crate::app::reachable(app.addr()));
    let (tokens, token) = tokens(&app, &args.name).await?;
    let ready = Ready {
        console: CONSOLE,
        console_server: format!("{url}/admin"),
        console_user: CONSOLE_USER,
        console_password: password,
        user: args.name.clone(),
        token,
        data: data.display().to_string(),
        is_temporary: folder.is_some(),
        url: url.clone(),
    };
    // A failure, such as that nobody reads this any more, comes after the server has ended as well, as the summary does.
    let summary = match args.say(&ready, || ready.text()) {
        Ok(()) => Box::pin(args.perform(&url, &tokens, &mut signals)).await,
        Err(error) => Err(error),
    };
    tokio::select! {
        drained = app.drain(drain) => drained?,
        () = signals.next() => return Err(ImksError::Timeout("ended by a second Ctrl-C, without a summary")),
    }
    let summary = summary?;
    args.say(&summary, || summary.text())?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Lets the people chat, and prints what they do.
    async fn perform(&self, url: &str, tokens: &[String], signals: &mut Signals) -> ImksResult<Summary> {
        let (say, mut seen) = mpsc::channel(SEEN_MAX);
        let begun = Instant::now();
        let mut summary = Summary::default();
        let mut people = tokio::select! {
            people = Box::pin(People::join(url, tokens, self.pace, say)) => people?,
            () = signals.next() => return Ok(summary),
        };
        let end = async {
            match self.seconds {
                Some(seconds) => sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        let mut acting = Box::pin(act(&mut people));
        loop {
            tokio::select! {
                failure = &mut acting => {
                    summary.failures += 1;
                    super::hint(&failure);
                    sleep(FAILURE_PAUSE).await;
                    drop(acting);
                    acting = Box::pin(act(&mut people));
                }
                Some(seen) = seen.recv() => {
                    summary.count(&seen);
                    self.say(&seen, || seen.text())?;
                }
                () = signals.next() => break,
                () = &mut end => break,
            }
        }
        drop(acting);
        people.leave().await;
        summary.seconds = begun.elapsed().as_secs_f64();
        Ok(summary)
    }

    fn say(&self, value: &impl Serialize, text: impl Fn() -> String) -> ImksResult<()> {
        super::tell(&if self.json { serde_json::to_string(value)? } else { text() })
    }
}

/// Plays the script again and again. Returns what went wrong.
async fn act(people: &mut People) -> String {
    loop {
        for line in &LINES {
            let random = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
            match Box::pin(people.perform(line, random)).await {
                Ok(None) => {}
                Ok(Some(refusal)) => return refusal,
                Err(error) => return format!("{}: {error}", PEOPLE[line.who]),
            }
        }
    }
}

/// Returns the settings of the server: its address is that of the command line, and nothing else of the configuration
/// is used, which could name a database in use.
fn settings(given: &Config, data: PathBuf, password: &str) -> ImksResult<Config> {
    let mut config = Config { listen: given.listen, log: given.log.clone(), ..Config::default() };
    config.database.data_dir = data;
    config.admin.enabled = true;
    config.admin.username = Some(CONSOLE_USER.into());
    config.admin.password_hash = Some(hash_password(password)?.into());
    config.engine.cors = Setting::parse(CONSOLE).map_err(ImksError::Config)?;
    config.validate()?;
    Ok(config)
}

/// Says what to do if somebody else has the address.
fn explain(error: ImksError) -> ImksError {
    match error {
        ImksError::Io { context, source } if source.kind() == std::io::ErrorKind::AddrInUse => {
            ImksError::Io { context: format!("{context} (another port: --listen 127.0.0.1:0)"), source }
        }
        error => error,
    }
}

/// Makes the people and whoever watches, and returns their tokens.
async fn tokens(app: &App, name: &str) -> ImksResult<(Vec<String>, String)> {
    let directory = app.directory().ok_or(ImksError::Internal("a demo without a directory"))?;
    let mut tokens = Vec::new();
    for name in PEOPLE.into_iter().chain([name]) {
        let user = directory.ensure_development(name).await?;
        tokens.push(directory.issue_token(&user, LIFETIME).await?);
    }
    let yours = tokens.pop().ok_or(ImksError::Internal("no token"))?;
    Ok((tokens, yours))
}

impl Ready {
    fn text(&self) -> String {
        let kept = if self.is_temporary { " (removed at the end)" } else { "" };
        format!(
            "imks demo: three people chat at {url}. Ctrl-C ends it.\n\
             \x20 console   {console}   server {server}, user {user}, password {password}\n\
             \x20 you       io(\"{url}\", {{ auth: {{ token }} }})   with socket.io-client, as {you}:\n\
             \x20 token     {token}\n\
             \x20 data      {data}{kept}\n",
            url = self.url,
            console = self.console,
            server = self.console_server,
            user = self.console_user,
            password = self.console_password,
            you = self.user,
            token = self.token,
            data = self.data,
        )
    }
}

impl Summary {
    fn count(&mut self, seen: &Seen) {
        match seen {
            Seen::Message { reply_to, .. } => {
                self.messages += 1;
                self.replies += u64::from(reply_to.is_some());
            }
            Seen::Reaction { .. } => self.reactions += 1,
            Seen::Read { .. } => self.reads += 1,
            Seen::Typing { .. } => {}
        }
    }

    fn text(&self) -> String {
        let Self { seconds, messages, replies, reactions, reads, failures } = self;
        format!(
            "\nimks demo: {} ({}), {}, {} in {seconds:.0} s; {}",
            counted(*messages, "message", "messages"),
            counted(*replies, "reply", "replies"),
            counted(*reactions, "reaction", "reactions"),
            counted(*reads, "read", "reads"),
            counted(*failures, "failure", "failures")
        )
    }
}

fn pace(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor: &f64| PACES.contains(factor));
    factor.ok_or_else(|| format!("write a factor from {} to {}", PACES.start(), PACES.end()))
}

const AFTER_HELP: &str = "\
The server listens on 127.0.0.1:3000, or where --listen says. Nothing else of the configuration is used.

Exit codes: 0 ended by Ctrl-C or --seconds; 1 could not run; 2 invalid command line; 78 invalid configuration. \
docs/tools.md describes the JSON lines.";

/// The stock Admin UI, which may connect to the server of the demo.
const CONSOLE: &str = "https://admin.socket.io";
const CONSOLE_USER: &str = "demo";

/// How much faster than people the demo may be.
const PACES: std::ops::RangeInclusive<f64> = 0.1..=100.0;

/// The number of things that were seen and wait to be printed. While there are more, the people wait.
const SEEN_MAX: usize = 64;

/// The pause after something that went wrong.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);

/// The lifetime of the tokens.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
