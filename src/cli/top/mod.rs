//! `imks top`: who is connected to a server, from where and with what, and who has left.

mod server;
mod table;
mod view;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use tokio::time::{Interval, MissedTickBehavior, interval};

use self::server::Server;
use self::table::{Order, Sample, Table};
use super::terminal::{self, Endings, FullScreen, Trust};
use crate::clock::now_micros;
use crate::config::Setting;
use crate::{ImksError, ImksResult};

/// Options of `imks top`.
#[derive(Debug, clap::Args)]
#[group(id = "top")]
pub(super) struct Args {
    /// The address at which back ends call the server: http:// or https://
    url: String,
    /// An API key with the scope `read` (imks key add NAME --scope read)
    #[arg(long, env = "IMKS_KEY", hide_env_values = true)]
    key: String,
    /// How often the server is asked
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval_of)]
    interval: Duration,
    /// The order of the connections
    #[arg(long, value_enum, default_value_t)]
    sort: Order,
    /// Print so many samples and end; without a terminal it is one
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// A file with certificates to trust too, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print one JSON object per sample
    #[arg(long)]
    json: bool,
}

/// Shows connections until the person ends it. Exit codes: 0 done, 1 the server refused or does not answer, 2 a key or 78
/// an address that cannot be used, 130 interrupted while it prints.
pub(super) fn run(args: &Args) -> ImksResult<ExitCode> {
    terminal::block_on(top(args))
}

fn interval_of(text: &str) -> Result<Duration, String> {
    let interval = Duration::parse(text)?;
    if interval < INTERVAL_MIN { Err("it must be at least 500ms".into()) } else { Ok(interval) }
}

async fn top(args: &Args) -> ImksResult<ExitCode> {
    let server = Server::new(&args.url, &args.key, &Trust::read(args.ca.as_deref())?)?;
    if !server::is_key(&args.key) {
        // Not as an error of the option: that would show the value.
        super::hint("imks: --key or IMKS_KEY has no API key: `imks key add NAME --scope read` makes one");
        return Ok(ExitCode::from(super::EXIT_USAGE));
    }
    let is_screen = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if is_screen && !args.json && args.count.is_none() {
        return Box::pin(watch(args, &server)).await.or_else(refused);
    }
    let mut endings = Endings::new()?;
    tokio::select! {
        printed = Box::pin(print(args, &server)) => printed.or_else(refused),
        () = endings.next() => Ok(ExitCode::from(terminal::EXIT_INTERRUPTED)),
    }
}

/// Tells why the server did not answer. That is no error of the configuration of this program.
fn refused(error: ImksError) -> ImksResult<ExitCode> {
    if super::is_unread(&error) {
        return Err(error);
    }
    super::hint(&format!("imks: {}", terminal::causes(&error)));
    Ok(ExitCode::FAILURE)
}

/// Prints samples.
async fn print(args: &Args, server: &Server) -> ImksResult<ExitCode> {
    let mut table = Table::default();
    let mut ticks = interval(args.interval);
    for sample in 0..args.count.unwrap_or(1) {
        ticks.tick().await;
        table.take(server.sample().await?, now_micros());
        if args.json {
            super::tell(&view::json(&table, args.sort).to_string())?;
            continue;
        }
        if sample == 0 {
            super::tell(&format!("imks top: {}", terminal::without_secrets(&args.url)))?;
        }
        view::lines(&table, args.sort, now_micros()).iter().try_for_each(|line| super::tell(line))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows samples on the whole terminal.
async fn watch(args: &Args, server: &Server) -> ImksResult<ExitCode> {
    let (mut table, mut order) = (Table::default(), args.sort);
    // A wrong key shows before the screen is taken.
    table.take(server.sample().await?, now_micros());
    let mut endings = Endings::new()?;
    let mut screen = FullScreen::open()?;
    let (mut keys, mut ticks) = (EventStream::new(), interval(args.interval));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Keys are heard while the server is asked, which may take a while.
    let mut sampling = Box::pin(next_sample(server, ticks));
    loop {
        screen.show(view::screen(&table, &args.url, order, screen.size(), now_micros()))?;
        tokio::select! {
            (sampled, ticks) = &mut sampling => {
                match sampled {
                    Ok(sample) => table.take(sample, now_micros()),
                    Err(error) => table.fail(&terminal::causes(&error)),
                }
                sampling = Box::pin(next_sample(server, ticks));
            }
            key = keys.next() => match key {
                Some(Ok(event)) => match pressed(&event) {
                    Pressed::End => return Ok(ExitCode::SUCCESS),
                    Pressed::Order => order = order.next(),
                    Pressed::Redraw => screen.forget(),
                    Pressed::Nothing => {}
                },
                Some(Err(_)) | None => return Ok(ExitCode::SUCCESS),
            },
            () = endings.next() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Waits until it is time, and asks the server.
async fn next_sample(server: &Server, mut ticks: Interval) -> (ImksResult<Sample>, Interval) {
    ticks.tick().await;
    (server.sample().await, ticks)
}

enum Pressed {
    End,
    Order,
    Redraw,
    Nothing,
}

fn pressed(event: &Event) -> Pressed {
    let key = match event {
        Event::Resize(..) => return Pressed::Redraw,
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return Pressed::Nothing,
    };
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match (key.code, is_control) {
        (KeyCode::Char('c' | 'd'), true) | (KeyCode::Char('q') | KeyCode::Esc, false) => Pressed::End,
        (KeyCode::Char('s'), false) => Pressed::Order,
        (KeyCode::Char('l'), true) => Pressed::Redraw,
        _ => Pressed::Nothing,
    }
}

/// How often a server may be asked.
const INTERVAL_MIN: Duration = Duration::from_millis(500);
