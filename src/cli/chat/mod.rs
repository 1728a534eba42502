//! `imks chat`: a chat on the terminal, full-screen or line by line.

mod channel;
mod command;
mod conversation;
mod effect;
mod events;
mod full;
mod input;
mod message;
mod obey;
mod plain;
mod remote;
mod view;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use self::remote::Remote;
use super::terminal::{self, Endings, Trust, causes};
use crate::client::{Address, Client, ClientBuilder, FileStore};
use crate::{ImksError, ImksResult};

/// Options of `imks chat`.
#[derive(Debug, clap::Args)]
#[group(id = "chat")]
pub(super) struct Args {
    /// The address of a server: http://, https://, ws:// or wss://
    url: String,
    /// The token to sign in with
    #[arg(long, env = "IMKS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The channel to begin with, by name or id
    #[arg(long)]
    channel: Option<String>,
    /// A file that keeps messages which are not sent yet, also when this ends
    #[arg(long, value_name = "FILE")]
    outbox: Option<PathBuf>,
    /// A file with certificates to trust too, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Read lines and print lines, also on a terminal
    #[arg(long)]
    plain: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Chats until the person, or the input, ends. Exit codes: 0 done, 1 not connected, signed out or not everything was
/// sent, 78 an address that cannot be used, 130 interrupted.
pub(super) fn run(args: &Args) -> ImksResult<ExitCode> {
    terminal::block_on(chat(args))
}

async fn chat(args: &Args) -> ImksResult<ExitCode> {
    let mut endings = Endings::new()?;
    Address::parse(&args.url).map_err(|error| ImksError::Config(error.to_string()))?;
    let (builder, shown) = (builder(args)?, terminal::without_secrets(&args.url));
    super::hint(&format!("imks chat: {shown}"));
    let progress = terminal::Progress::show("connecting", args.json);
    let opened = tokio::select! {
        opened = Box::pin(Remote::open(builder)) => opened,
        () = endings.next() => return Ok(ExitCode::from(terminal::EXIT_INTERRUPTED)),
    };
    drop(progress);
    let (remote, news) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            super::hint(&format!("imks: {}; `imks doctor {shown}` finds out why", causes(&error)));
            return Ok(ExitCode::FAILURE);
        }
    };
    let is_full =
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !args.plain && !args.json;
    match is_full {
        true => Box::pin(full::run(remote, news, endings, args.channel.clone())).await,
        false => Box::pin(plain::run(remote, news, endings, args)).await,
    }
}

fn builder(args: &Args) -> ImksResult<ClientBuilder> {
    let auth = json!({
        "token": args.token.as_deref().map(str::trim),
        "client": { "name": "imks chat", "version": env!("CARGO_PKG_VERSION") },
    });
    let builder = Client::builder(&args.url).tls(Trust::read(args.ca.as_deref())?.tls()?).auth(&auth);
    match &args.outbox {
        None => Ok(builder),
        Some(path) => {
            let store = FileStore::new(path);
            Ok(builder.outbox(store))
        }
    }
}
