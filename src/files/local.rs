//! The store of a server without an object store: a directory, whose files are uploaded to and downloaded from the server
//! itself, under addresses that it has signed.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::signature::{Key, Sha256};
use super::{Download, File, Upload, presentation};
use crate::clock::{self, Micros, Timestamp};
use crate::{ImksError, ImksResult};

/// A directory of files. Cheap to clone.
#[derive(Clone)]
pub struct Local(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    key: Key,
    /// Transfers in progress, each with an open file.
    transfers: Arc<Semaphore>,
    /// Transfers in progress by user; an entry exists while there are some.
    users: Mutex<HashMap<Uuid, usize>>,
}

/// The query of an address: what was signed, and the signature.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Link {
    expires: Micros,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    sha256: String,
    #[serde(default)]
    mime: String,
    #[serde(default)]
    name: String,
    /// The user whom the address was given to.
    #[serde(default)]
    user: Uuid,
    #[serde(default)]
    signature: String,
}

impl Link {
    /// Returns the size that an upload must have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns `Content-Type` and `Content-Disposition` of a download.
    pub fn presentation(&self) -> (&'static str, String) {
        presentation(&self.mime, &self.name)
    }

    fn text(&self, method: &str, id: Uuid) -> String {
        let Self { expires, size, sha256, mime, name, user, .. } = self;
        // A name has no line break, so no two links have the same text.
        format!("{method}\n{id}\n{user}\n{expires}\n{size}\n{sha256}\n{mime}\n{name}")
    }

    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("expires", &self.expires.to_string());
        query.append_pair("size", &self.size.to_string());
        query.append_pair("user", &self.user.to_string());
        for (name, value) in [("sha256", &self.sha256), ("mime", &self.mime), ("name", &self.name)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.append_pair("signature", &self.signature).finish()
    }
}

