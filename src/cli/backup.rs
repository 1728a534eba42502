//! `imks backup FILE`: copies the SQLite database of a running server into a new file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::config::Config;
use crate::files::Place;
use crate::models::Db;
use crate::models::db::{SqliteDb, copy};
use crate::secret::Secret;
use crate::{ImksError, ImksResult};

/// Options of `imks backup`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file to make; one that exists is never overwritten
    file: PathBuf,
}

/// Copies the database as it is now, while servers and commands go on using it. The file appears when it is whole, on the
/// disk, and checked.
pub(super) async fn run(args: Args, config: &Config) -> ImksResult<()> {
    if config.database.url.as_ref().map(Secret::expose).is_some_and(|url| url.starts_with("postgres")) {
        return Err(ImksError::Config(OF_POSTGRES.into()));
    }
    super::token::check_database(config)?;
    if args.file.exists() {
        return Err(exists(&args.file));
    }
    let db = Db::connect(&config.database).await?;
    let Db::Sqlite(sqlite) = &db else { return Err(ImksError::Config(OF_POSTGRES.into())) };
    let part = Part::create(&args.file)?;
    with_progress(sqlite, &part.path).await?;
    let messages = copy::check(&part.path).await?;
    let bytes = part.becomes(&args.file)?;
    super::say(&format!("{}: {messages} messages, {}", args.file.display(), mebibytes(bytes)))?;
    super::hint(KEEP_SAFE);
    if config.attachments.place == Place::Local {
        let directory = config.attachments.dir.clone();
        let directory = directory.unwrap_or_else(|| config.database.data_dir.join("attachments"));
        super::hint(&format!("Attached files are not in it: copy {} after it.", directory.display()));
    }
    db.close().await;
    Ok(())
}

/// Copies, and says how far it is every few seconds.
async fn with_progress(sqlite: &SqliteDb, file: &Path) -> ImksResult<()> {
    let whole = sqlite.bytes_of_copy().await?;
    let copying = sqlite.copy_into(file);
    tokio::pin!(copying);
    let mut ticks = tokio::time::interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    loop {
        tokio::select! {
            outcome = &mut copying => return outcome,
            _ = ticks.tick() => {
                let written = std::fs::metadata(file).map_or(0, |file| file.len());
                super::hint(&format!("{} of about {}", mebibytes(written), mebibytes(whole)));
            }
        }
    }
}

/// The copy until it is whole. It is removed when dropped.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// Creates an empty file beside `target`, readable only by its owner.
    fn create(target: &Path) -> ImksResult<Self> {
        let mut path = OsString::from(target);
        path.push(".part");
        let path = PathBuf::from(path);
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(ImksError::Config(format!(
                "{} is left from a backup that was interrupted, or that is being made: remove it if no other one runs",
                path.display()
            ))),
            Err(error) => Err(ImksError::io(format!("cannot create {}", path.display()))(error)),
        }
    }

    /// Gives the whole copy its name, when it is on the disk. Returns its size in bytes.
    fn becomes(self, target: &Path) -> ImksResult<u64> {
        let failed = |what: &str| ImksError::io(format!("cannot {what} {}", target.display()));
        self.file.sync_all().map_err(failed("write"))?;
        let bytes = self.file.metadata().map_err(failed("write"))?.len();
        // Unlike a rename, a link never replaces a file that somebody has made meanwhile.
        std::fs::hard_link(&self.path, target).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(target),
            _ => failed("name")(error),
        })?;
        let directory = target.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new(".")));
        directory.and_then(|directory| directory.sync_all()).map_err(failed("write"))?;
        Ok(bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Whoever makes the next backup is told about one that stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn exists(file: &Path) -> ImksError {
    ImksError::Config(format!("{} exists already: a backup never overwrites a file", file.display()))
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// The pause between two lines about progress.
const PROGRESS: Duration = Duration::from_secs(2);
const OF_POSTGRES: &str = "PostgreSQL is backed up by its own program, also while imks runs: \
    pg_dump --format=custom --no-unlogged-table-data --file=FILE \"$DATABASE_URL\" (docs/operations.md, \"Back up and \
    restore\")";
const KEEP_SAFE: &str = "It has all messages, and the keys that sign tokens on a standalone server: keep it as safe as \
    the server itself. Certificates and the configuration are not in it.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_backup_has_written_goes_and_a_whole_one_stays_with_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("backup.db");
        drop(Part::create(&target).unwrap());
        let part = Part::create(&target).unwrap();
        let twice = Part::create(&target).err().unwrap().to_string();
        assert!(twice.contains("backup.db.part is left from a backup"), "{twice}");
        assert_eq!(part.becomes(&target).unwrap(), 0);
        let again = Part::create(&target).unwrap().becomes(&target).unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
