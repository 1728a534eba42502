//! A database of one test's own, and the directory that goes with it.

use std::path::PathBuf;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// Gone when dropped.
pub(crate) struct Database {
    directory: TempDir,
    /// Name of the PostgreSQL database.
    name: Option<String>,
    settings: Vec<(&'static str, String)>,
}

impl Database {
    /// # Panics
    ///
    /// For PostgreSQL, where `IMKS_TEST_POSTGRES_URL` is not set: `make test` sets it.
    pub(crate) fn create(kind: Kind) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let name = matches!(kind, Kind::Postgres).then(|| {
            let name = format!("imks_client_{}", uuid::Uuid::now_v7().simple());
            administer(&format!("CREATE DATABASE {name}"));
            name
        });
        Self { directory, name, settings: Vec::new() }
    }

    /// With a setting of the server.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// Nobody is too fast.
    pub(crate) fn without_rate_limits(self) -> Self {
        self.with("IMKS_LIMIT_EVENTS", "off")
            .with("IMKS_LIMIT_SENDS", "off")
            .with("IMKS_LIMIT_SENDS_PER_CHANNEL", "off")
    }

    /// What makes `imks` use it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let data = PathBuf::from(self.directory.path()).join("data");
        let mut environment = vec![("IMKS_DATA_DIR", data.display().to_string())];
        environment.extend(self.settings.iter().cloned());
        environment
            .extend(self.name.as_ref().map(|name| ("DATABASE_URL", with_database(&admin_url(), name))));
        environment
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            administer(&format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

fn admin_url() -> String {
    std::env::var("IMKS_TEST_POSTGRES_URL").expect("IMKS_TEST_POSTGRES_URL: run `make test`, or set it")
}

fn with_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{name}")
}

fn administer(statement: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut connection = Box::pin(PgConnection::connect(&admin_url())).await.expect("PostgreSQL answers");
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.expect(statement);
    });
}
