//! Where the outbox is kept: in memory, in a file, or where an application likes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::socket::codec::outgoing::EncodedArgs;

/// An event of the outbox, which is sent until it is acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The id of the entry.
    pub id: Uuid,
    /// The path of the namespace.
    pub namespace: Arc<str>,
    /// The name of the event.
    pub event: Arc<str>,
    /// The arguments. They are the same at every attempt, and with them the nonce that the application put in.
    pub args: EncodedArgs,
}

/// A store of what is in the outbox, for events that outlive the client. Its methods are called one at a time, and
/// all but `load` on threads for blocking work.
pub trait Store: Send + 'static {
    /// Returns the entries that were added and not removed, in their order. Called once, where the
    /// client is built.
    ///
    /// # Errors
    /// The failure of the medium. The client is not built.
    fn load(&mut self) -> io::Result<Vec<Entry>>;

    /// Adds an entry, before it is sent.
    ///
    /// # Errors
    /// The failure of the medium. The event is not sent.
    fn add(&mut self, entry: &Entry) -> io::Result<()>;

    /// Removes an entry that was acknowledged or given up. An unknown one is no error.
    ///
    /// # Errors
    /// The failure of the medium. The event will be sent once more after a restart.
    fn remove(&mut self, id: Uuid) -> io::Result<()>;
}

/// A store in memory, for events that outlive a client but not the process. Clones share the entries.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Vec<Entry>>>);

impl MemoryStore {
    /// Returns the entries, in their order.
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().clone()
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> io::Result<Vec<Entry>> {
        Ok(self.entries())
    }

    fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.0.lock().push(entry.clone());
        Ok(())
    }

    fn remove(&mut self, id: Uuid) -> io::Result<()> {
        self.0.lock().retain(|entry| entry.id != id);
        Ok(())
    }
}

/// A store in a file: one line for each entry that was added, and one for each that was removed. When it is read,
/// and whenever lines of removed entries outweigh the others, it is written anew.
///
/// A file belongs to one client at a time, which holds a lock on a second file beside it, with `.lock` after the name.
/// Another client that opens it meanwhile gets [`io::ErrorKind::WouldBlock`].
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    durable: bool,
    /// The file, unless the last line that was written to it failed.
    file: Option<File>,
    /// The locked file. The file of the entries cannot be it, because a new one takes its place now and then.
    lock: Option<File>,
    /// The entries that are in the file and not removed.
    live: Vec<Entry>,
    lines: usize,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Add { id: Uuid, namespace: Arc<str>, event: Arc<str>, json: String, attachments: Vec<String> },
    Remove(Uuid),
}

impl FileStore {
    /// Creates a store in a file, which is created where it does not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), durable: false, file: None, lock: None, live: Vec::new(), lines: 0 }
    }

    /// Waits for the disk whenever an entry is added, so that it survives a loss of power too. Without this it
    /// survives the end of the process only, but is added in microseconds. After a loss of power, an entry that was
    /// removed just before may be sent once more.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        if self.lock.is_none() {
            return Err(io::Error::other("the store was not loaded"));
        }
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = match self.file.take() {
            Some(file) => file,
            // After a line that failed, the next one would be read as its rest.
            None => self.rewrite()?,
        };
        file.write_all(&text)?;
        if self.durable && matches!(line, Line::Add { .. }) {
            file.sync_data()?;
        }
        (self.file, self.lines) = (Some(file), self.lines + 1);
        Ok(())
    }

    fn compact(&mut self) -> io::Result<()> {
        self.file = Some(self.rewrite()?);
        Ok(())
    }

    /// Writes the entries that are left to a new file, which then takes the place of the old one.
    fn rewrite(&mut self) -> io::Result<File> {
        let new = beside(&self.path, ".new");
        let mut file = private().write(true).truncate(true).create(true).open(&new)?;
        for entry in &self.live {
            let mut text = serde_json::to_vec(&Line::from(entry))?;
            text.push(b'\n');
            file.write_all(&text)?;
        }
        file.sync_all()?;
        // What is written to the old file from now on is lost.
        self.file = None;
        std::fs::rename(&new, &self.path)?;
        sync_folder(&self.path)?;
        self.lines = self.live.len();
        Ok(file)
    }
}

