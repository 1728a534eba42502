//! `imks chat`: a chat on the terminal, full-screen or line by line.

mod about;
mod channel;
mod command;
mod conversation;
mod effect;
mod events;
mod full;
mod input;
mod message;
mod obey;
mod outbox;
mod pipe;
mod plain;
mod remote;
mod view;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use self::outbox::Outbox;
use self::remote::Remote;
use super::terminal::{self, Endings, Trust, causes};
use crate::client::{Address, Client, ClientBuilder, ClientError};
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
    let shown = terminal::without_secrets(&args.url);
    let outbox = args.outbox.clone().map(Outbox::new);
    let builder = builder(args, outbox.clone())?;
    super::hint(&format!("imks chat: {shown}"));
    let (remote, news) = match Remote::new(builder, outbox.clone()) {
        Ok(created) => created,
        Err(error) => {
            super::hint(&format!("imks: {}", not_created(&error, outbox.as_ref())));
            return Ok(ExitCode::FAILURE);
        }
    };
    let is_full =
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !args.plain && !args.json;
    if !is_full {
        return Box::pin(plain::run(remote, news, endings, args, &shown)).await;
    }
    let progress = terminal::Progress::show("connecting", args.json);
    let signed_in = tokio::select! {
        signed_in = Box::pin(remote.sign_in()) => signed_in,
        () = endings.next() => return Ok(ExitCode::from(terminal::EXIT_INTERRUPTED)),
    };
    drop(progress);
    if let Err(error) = signed_in {
        super::hint(&plain::not_connected(&error, &shown));
        return Ok(ExitCode::FAILURE);
    }
    Box::pin(full::run(remote, news, endings, args.channel.clone())).await
}

/// Returns why there is no client, and what to do.
fn not_created(error: &ClientError, outbox: Option<&Outbox>) -> String {
    match (error, outbox) {
        (ClientError::Outbox(error), Some(outbox)) => outbox.explain(error),
        (error, _) => causes(error),
    }
}

fn builder(args: &Args, outbox: Option<Outbox>) -> ImksResult<ClientBuilder> {
    let auth = json!({
        "token": args.token.as_deref().map(str::trim),
        "client": { "name": "imks chat", "version": env!("CARGO_PKG_VERSION") },
    });
    let builder = Client::builder(&args.url).tls(Trust::read(args.ca.as_deref())?.tls()?).auth(&auth);
    Ok(match outbox {
        None => builder,
        Some(outbox) => builder.outbox(outbox),
    })
}
