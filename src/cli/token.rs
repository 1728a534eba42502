//! `imks token USER`: a token of the embedded directory, for development.

use std::time::Duration;

use crate::config::{Config, Setting};
use crate::directory::Directory;
use crate::models::db::Db;
use crate::{ImksError, ImksResult};

/// Options of `imks token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the user; made when missing, and a member of the channel `general`
    user: String,
    /// How long the token is good, for example 30m or 24h; at most 744h
    #[arg(long, default_value = "24h", value_parser = Duration::parse)]
    ttl: Duration,
}

/// Prints a token, and nothing else, on standard output.
///
/// # Errors
/// `Config` with an external core, which issues its own tokens; `InvalidInput`; `Database`.
pub async fn run(args: Args, config: &Config) -> ImksResult<()> {
    Directory::check_ttl(args.ttl)?;
    let directory = open(config).await?;
    let user = directory.ensure_development(&args.user).await?;
    super::say(&directory.issue_token(&user, args.ttl).await?)?;
    directory.close().await;
    Ok(())
}

/// Opens the embedded directory on the configured database, which is made when it is missing.
pub(super) async fn open(config: &Config) -> ImksResult<Directory> {
    if config.core_url.is_some() {
        let text = "users and tokens are the core's business while IMKS_CORE_URL is set";
        return Err(ImksError::Config(text.into()));
    }
    let db = Db::connect(&config.database).await?;
    // On standard error, so that what a shell takes from standard output stays alone.
    super::hint(&format!("database: {}", db.describe()));
    db.migrate().await?;
    Directory::open(db, config.directory()).await
}

/// Opens the embedded directory on a database that exists: who only reads makes none.
pub(super) async fn open_existing(config: &Config) -> ImksResult<Directory> {
    if let Some(file) = config.database.missing_file() {
        let text = format!(
            "there is no database {}: start the server first, or name its directory with --data-dir",
            file.display()
        );
        return Err(ImksError::Config(text));
    }
    open(config).await
}
