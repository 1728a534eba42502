//! The checks of `imks doctor` of a database. Nothing in it is changed.

use tokio::time::timeout;

use super::report::{Fault, Outcome};
use super::{ANSWER_MAX, Doctor, advice, in_vain};
use crate::cli::terminal;
use crate::models::Db;
use crate::models::db::Config;
use crate::{ImksError, ImksResult};

/// Examines a database: `postgres://…` or `sqlite:PATH`.
///
/// # Errors
/// [`ImksError::Config`] for an address that cannot be one.
pub(super) async fn examine(doctor: &mut Doctor, url: &str) -> ImksResult<()> {
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(ImksError::Config("--database must be an address with postgres:// or sqlite:".into()));
    }
    let config = Config { url: Some(url.to_owned().into()), ..Config::default() };
    let of_form = config.check_url();
    of_form.map_err(|_| {
        ImksError::Config("--database is no address of a database: check host and port".into())
    })?;
    let Some(db) = doctor.check("reachable", connect(&config)).await? else {
        return doctor.skip(&["version", "migrations", "write"], "there is no connection");
    };
    doctor.check("version", version(&db)).await?;
    match doctor.check("migrations", migrations(&db)).await? {
        Some(()) => drop(doctor.check("write", write(&db)).await?),
        None => doctor.skip(&["write"], "there are no tables of this version")?,
    }
    // The program ends: a database that does not answer any more need not be waited for.
    let _ = timeout(ANSWER_MAX, db.close()).await;
    Ok(())
}

async fn connect(config: &Config) -> (Option<Db>, Outcome) {
    if let Some(file) = config.missing_file() {
        let fault = Fault::new(
            format!("there is no file {}", file.display()),
            "no server has run with this database",
            "name the file that the server uses (sqlite:DIRECTORY/imks.db, its --data-dir), or start the server",
        );
        return (None, Outcome::Failed(fault));
    }
    let opening = async {
        let db = Box::pin(Db::connect_at_once(config)).await?;
        let answered = db.ping().await?;
        Ok::<_, ImksError>((db, answered))
    };
    match timeout(ANSWER_MAX * 2, opening).await {
        Ok(Ok((db, answered))) => {
            let text = format!("{}, answers in {:.1} ms", db.describe(), answered.as_secs_f64() * 1_000.0);
            (Some(db), Outcome::Good(text))
        }
        Ok(Err(error)) => (None, Outcome::Failed(unopened(config, &terminal::causes(&error)))),
        Err(_) => (None, Outcome::Failed(unopened(config, "no answer within 10 s"))),
    }
}

/// Returns the fault of a server that is not reached, or of a file that is not opened.
fn unopened(config: &Config, found: &str) -> Fault {
    let is_file = config.url.as_ref().is_some_and(|url| url.expose().starts_with("sqlite:"));
    if !is_file {
        return unreachable(found);
    }
    Fault::new(
        found,
        "a server with this DATABASE_URL does not start",
        "check that this is the file of a server (imks.db in its --data-dir), that it may be read and written here, and that \
         it is whole: a damaged one is restored from a backup",
    )
}

fn unreachable(found: &str) -> Fault {
    Fault::new(
        found,
        "a server with this DATABASE_URL does not start",
        "check host, port, user, password and name of the database, pg_hba.conf, and the firewall between",
    )
}

async fn version(db: &Db) -> (Option<()>, Outcome) {
    match db.version().await {
        Ok(version) => (Some(()), Outcome::Good(advice::excerpt(&version))),
        Err(error) => (None, Outcome::Failed(unreachable(&terminal::causes(&error)))),
    }
}

async fn migrations(db: &Db) -> (Option<()>, Outcome) {
    match db.check_schema().await {
        Ok(()) => (Some(()), Outcome::Good("the schema is that of this version".into())),
        Err(error) => {
            let is_newer = matches!(db.refuse_newer_schema().await, Err(ImksError::Config(_)));
            (None, Outcome::Failed(of_another_version(&terminal::causes(&error), is_newer)))
        }
    }
}

/// Returns the fault of a schema that is not the one of this version. There is no way back from a newer one.
fn of_another_version(found: &str, is_newer: bool) -> Fault {
    match is_newer {
        true => Fault::new(
            found,
            "a newer version of imks has made these tables",
            "upgrade this imks to that version; or restore the backup from before the upgrade (docs/upgrade.md)",
        ),
        false => Fault::new(
            found,
            "the tables are of an earlier version, or there are none yet",
            "run `imks migrate` with this database, or start the server of this version, which does it by itself",
        ),
    }
}

async fn write(db: &Db) -> (Option<()>, Outcome) {
    match timeout(ANSWER_MAX, db.try_write()).await {
        Ok(Ok(())) => (Some(()), Outcome::Good("a row was written, and taken back".into())),
        Ok(Err(error)) => (None, Outcome::Failed(unwritable(&terminal::causes(&error)))),
        Err(_) => (None, Outcome::Failed(unwritable(&in_vain("no answer")))),
    }
}

fn unwritable(found: &str) -> Fault {
    Fault::new(
        found,
        "nothing can be stored: the user has no rights, the disk is full, another program holds the lock, or this is a standby",
        "connect to the primary, and give the user the rights to write to all tables of its schema",
    )
}

/// How the addresses of databases begin.
const SCHEMES: [&str; 3] = ["postgres://", "postgresql://", "sqlite:"];