impl Store for FileStore {
    fn load(&mut self) -> io::Result<Vec<Entry>> {
        let lock = File::create(beside(&self.path, ".lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        let file = private().read(true).append(true).create(true).open(&self.path)?;
        self.live = read(&file, &self.path)?;
        self.lock = Some(lock);
        self.compact()?;
        Ok(self.live.clone())
    }

    fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.append(&Line::from(entry))?;
        self.live.push(entry.clone());
        Ok(())
    }

    fn remove(&mut self, id: Uuid) -> io::Result<()> {
        let before = self.live.len();
        self.live.retain(|entry| entry.id != id);
        if self.live.len() == before {
            return Ok(());
        }
        self.append(&Line::Remove(id))?;
        match self.lines > DEAD_LINES_MAX + 2 * self.live.len() {
            true => self.compact(),
            false => Ok(()),
        }
    }
}

impl From<&Entry> for Line {
    fn from(entry: &Entry) -> Self {
        Self::Add {
            id: entry.id,
            namespace: entry.namespace.clone(),
            event: entry.event.clone(),
            json: entry.args.json().to_owned(),
            attachments: entry.args.attachments().iter().map(|bytes| STANDARD.encode(bytes)).collect(),
        }
    }
}

/// Reads the entries of a file. A last line that was not finished is what a crash leaves, in the middle of a character
/// perhaps and with zeros behind it, and was not yet sent. Anything else there is another file, which must not be written anew.
fn read(file: &File, path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    while reader.read_until(b'\n', &mut text)? > 0 {
        if !text.ends_with(b"\n") {
            let zeros = text.iter().rev().take_while(|byte| **byte == 0).count();
            text.truncate(text.len() - zeros);
            return match serde_json::from_slice::<Line>(&text) {
                Err(error) if !error.is_eof() => Err(damaged(path, error)),
                _ => Ok(entries),
            };
        }
        match serde_json::from_slice(&text).map_err(|error| damaged(path, error))? {
            Line::Remove(gone) => entries.retain(|entry: &Entry| entry.id != gone),
            Line::Add { id, namespace, event, json, attachments } => {
                let decoded: Result<Vec<Bytes>, _> =
                    attachments.iter().map(|text| STANDARD.decode(text).map(Bytes::from)).collect();
                let attachments = decoded.map_err(|error| damaged(path, error))?;
                let args =
                    EncodedArgs::from_parts(&json, attachments).map_err(|error| damaged(path, error))?;
                entries.push(Entry { id, namespace, event, args });
            }
        }
        text.clear();
    }
    Ok(entries)
}

/// Returns options for a file that only its owner may read, because there are messages in it.
fn private() -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Waits until the disk knows that a file has got its name. Where folders cannot be opened, a loss of power may take
/// what was written since.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| cfg!(unix) && !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Returns the path of a file with a longer name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut longer = path.as_os_str().to_owned();
    longer.push(suffix);
    longer.into()
}

fn damaged(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    tracing::error!(path = %path.display(), %error, "the outbox is damaged");
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The number of lines about removed entries that a file of the outbox may have before it is written anew.
const DEAD_LINES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Binary;

    fn entry(number: u32) -> Entry {
        let args = EncodedArgs::new(&(number, Binary(vec![number as u8].into()))).unwrap();
        Entry { id: Uuid::from_u128(number.into()), namespace: "/".into(), event: "say".into(), args }
    }

    #[test]
    fn what_was_not_removed_is_there_after_a_restart_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let mut store = FileStore::new(&path).durable();
        assert!(store.load().unwrap().is_empty());
        (1..=4).for_each(|number| store.add(&entry(number)).unwrap());
        store.remove(entry(2).id).unwrap();
        store.remove(entry(9).id).unwrap();
        drop(store);
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600, "nobody else may read it");
        }
        // The last line is what a crash leaves, here in the middle of a character.
        File::options().append(true).open(&path).unwrap().write_all(b"{\"add\":\"\xc3").unwrap();
        assert_eq!(FileStore::new(&path).load().unwrap(), [1, 3, 4].map(entry));
        assert_eq!(FileStore::new(&path).load().unwrap(), [1, 3, 4].map(entry));
    }

    #[test]
    fn a_file_does_not_grow_with_what_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let mut store = FileStore::new(&path);
        store.load().unwrap();
        store.add(&entry(1)).unwrap();
        for number in 2..2_000 {
            store.add(&entry(number)).unwrap();
            store.remove(entry(number).id).unwrap();
        }
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= DEAD_LINES_MAX + 4, "{lines}");
        drop(store);
        assert_eq!(FileStore::new(&path).load().unwrap(), [entry(1)]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_line_that_was_written_in_part_harms_none_that_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let mut store = FileStore::new(&path);
        store.load().unwrap();
        store.add(&entry(1)).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"{\"add\":").unwrap();
        store.file = Some(File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(store.add(&entry(2)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        store.add(&entry(3)).unwrap();
        store.remove(entry(1).id).unwrap();
        drop(store);
        assert_eq!(FileStore::new(&path).load().unwrap(), [entry(3)]);
    }

    #[test]
    fn a_file_belongs_to_one_client_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let mut store = FileStore::new(&path);
        store.load().unwrap();
        assert_eq!(FileStore::new(&path).load().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(store);
        for nonsense in ["nonsense\n", "notes of somebody", "{\"add\":1}"] {
            std::fs::write(&path, nonsense).unwrap();
            assert_eq!(FileStore::new(&path).load().unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), nonsense, "another file stays as it is");
        }
        for begun in ["{\"add\":{\"id\":\"01", "\0\0\0", "{\"add\":\0\0"] {
            std::fs::write(&path, begun).unwrap();
            assert_eq!(FileStore::new(&path).load().unwrap(), []);
        }
    }
}