impl Local {
    /// Opens the directory, and creates it, readable only by its owner, if it is missing.
    pub(super) fn open(directory: PathBuf) -> ImksResult<Self> {
        let failed = || ImksError::io("the directory of attachments cannot be used");
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory.join(INCOMPLETE)).map_err(failed())?;
        // What was being uploaded when the server ended is of no use to anybody.
        for left in fs::read_dir(directory.join(INCOMPLETE)).map_err(failed())? {
            fs::remove_file(left.map_err(failed())?.path()).map_err(failed())?;
        }
        let key = Key(key(&directory.join("key"))?);
        let (transfers, users) = (Arc::new(Semaphore::new(TRANSFERS_MAX)), Mutex::default());
        Ok(Self(Arc::new(Inner { directory, key, transfers, users })))
    }

    pub(super) fn upload(&self, file: File<'_>, expires: Micros) -> ImksResult<Upload> {
        let sha256 = file.sha256.unwrap_or_default().into();
        let link = Link { size: file.size, sha256, ..empty(file.user, expires) };
        let url = self.signed("PUT", file.id, link)?;
        Ok(Upload { method: "PUT", url, headers: BTreeMap::new(), expires_at: Timestamp(expires) })
    }

    pub(super) fn download(&self, file: File<'_>, expires: Micros) -> ImksResult<Download> {
        let (mime, name) = (file.mime.into(), file.filename.into());
        let link = Link { mime, name, ..empty(file.user, expires) };
        Ok(Download { url: self.signed("GET", file.id, link)?, expires_at: Timestamp(expires) })
    }

    fn signed(&self, method: &str, id: Uuid, mut link: Link) -> ImksResult<String> {
        link.signature = self.0.key.sign(&link.text(method, id))?;
        Ok(format!("{PATH}/{id}?{}", link.query()))
    }

    /// Checks the query of a request for a file.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for an address that this server has not signed, or that has expired.
    pub fn link(&self, method: &str, id: Uuid, query: &str, now: Micros) -> ImksResult<Link> {
        let link: Option<Link> = serde_urlencoded::from_str(query).ok();
        let valid =
            |link: &Link| link.expires > now && self.0.key.verify(&link.text(method, id), &link.signature);
        link.filter(valid).ok_or(ImksError::NotFound("file"))
    }

    /// Begins to receive the bytes of a file.
    ///
    /// # Errors
    /// [`ImksError::Overloaded`] while too many files are transferred, [`ImksError::RateLimited`] while the user of the
    /// link transfers too many, [`ImksError::Io`].
    pub async fn receive(&self, id: Uuid, link: Link) -> ImksResult<Incoming> {
        let transfer = self.begin(link.user)?;
        let unique = clock::new_id();
        let path = self.0.directory.join(INCOMPLETE).join(format!("{id}.{unique}"));
        let file = tokio::fs::File::create_new(&path).await.map_err(ImksError::io("creating a file"))?;
        let (target, checksum) = (self.path(id), Sha256::start()?);
        Ok(Incoming { file, path, target, link, received: 0, checksum, _transfer: transfer })
    }

    /// Opens a file for reading. Returns it, its size, and the transfer to hold meanwhile.
    ///
    /// # Errors
    /// [`ImksError::NotFound`], and those of [`Local::receive`].
    pub async fn open_file(&self, id: Uuid, link: &Link) -> ImksResult<(tokio::fs::File, u64, Transfer)> {
        let transfer = self.begin(link.user)?;
        let file = match tokio::fs::File::open(self.path(id)).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(ImksError::NotFound("file")),
            Err(error) => return Err(ImksError::io("opening a file")(error)),
        };
        let size = file.metadata().await.map_err(ImksError::io("opening a file"))?.len();
        Ok((file, size, transfer))
    }

    fn begin(&self, user: Uuid) -> ImksResult<Transfer> {
        let permit = Arc::clone(&self.0.transfers).try_acquire_owned();
        let permit = permit.map_err(|_| ImksError::Overloaded { retry_after: RETRY_AFTER })?;
        let mut users = self.0.users.lock();
        let of_user = users.entry(user).or_default();
        if *of_user >= TRANSFERS_PER_USER_MAX {
            return Err(ImksError::RateLimited { bucket: "transfers:user", retry_after: RETRY_AFTER });
        }
        *of_user += 1;
        drop(users);
        Ok(Transfer { local: self.clone(), user, _permit: permit })
    }

    pub(super) async fn size(&self, id: Uuid) -> ImksResult<Option<u64>> {
        match tokio::fs::metadata(self.path(id)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImksError::io("reading a file's size")(error)),
        }
    }

    pub(super) async fn remove(&self, id: Uuid) -> ImksResult<()> {
        match tokio::fs::remove_file(self.path(id)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(ImksError::io("removing a file")(error)),
            _ => Ok(()),
        }
    }

    /// Spreads files over directories by the last digits of their ids, which are random.
    fn path(&self, id: Uuid) -> PathBuf {
        let name = id.simple().to_string();
        self.0.directory.join(&name[30..]).join(name)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Local").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

/// A transfer of a user, which counts until this is dropped.
pub struct Transfer {
    local: Local,
    user: Uuid,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Entry::Occupied(mut of_user) = self.local.0.users.lock().entry(self.user) {
            *of_user.get_mut() -= 1;
            if *of_user.get() == 0 {
                of_user.remove();
            }
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Transfer").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A file that is being uploaded. It becomes visible when it is complete; without that it is removed.
pub struct Incoming {
    file: tokio::fs::File,
    path: PathBuf,
    target: PathBuf,
    link: Link,
    received: u64,
    checksum: Sha256,
    _transfer: Transfer,
}

impl Incoming {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// [`ImksError::PayloadTooLarge`] for more bytes than were announced, [`ImksError::Io`].
    pub async fn write(&mut self, bytes: &[u8]) -> ImksResult<()> {
        self.received += bytes.len() as u64;
        if self.received > self.link.size {
            return Err(ImksError::PayloadTooLarge);
        }
        self.checksum.update(bytes);
        self.file.write_all(bytes).await.map_err(ImksError::io("writing a file"))
    }

    /// Checks the size and the checksum, and makes the file visible once it is on disk.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] for other bytes than were announced, [`ImksError::Conflict`] if the file is there
    /// already, [`ImksError::Io`].
    pub async fn finish(mut self) -> ImksResult<()> {
        if self.received != self.link.size {
            return Err(ImksError::invalid("size", format!("is not {} bytes", self.link.size)));
        }
        let checksum = std::mem::replace(&mut self.checksum, Sha256::start()?).finish();
        if !self.link.sha256.is_empty() && checksum != self.link.sha256 {
            return Err(ImksError::invalid("sha256", "is not that of the bytes"));
        }
        let failed = || ImksError::io("storing a file");
        self.file.sync_all().await.map_err(failed())?;
        let directory = self.target.parent().unwrap_or(Path::new("."));
        tokio::fs::create_dir_all(directory).await.map_err(failed())?;
        // A link, unlike a rename, never replaces what is there: somebody may be reading it.
        match tokio::fs::hard_link(&self.path, &self.target).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(ImksError::Conflict { what: "file", name: self.target.display().to_string() });
            }
            other => other.map_err(failed())?,
        }
        for directory in directory.ancestors().take(2) {
            sync_names(directory).await.map_err(failed())?;
        }
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "a file that was being uploaded was not removed");
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Incoming").field("received", &self.received).finish_non_exhaustive()
    }
}

/// Waits until the names in a directory are on disk, where the system offers that.
async fn sync_names(directory: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    tokio::fs::File::open(directory).await?.sync_all().await?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

fn empty(user: Uuid, expires: Micros) -> Link {
    let text = String::new;
    Link { expires, size: 0, sha256: text(), mime: text(), name: text(), user, signature: text() }
}

/// Reads the key that signs addresses, or creates it. It is a file, so that addresses outlive a restart.
fn key(path: &Path) -> ImksResult<Vec<u8>> {
    let failed = || ImksError::io("the key of attachments cannot be used");
    let mut new = [0; KEY_BYTES];
    getrandom::fill(&mut new)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => file.write_all(&new).and_then(|()| file.sync_all()).map_err(failed())?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed()(error)),
    }
    let key = fs::read(path).map_err(failed())?;
    match key.len() {
        KEY_BYTES => Ok(key),
        _ => Err(ImksError::Config(format!("{} is not a key of {KEY_BYTES} bytes", path.display()))),
    }
}

