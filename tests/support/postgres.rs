//! A fresh PostgreSQL database for one server.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// Creates a database and returns its URL. `make test` starts a PostgreSQL that is thrown away afterwards, so
/// nobody drops it.
pub async fn create() -> String {
    let server = std::env::var("IMKS_TEST_POSTGRES_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into());
    let name = format!("imks_messaging_{}", Uuid::now_v7().simple());
    let mut admin = PgConnection::connect(&server).await.expect("PostgreSQL; see `make test`");
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
    let (host, _) = server.rsplit_once('/').unwrap();
    format!("{host}/{name}")
}
