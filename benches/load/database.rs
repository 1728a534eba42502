//! The databases that are measured, and the program.

use std::path::PathBuf;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::Outcome;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// A PostgreSQL database of this run's own, gone when dropped.
pub struct Postgres {
    name: String,
}

impl Postgres {
    pub fn create() -> Outcome<Self> {
        let name = format!("imks_bench_{}", std::process::id());
        administer(format!("CREATE DATABASE {name}"))?;
        Ok(Self { name })
    }

    pub fn url(&self) -> Outcome<String> {
        let url = admin_url()?;
        let (server, _) = url.rsplit_once('/').ok_or("a URL without a database")?;
        Ok(format!("{server}/{}", self.name))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = administer(format!("DROP DATABASE {} WITH (FORCE)", self.name)) {
            println!("{} stays: {error}", self.name);
        }
    }
}

/// Returns the path of the program beside this one: `target/release/deps/persist-…` and `target/release/imks`.
pub fn imks() -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    path.pop();
    path.join("imks")
}

fn admin_url() -> Outcome<String> {
    Ok(std::env::var("IMKS_TEST_POSTGRES_URL")
        .map_err(|_| "IMKS_TEST_POSTGRES_URL is not set: run `make bench`")?)
}

/// Runs a statement on a thread of its own: a runtime cannot wait inside of another one.
fn administer(statement: String) -> Outcome<()> {
    let url = admin_url()?;
    let work = move || -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let done = async {
            let mut connection = Box::pin(PgConnection::connect(&url)).await?;
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await
        };
        runtime
            .map_err(|error| error.to_string())?
            .block_on(done)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let done = std::thread::spawn(work).join();
    Ok(done.map_err(|_| "a statement panicked")??)
}
