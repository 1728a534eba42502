//! What a proof needs: a directory, a database that can be cut off, a server on both, and tokens of its people.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::bench::relay::Relay;
use super::server::{Server, Setup};
use crate::config::Config;
use crate::directory::Directory;
use crate::models::db::{Db, Scratch};
use crate::secret::Secret;
use crate::{ImksError, ImksResult};

/// The world of a proof.
pub(super) struct World {
    pub(super) server: Server,
    /// What the server reaches its database through; none with SQLite.
    pub(super) relay: Option<Relay>,
    /// The database, for people.
    pub(super) database: String,
    pub(super) tokens: Vec<String>,
    /// Whether the server was killed, so that what it left behind can tell something.
    pub(super) had_faults: bool,
    scratch: Option<Scratch>,
    folder: Folder,
}

impl World {
    /// Makes a world with so many people.
    ///
    /// # Errors
    /// [`ImksError::Io`] and those of the database; what was made until then is removed.
    pub(super) async fn create(people: usize, database: Option<&str>) -> ImksResult<Self> {
        let folder = Folder::create()?;
        let scratch = match database {
            Some(url) => Some(Box::pin(Scratch::create(url)).await?),
            None => None,
        };
        let made = Box::pin(Self::fill(people, &folder, scratch.as_ref())).await;
        match (made, scratch) {
            (Ok((server, relay, database, tokens)), scratch) => {
                Ok(Self { server, relay, database, tokens, had_faults: false, scratch, folder })
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(scratch)) => {
                // The first failure is the one to tell.
                let _ = Box::pin(scratch.remove()).await;
                Err(error)
            }
        }
    }

    async fn fill(
        people: usize,
        folder: &Folder,
        scratch: Option<&Scratch>,
    ) -> ImksResult<(Server, Option<Relay>, String, Vec<String>)> {
        let data = folder.path.join("data");
        let mut variables = vec![
            ("IMKS_DATA_DIR", data.display().to_string()),
            // The people write as fast as they can, which the limits for people would forbid.
            ("IMKS_LIMIT_EVENTS", "off".into()),
            ("IMKS_LIMIT_SENDS", "off".into()),
            ("IMKS_LIMIT_SENDS_PER_CHANNEL", "off".into()),
            ("RUST_LOG", "warn".into()),
        ];
        let relay = match scratch {
            Some(scratch) => Some(Relay::start(scratch.server()).await?),
            None => None,
        };
        if let Some((scratch, relay)) = scratch.zip(relay.as_ref()) {
            variables.push(("DATABASE_URL", scratch.url(Some(relay.address())).expose().to_owned()));
        }
        let (database, tokens) = Box::pin(tokens(people, &data, scratch.map(|it| it.url(None)))).await?;
        let setup = Setup { folder: folder.path.clone(), variables };
        let server = Server::start(setup).await?;
        Ok((server, relay, database, tokens))
    }

    /// Ends the server and removes its data, unless it is to be `kept` for a look at it. Returns where it is then.
    ///
    /// # Errors
    /// Those of the database, if it cannot be removed.
    pub(super) async fn end(self, keep: bool) -> ImksResult<Option<String>> {
        let Self { server, relay, scratch, mut folder, database, .. } = self;
        server.end().await;
        drop(relay);
        if keep {
            folder.is_kept = true;
            return Ok(Some(format!("{database}; log and files in {}", folder.path.display())));
        }
        match scratch {
            Some(scratch) => Box::pin(scratch.remove()).await.map(|()| None),
            None => Ok(None),
        }
    }
}

/// Makes the people, and returns the database for people and a token of each.
async fn tokens(people: usize, data: &Path, url: Option<Secret>) -> ImksResult<(String, Vec<String>)> {
    let mut config = Config::default();
    config.database.url = url;
    config.database.data_dir = data.to_owned();
    let db = Db::connect(&config.database).await?;
    db.migrate().await?;
    let described = db.describe();
    let directory = Directory::open(db, config.directory()).await?;
    let mut tokens = Vec::with_capacity(people);
    for number in 1..=people {
        let user = directory.ensure_development(&format!("person{number}")).await?;
        tokens.push(directory.issue_token(&user, LIFETIME).await?);
    }
    directory.close().await;
    Ok((described, tokens))
}

/// A directory that only this user may read. It is removed when this is dropped.
pub(in crate::cli) struct Folder {
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) is_kept: bool,
}

impl Folder {
    pub(in crate::cli) fn create() -> ImksResult<Self> {
        let path = std::env::temp_dir().join(format!("imks-{}", crate::clock::new_id().simple()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(ImksError::io(format!("making {}", path.display())))?;
        Ok(Self { path, is_kept: false })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary directory could not be removed");
        }
    }
}

/// The lifetime of the tokens.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
