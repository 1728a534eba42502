//! `imks token USER`: issues a token of the embedded directory, for development.

use std::time::Duration;

use crate::config::{Config, Setting};
use crate::directory::Directory;
use crate::models::db::Db;
use crate::{ImksError, ImksResult};

/// Options of `imks token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The name of the user; a missing user is created, as a member of the channel `general`
    #[arg(value_parser = user)]
    user: String,
    /// The lifetime of the token, for example 30m or 24h; at most 744h
    #[arg(long, default_value = "24h", value_parser = lifetime)]
    ttl: Duration,
}

/// Prints a token, and nothing else, to standard output.
///
/// # Errors
/// `Config` if an external core or an application of one's own issues the tokens; `Database`.
pub async fn run(args: Args, config: &Config) -> ImksResult<()> {
    check_issuer(config)?;
    let directory = open(config).await?;
    let user = directory.ensure_development(&args.user).await?;
    super::say(&directory.issue_token(&user, args.ttl).await?)?;
    directory.close().await;
    Ok(())
}

/// Reads the name of a user on the command line.
///
/// # Errors
/// The sentence that says what is allowed.
pub(super) fn user(text: &str) -> Result<String, String> {
    Directory::check_username(text).map(|()| text.to_owned()).map_err(super::reason)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let ttl = Duration::parse(text)?;
    Directory::check_ttl(ttl).map(|()| ttl).map_err(super::reason)
}

/// Checks that a server accepts the tokens of the embedded directory.
pub(super) fn check_issuer(config: &Config) -> ImksResult<()> {
    if config.login.is_in_use(&config.hook) {
        let text = "your own application issues the tokens while one of IMKS_TOKEN_JWKS_URL, IMKS_TOKEN_PUBLIC_KEY_FILE, \
                    IMKS_TOKEN_HMAC_SECRET and IMKS_AUTH_URL is set: a server refuses any other token";
        return Err(ImksError::Config(text.into()));
    }
    Ok(())
}

/// Opens the embedded directory on the configured database, and creates the database if it is missing.
pub(super) async fn open(config: &Config) -> ImksResult<Directory> {
    Directory::open(database(config).await?, config.directory()).await
}

/// Opens the configured database, creates it if it is missing, and brings it to the newest schema.
pub(super) async fn database(config: &Config) -> ImksResult<Db> {
    let db = connect(config).await?;
    db.migrate().await?;
    Ok(db)
}

/// Opens the embedded directory on an existing database, for commands that only read. Nothing is written. A database that
/// a newer version has migrated is refused, as commands that write refuse it.
pub(super) async fn open_existing(config: &Config) -> ImksResult<Directory> {
    check_database(config)?;
    let db = connect(config).await?;
    db.refuse_newer_schema().await?;
    let place = db.describe();
    let directory = Directory::view(db, config.directory());
    if directory.is_there().await? {
        return Ok(directory);
    }
    let text = format!(
        "the database {place} has no directory of this version: start the server, or run imks migrate"
    );
    Err(ImksError::Config(text))
}

/// Checks that the database exists, for commands that are of use with one only: a wrong directory is then an error
/// instead of a new, empty database.
pub(super) fn check_database(config: &Config) -> ImksResult<()> {
    if let Some(file) = config.database.missing_file() {
        let text = format!(
            "there is no database {}: start the server first, or name its directory with --data-dir",
            file.display()
        );
        return Err(ImksError::Config(text));
    }
    Ok(())
}

/// Checks that no external core is in charge.
pub(super) fn check_core(config: &Config) -> ImksResult<()> {
    if config.core_url.is_some() {
        let text = "users and tokens are the core's business while IMKS_CORE_URL is set: run this where the core \
                    runs, without that setting";
        return Err(ImksError::Config(text.into()));
    }
    Ok(())
}

async fn connect(config: &Config) -> ImksResult<Db> {
    check_core(config)?;
    connect_any(config).await
}

/// Connects to the configured database, and tells people which one it is, and whether it was missing.
pub(super) async fn connect_any(config: &Config) -> ImksResult<Db> {
    let is_new = config.database.missing_file().is_some();
    let db = Db::connect(&config.database).await?;
    let note = if is_new { " (made now: there was none)" } else { "" };
    // The hint goes to standard error, so that standard output contains only the result.
    super::hint(&format!("database: {}{note}", db.describe()));
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_a_lifetime_that_cannot_be_is_refused_before_anything_is_opened() {
        assert_eq!(user("ann"), Ok("ann".to_owned()));
        assert!(["", "a b", "a/b", &"a".repeat(65)].into_iter().all(|name| user(name).is_err()));
        assert_eq!(lifetime("744h"), Ok(Duration::from_secs(744 * 3_600)));
        assert!(["0s", "745h", "1", ""].into_iter().all(|ttl| lifetime(ttl).is_err()));
        assert!(!lifetime("0s").unwrap_err().contains("invalid input"));
    }
}
