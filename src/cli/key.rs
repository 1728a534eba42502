//! `imks key`: the API keys with which back ends call imks. A running server applies every change within a second.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::ImksResult;
use crate::clock::{Micros, now_micros, rfc3339};
use crate::config::{Config, Setting};
use crate::control::{Scopes, keys};
use crate::models::api_key::{self, ApiKey};
use crate::models::db::Db;

/// Options of `imks key`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Create a key and print it, once
    Add {
        /// The name, which is also the name that messages sent with the key show unless they say another one
        name: String,
        /// What the key may do: publish, read, moderate, users, tokens, compliance, separated by commas; or all
        #[arg(long, default_value = "all", value_parser = scopes)]
        scope: Scopes,
        /// How long the key works, for example 720h; for ever if it is not given
        #[arg(long, value_parser = lifetime)]
        expires: Option<Duration>,
    },
    /// List the keys, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key stop working
    Revoke {
        /// The name of the key
        name: String,
    },
}

fn scopes(text: &str) -> Result<Scopes, String> {
    Scopes::parse(text).map_err(|error| error.client_message())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = Duration::parse(text)?;
    if lifetime.is_zero() {
        return Err("must be more than 0s; without --expires the key works for ever".into());
    }
    Ok(lifetime)
}

/// Runs one of the commands. A new key is printed alone to standard output.
///
/// # Errors
/// `Conflict` if the name of a new key is taken; `UnknownName`; `InvalidInput`; `Config` if there is no database to
/// read, or one of another version; `Database`.
pub async fn run(args: Args, config: &Config) -> ImksResult<()> {
    let db = open(config, &args.what).await?;
    match args.what {
        What::Add { name, scope, expires } => add(&db, &name, scope, expires).await?,
        What::List { json } => list(&api_key::list(&db).await?, json)?,
        What::Revoke { name } => {
            api_key::revoke(&db, &name, now_micros()).await?;
            super::hint("revoked; running servers refuse it within a second");
        }
    }
    db.close().await;
    Ok(())
}

async fn open(config: &Config, what: &What) -> ImksResult<Db> {
    if !matches!(what, What::Add { .. }) {
        super::token::check_database(config)?;
    }
    let db = super::token::connect_any(config).await?;
    match what {
        What::List { .. } => db.check_schema().await?,
        What::Add { .. } | What::Revoke { .. } => db.migrate().await?,
    }
    Ok(db)
}

async fn add(db: &Db, name: &str, scopes: Scopes, expires: Option<Duration>) -> ImksResult<()> {
    let micros = |lifetime: Duration| Micros::try_from(lifetime.as_micros()).unwrap_or(Micros::MAX);
    let expires_at = expires.map(|lifetime| now_micros().saturating_add(micros(lifetime)));
    let key = keys::create(db, name, scopes, expires_at).await?;
    super::say(key.expose())?;
    super::hint(&format!("the key {name} has the scope {}; it is not shown again", scopes.show()));
    super::hint("use it as: curl -H \"Authorization: Bearer $KEY\" …/api/v1/admin/… (docs/server-api.md)");
    Ok(())
}

fn list(keys: &[ApiKey], as_json: bool) -> ImksResult<()> {
    if as_json {
        let all: Vec<Value> = keys.iter().map(shown).collect();
        return super::say(&Value::from(all).to_string());
    }
    for key in keys {
        let ApiKey { name, scopes, .. } = key;
        let used = key.last_used_at.map_or("never used".into(), |at| format!("used {}", rfc3339(at)));
        super::say(&format!("{name}\t{scopes}\t{}\t{used}", state(key, now_micros())))?;
    }
    Ok(())
}

fn state(key: &ApiKey, now: Micros) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", rfc3339(at)),
        (None, Some(at)) if at <= now => format!("expired {}", rfc3339(at)),
        (None, Some(at)) => format!("expires {}", rfc3339(at)),
        (None, None) => "valid".into(),
    }
}

fn shown(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes.split(',').collect::<Vec<_>>(),
        "created_at": rfc3339(key.created_at),
        "expires_at": key.expires_at.map(rfc3339),
        "last_used_at": key.last_used_at.map(rfc3339),
        "revoked_at": key.revoked_at.map(rfc3339),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_never_works_is_not_made() {
        assert_eq!(lifetime("720h"), Ok(Duration::from_hours(720)));
        assert!(lifetime("0s").unwrap_err().contains("more than 0s"));
        assert!(lifetime("720").unwrap_err().contains("unit"));
    }
}
