//! `imks webhook`: shows the receivers of webhooks and their dead letters, and sends those again or drops them. A running
//! server applies every change within seconds.

use clap::Subcommand;
use serde_json::{Value, json};

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
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the dead letters, the oldest first: receiver, id, time, state, reason
    Dead {
        /// Print JSON
        #[arg(long)]
        json: bool,
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

/// Runs the command, and prints lists as tab-separated lines or as JSON.
///
/// # Errors
/// `NotFound`; `Config` if there is no database, or, to a command that reads, one of another version; `Database`.
pub async fn run(args: Args, config: &Config) -> ImksResult<()> {
    super::token::check_database(config)?;
    let db = Db::connect(&config.database).await?;
    match args.what {
        What::List { .. } | What::Dead { .. } => db.check_schema().await?,
        What::Retry(_) | What::Drop(_) | What::Enable { .. } => db.migrate().await?,
    }
    let lines = match args.what {
        What::List { json } => lines(&Endpoint::all(&db).await?, json, endpoint, endpoint_json),
        What::Dead { json, receiver } => {
            lines(&DeadLetter::list(&db, receiver.as_deref()).await?, json, dead_letter, dead_letter_json)
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

/// Returns a line for each item, or one line of JSON with all.
fn lines<T>(items: &[T], as_json: bool, line: fn(&T) -> String, json: fn(&T) -> Value) -> Vec<String> {
    match as_json {
        true => vec![items.iter().map(json).collect::<Value>().to_string()],
        false => items.iter().map(line).collect(),
    }
}

fn endpoint_json(endpoint: &Endpoint) -> Value {
    json!({
        "id": endpoint.id,
        "address": endpoint.name,
        "disabled_at": endpoint.disabled_at.map(rfc3339),
        "next": endpoint.next().to_string(),
    })
}

fn dead_letter_json(letter: &DeadLetter) -> Value {
    json!({
        "receiver": letter.endpoint_id,
        "id": letter.id,
        "died_at": rfc3339(letter.died_at),
        "retry": letter.retry,
        "reason": letter.reason,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_the_lists_as_json_and_an_empty_one_too() {
        let endpoint_of = |disabled_at| Endpoint {
            id: "a".into(),
            name: "http://app/hook".into(),
            next_batch: 7,
            next_index: 2,
            disabled_at,
        };
        let all = lines(&[endpoint_of(None), endpoint_of(Some(0))], true, endpoint, endpoint_json).concat();
        let all: Value = serde_json::from_str(&all).unwrap();
        assert_eq!(
            all[0],
            json!({ "id": "a", "address": "http://app/hook", "disabled_at": null, "next": "7.2" })
        );
        assert!(all[1]["disabled_at"].as_str().unwrap().starts_with("1970-01-01T"), "{all}");
        assert_eq!(lines(&[], true, dead_letter, dead_letter_json), ["[]"]);
        assert_eq!(lines(&[], false, dead_letter, dead_letter_json), [""; 0]);
        let letter = DeadLetter {
            endpoint_id: "a".into(),
            id: "7.2".into(),
            body: "{}".into(),
            reason: "500".into(),
            died_at: 0,
            retry: true,
        };
        let shown = dead_letter_json(&letter);
        assert_eq!(
            (&shown["receiver"], &shown["retry"], &shown["reason"]),
            (&json!("a"), &json!(true), &json!("500"))
        );
    }
}
