//! The claim of a server on its SQLite file: a lock that no second server gets.

use std::fs::{File, TryLockError};

use super::Db;
use crate::{ImksError, ImksResult};

/// The claim of a server. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct Claim(#[allow(dead_code, reason = "holds the lock")] Option<File>);

impl Db {
    /// Claims the SQLite file for one server. Other programs, such as `imks directory`, may still use it. A
    /// database in memory and PostgreSQL need no claim.
    ///
    /// # Errors
    /// [`ImksError::Config`] if another server has claimed the file, [`ImksError::Io`] if it cannot be locked.
    pub async fn claim(&self) -> ImksResult<Claim> {
        let Self::Sqlite(sqlite) = self else { return Ok(Claim(None)) };
        let options = sqlite.writer.connect_options();
        let database = options.get_filename().to_owned();
        if database.as_os_str().is_empty() || !database.exists() {
            return Ok(Claim(None));
        }
        // A file of its own: closing any handle of the database file would drop the locks of SQLite.
        let mut path = database.clone().into_os_string();
        path.push("-server");
        let locked = tokio::task::spawn_blocking(move || {
            let file = File::options().write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        });
        let locked = locked.await.map_err(|error| ImksError::Task(crate::error::Cause::new(error)))?;
        let file = locked.map_err(ImksError::io(format!("cannot lock {}", database.display())))?;
        let taken = || {
            ImksError::Config(format!(
                "{} is used by another imks server. One SQLite file belongs to one server; several servers need \
                 PostgreSQL",
                database.display()
            ))
        };
        file.map(|file| Claim(Some(file))).ok_or_else(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[tokio::test]
    async fn a_file_belongs_to_one_server_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { data_dir: directory.path().into(), ..Config::default() };
        let (one, two) = (Db::connect(&config).await.unwrap(), Db::connect(&config).await.unwrap());
        let claim = one.claim().await.unwrap();
        let refused = two.claim().await.unwrap_err().to_string();
        assert!(refused.contains("is used by another imks server"), "{refused}");
        drop(claim);
        assert!(two.claim().await.is_ok());
    }

    #[tokio::test]
    async fn databases_in_memory_are_never_shared() {
        let config = Config { url: Some("sqlite::memory:".into()), ..Config::default() };
        let (one, two) = (Db::connect(&config).await.unwrap(), Db::connect(&config).await.unwrap());
        let _claims = (one.claim().await.unwrap(), two.claim().await.unwrap());
    }
}
