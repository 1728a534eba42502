//! `imks webhook`: shows the receivers of webhooks and their dead letters, and sends those again or drops them. A running
//! server applies every change within seconds.

use clap::Subcommand;

use crate::clock::rfc3339;
use crate::config::Config;
use crate::models::Db;
use crate::models::webhook::{DeadLetter, Endpoint};
use crate::{ImksError, ImksResult};

/// Options of `imks webhook`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the receivers: id, address, state, next event
    List,
    /// List the dead letters, the oldest first: receiver, id, time, state, reason
    Dead {
        /// The id of a receiver; all if absent
        receiver: Option<String>,
    },
    /// Send dead letters again, in no particular order
    Retry(Which),
    /// Remove dead letters
    Drop(Which),
    /// Send to a receiver again that was disabled because it answered 410
    Enable {
        /// The id of the receiver
        receiver: String,
    },
}

/// One dead letter, or all.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The id of a dead letter
    id: Option<String>,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

/// Runs the command, and prints lists as tab-separated lines.
///
/// # Errors
/// `NotFound`; `Config` if there is no database, or, to a command that reads, one of another version; `Database`.
pub async fn run(args: Args, config: &Config) -> ImksResult<()> {
    super::token::check_database(config)?;
    let db = Db::connect(&config.database).await?;
    match args.what {
        What::List | What::Dead { .. } => db.check_schema().await?,
        What::Retry(_) | What::Drop(_) | What::Enable { .. } => db.migrate().await?,
    }
    let lines = match args.what {
        What::List => Endpoint::all(&db).await?.iter().map(endpoint).collect(),
        What::Dead { receiver } => {
            DeadLetter::list(&db, receiver.as_deref()).await?.iter().map(dead_letter).collect()
        }
        What::Retry(which) => vec![counted(DeadLetter::retry(&db, which.id.as_deref()).await?, &which)?],
        What::Drop(which) => vec![counted(DeadLetter::forget(&db, which.id.as_deref()).await?, &which)?],
        What::Enable { receiver } => {
            if !Endpoint::set_disabled(&db, &receiver, None).await? {
                return Err(ImksError::NotFound("receiver"));
            }
            Vec::new()
        }
    };
    if !lines.is_empty() {
        super::say(&lines.join("\n"))?;
    }
    db.close().await;
    Ok(())
}

fn endpoint(endpoint: &Endpoint) -> String {
    let state = match endpoint.disabled_at {
        Some(at) => format!("disabled since {}", rfc3339(at)),
        None => "enabled".into(),
    };
    format!("{}\t{}\t{state}\t{}", endpoint.id, endpoint.name, endpoint.next())
}

fn dead_letter(letter: &DeadLetter) -> String {
    let state = if letter.retry { "to be sent again" } else { "given up" };
    let DeadLetter { endpoint_id, id, reason, died_at, .. } = letter;
    format!("{endpoint_id}\t{id}\t{}\t{state}\t{reason}", rfc3339(*died_at))
}

fn counted(count: u64, which: &Which) -> ImksResult<String> {
    if count == 0 && which.id.is_some() {
        return Err(ImksError::NotFound("dead letter"));
    }
    Ok(count.to_string())
}
