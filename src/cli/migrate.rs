//! `imks migrate`: migrates the database without starting a server.

use crate::ImksResult;
use crate::config::Config;
use crate::models::db::Db;

/// Applies the missing migrations. The server does the same when it starts.
pub(super) async fn run(config: Config) -> ImksResult<()> {
    let db = Db::connect(&config.database).await?;
    db.migrate().await?;
    super::say(&format!("The schema is up to date: {}", db.describe()))?;
    db.close().await;
    Ok(())
}