/// The path below which this server serves its files.
pub const PATH: &str = "/api/v1/files";
/// The directory of files that are being uploaded.
const INCOMPLETE: &str = "incomplete";
/// The most files that are uploaded and downloaded at once.
const TRANSFERS_MAX: usize = 256;
/// The most files that one user uploads and downloads at once.
const TRANSFERS_PER_USER_MAX: usize = 32;
const RETRY_AFTER: Duration = Duration::from_secs(2);
const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn store(directory: &tempfile::TempDir) -> Local {
        Local::open(directory.path().join("files")).unwrap()
    }

    const HELLO: File<'_> = File {
        id: Uuid::from_u128(7),
        size: 5,
        sha256: Some("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        mime: "text/plain",
        filename: "a b.txt",
        user: Uuid::from_u128(9),
    };

    fn link(store: &Local, method: &str, url: &str, now: Micros) -> ImksResult<Link> {
        store.link(method, HELLO.id, url.split_once('?').unwrap().1, now)
    }

    async fn put(store: &Local, parts: &[&str]) -> ImksResult<()> {
        let url = store.upload(HELLO, 10).unwrap().url;
        let mut incoming = store.receive(HELLO.id, link(store, "PUT", &url, 9)?).await?;
        for part in parts {
            incoming.write(part.as_bytes()).await?;
        }
        incoming.finish().await
    }

    #[tokio::test]
    async fn only_the_announced_bytes_are_stored_and_nothing_else_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        assert_eq!(put(&store, &["hell"]).await.unwrap_err().code(), "invalid_input");
        assert_eq!(put(&store, &["hallo"]).await.unwrap_err().code(), "invalid_input");
        assert_eq!(put(&store, &["hello", "!"]).await.unwrap_err().code(), "payload_too_large");
        assert_eq!(store.size(HELLO.id).await.unwrap(), None);
        put(&store, &["he", "llo"]).await.unwrap();
        assert_eq!(put(&store, &["hello"]).await.unwrap_err().code(), "conflict");
        assert_eq!(store.size(HELLO.id).await.unwrap(), Some(5));
        assert_eq!(fs::read_dir(directory.path().join("files").join(INCOMPLETE)).unwrap().count(), 0);
        store.remove(HELLO.id).await.unwrap();
        store.remove(HELLO.id).await.unwrap();
        assert_eq!(store.size(HELLO.id).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_slow_user_takes_a_part_of_the_transfers_and_others_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let of = |number: u128| File { id: Uuid::from_u128(number), ..HELLO };
        let begin = async |file: File<'_>| {
            let url = store.upload(file, 10).unwrap().url;
            let link = store.link("PUT", file.id, url.split_once('?').unwrap().1, 9).unwrap();
            store.receive(file.id, link).await
        };
        let mut slow = Vec::new();
        for number in 0..TRANSFERS_PER_USER_MAX as u128 {
            slow.push(begin(of(number)).await.unwrap());
        }
        let refused = begin(of(100)).await.unwrap_err();
        assert!(refused.code() == "rate_limited" && refused.is_retryable());
        begin(File { user: Uuid::from_u128(10), ..of(100) }).await.unwrap();
        slow.pop();
        begin(of(101)).await.unwrap();
        drop(slow);
        assert!(store.0.users.lock().is_empty());
    }

    #[test]
    fn an_address_is_good_for_one_file_one_purpose_and_a_short_time() {
        let directory = tempfile::tempdir().unwrap();
        let (upload, download) = (
            store(&directory).upload(HELLO, 10).unwrap().url,
            store(&directory).download(HELLO, 10).unwrap().url,
        );
        // Opened again: the key is kept.
        let store = store(&directory);
        assert_eq!(link(&store, "PUT", &upload, 9).unwrap().size(), 5);
        assert!(link(&store, "GET", &download, 9).unwrap().presentation().1.contains("a b.txt"));
        assert!(link(&store, "PUT", &upload, 10).is_err(), "expired");
        assert!(link(&store, "GET", &upload, 9).is_err() && link(&store, "PUT", &download, 9).is_err());
        assert!(link(&store, "PUT", &upload.replace("size=5", "size=6"), 9).is_err());
        assert!(link(&store, "PUT", &upload.replace("0009", "0008"), 9).is_err(), "another user");
        let other = store.link("PUT", Uuid::from_u128(8), upload.split_once('?').unwrap().1, 9);
        assert!(other.is_err());
    }
}
