//! The outbox of `imks chat`: a file of the client library that also keeps messages whose channel is known by its name
//! only. What an earlier run has left there is sent by the conversation, which says what became of it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use uuid::Uuid;

use super::effect::Kept;
use crate::cli::terminal::{causes, text};
use crate::client::{EncodedArgs, Entry, FileStore, One, Store};

/// An outbox in a file. Clones share it.
#[derive(Clone)]
pub(super) struct Outbox {
    path: Arc<Path>,
    state: Arc<Mutex<State>>,
}

struct State {
    file: FileStore,
    kept: Vec<Kept>,
    /// The ids of these in the file, by their nonces.
    ids: HashMap<String, Uuid>,
}

/// The argument of `message:send`, if it has nothing but what [`Kept`] has too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    channel_id: String,
    body: String,
    #[serde(default)]
    thread_id: Option<String>,
    nonce: String,
}

impl Outbox {
    /// Creates an outbox in a file, which is read when the client is built.
    pub(super) fn new(path: PathBuf) -> Self {
        let state = State { file: FileStore::new(&path), kept: Vec::new(), ids: HashMap::new() };
        Self { path: path.into(), state: Arc::new(Mutex::new(state)) }
    }

    /// Returns the name of the file.
    pub(super) fn name(&self) -> String {
        text::line(&self.path.display().to_string())
    }

    /// Takes the messages that were kept before.
    pub(super) fn take_kept(&self) -> Vec<Kept> {
        std::mem::take(&mut self.state.lock().kept)
    }

    /// Keeps a message.
    ///
    /// # Errors
    /// That of the file.
    pub(super) fn keep(&self, kept: &Kept) -> io::Result<()> {
        let args = EncodedArgs::new(&One(kept)).map_err(io::Error::other)?;
        let entry = Entry { id: id(&kept.nonce)?, namespace: "/".into(), event: KEPT.into(), args };
        self.state.lock().file.add(&entry)
    }

    /// Keeps the message with this nonce no longer. One that is not kept is no error.
    ///
    /// # Errors
    /// That of the file.
    pub(super) fn forget(&self, nonce: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.ids.remove(nonce).map_or_else(|| id(nonce), Ok)?;
        state.file.remove(id)
    }

    /// Returns why the file cannot be used, and what to do.
    pub(super) fn explain(&self, error: &io::Error) -> String {
        let file = self.name();
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!(
                    "the outbox {file} is in use: end the other program, or name another file with --outbox"
                )
            }
            io::ErrorKind::InvalidData => {
                format!("{file} is no outbox, or damaged: move it away, or name another file with --outbox")
            }
            io::ErrorKind::NotFound => {
                format!(
                    "the folder of the outbox {file} does not exist: make it, or name another file with --outbox"
                )
            }
            _ => format!(
                "the outbox {file} cannot be used: {}: mend that, or name another file with --outbox",
                causes(error)
            ),
        }
    }
}

impl Store for Outbox {
    fn load(&mut self) -> io::Result<Vec<Entry>> {
        let mut state = self.state.lock();
        let mut others = Vec::new();
        for entry in state.file.load()? {
            let Some(kept) = read(&entry)? else {
                others.push(entry);
                continue;
            };
            // A run that was killed while it handed a message to the client leaves it twice.
            match state.ids.contains_key(&kept.nonce) {
                true => state.file.remove(entry.id)?,
                false => {
                    state.ids.insert(kept.nonce.clone(), entry.id);
                    state.kept.push(kept);
                }
            }
        }
        Ok(others)
    }

    fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.state.lock().file.add(entry)
    }

    fn remove(&mut self, id: Uuid) -> io::Result<()> {
        self.state.lock().file.remove(id)
    }
}

/// Reads an entry of an earlier run. `None` if the client sends it as it is.
fn read(entry: &Entry) -> io::Result<Option<Kept>> {
    let json = entry.args.json();
    if &*entry.event == KEPT {
        return Ok(Some(serde_json::from_str(json)?));
    }
    let is_message = &*entry.event == "message:send" && &*entry.namespace == "/";
    let plain = is_message.then(|| serde_json::from_str::<Plain>(json).ok()).flatten();
    Ok(plain.map(|Plain { channel_id, body, thread_id, nonce }| Kept {
        channel: channel_id,
        body,
        thread: thread_id,
        nonce,
    }))
}

fn id(nonce: &str) -> io::Result<Uuid> {
    Uuid::parse_str(nonce).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The name of the event that stands for a kept message in the file. It is never sent.
const KEPT: &str = "imks chat: kept";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::client::nonce;

    fn kept(body: &str) -> Kept {
        Kept { channel: "ops".into(), body: body.into(), thread: None, nonce: nonce() }
    }

    fn entry(id: u128, payload: &Value) -> Entry {
        let args = EncodedArgs::new(&One(payload)).unwrap();
        Entry { id: Uuid::from_u128(id), namespace: "/".into(), event: "message:send".into(), args }
    }

    #[test]
    fn a_message_is_kept_until_it_is_forgotten_and_the_client_sends_nothing_that_the_chat_sends() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let mut outbox = Outbox::new(folder.path().join("ob"));
            let entries = outbox.load().unwrap();
            (outbox, entries)
        };
        let (one, two) = (kept("one"), kept("two"));
        let reply = json!({ "channel_id": "c1", "body": "a reply", "thread_id": "m1", "nonce": "n" });
        let richer = json!({ "channel_id": "c1", "body": "with more", "nonce": "n2", "attachments": ["a"] });
        let (mut outbox, _) = open();
        [(7, &reply), (8, &richer)].iter().for_each(|(id, of)| outbox.add(&entry(*id, of)).unwrap());
        outbox.add(&entry(9, &reply)).unwrap();
        [&one, &two].iter().for_each(|kept| outbox.keep(kept).unwrap());
        outbox.forget(&one.nonce).unwrap();
        outbox.forget(&nonce()).unwrap();
        drop(outbox);
        let (outbox, entries) = open();
        let thread = Some("m1".to_owned());
        let reply = Kept { channel: "c1".into(), body: "a reply".into(), thread, nonce: "n".into() };
        assert_eq!((&entries[..], outbox.take_kept()), (&[entry(8, &richer)][..], vec![reply, two.clone()]));
        outbox.forget("n").unwrap();
        drop(outbox);
        assert_eq!(open().0.take_kept(), [two]);
    }
}
