//! `imks hold`: legal holds, from which nothing is removed for good. A running server obeys them at once.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::ImksResult;
use crate::clock::rfc3339;
use crate::config::Config;
use crate::models::db::Db;
use crate::models::legal_hold::{self, HoldKind, LegalHold};

/// Options of `imks hold`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Set a hold: nothing of it is removed until the hold is released
    Set {
        #[command(flatten)]
        on: On,
        /// Why, for those who ask later
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Release a hold
    Release {
        #[command(flatten)]
        on: On,
    },
    /// List the holds that are in force
    List {
        /// Also list those that were released
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a hold is on.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct On {
    /// The id of a channel
    #[arg(long)]
    channel: Option<Uuid>,
    /// The id of a user: their messages, and everything in the channels where they wrote or read
    #[arg(long)]
    user: Option<Uuid>,
}

impl On {
    fn target(&self) -> (HoldKind, Uuid) {
        match (self.channel, self.user) {
            (Some(channel), _) => (HoldKind::Channel, channel),
            (None, user) => (HoldKind::User, user.unwrap_or_default()),
        }
    }
}

/// Runs one of the commands.
///
/// # Errors
/// `InvalidInput`; `LimitReached`; `Config` if there is no database to read, or one of another version; `Database`.
pub async fn run(args: Args, config: &Config) -> ImksResult<()> {
    super::token::check_database(config)?;
    let db = super::token::connect_any(config).await?;
    match args.what {
        What::Set { on, reason } => {
            db.migrate().await?;
            legal_hold::set(&db, on.target(), &reason, BY).await?;
            super::hint("set; nothing of it is removed until the hold is released");
        }
        What::Release { on } => {
            db.migrate().await?;
            let released = legal_hold::release(&db, on.target().1, BY).await?;
            super::hint(if released { "released" } else { "there was no hold on it" });
        }
        What::List { all, json } => {
            db.check_schema().await?;
            list(&db, all, json).await?;
        }
    }
    db.close().await;
    Ok(())
}

async fn list(db: &Db, all: bool, as_json: bool) -> ImksResult<()> {
    let (mut holds, mut after) = (Vec::new(), Uuid::nil());
    loop {
        let page = legal_hold::list(db, after, PAGE, all).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        holds.extend(page);
    }
    if as_json {
        return super::say(&Value::from(holds.iter().map(shown).collect::<Vec<_>>()).to_string());
    }
    for hold in &holds {
        let LegalHold { target_id, reason, set_by, set_at, .. } = hold;
        let released = hold.released_at.map_or(String::new(), |at| format!("\treleased {}", rfc3339(at)));
        let kind = name(hold.kind());
        super::say(&format!(
            "{kind}\t{target_id}\tset {} by {set_by}\t{reason}{released}",
            rfc3339(*set_at)
        ))?;
    }
    Ok(())
}

fn shown(hold: &LegalHold) -> Value {
    json!({
        "id": hold.id,
        "on": name(hold.kind()),
        "target_id": hold.target_id,
        "reason": hold.reason,
        "set_by": hold.set_by,
        "set_at": rfc3339(hold.set_at),
        "released_by": hold.released_by,
        "released_at": hold.released_at.map(rfc3339),
    })
}

fn name(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Channel => "channel",
        HoldKind::User => "user",
    }
}

/// Who sets holds on the command line.
const BY: &str = "imks hold";
const PAGE: i64 = 500;
