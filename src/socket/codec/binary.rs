//! Binary values in typed payloads: a field of type [`Binary`] is an attachment on the wire.
//!
//! `serde` has no notion of attachments, so they are in a thread-local while a payload is read or written.
//! Neither operation yields.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::non_json::Note;
use super::placeholder::{NUMBER, PLACEHOLDER, Placeholder};

/// Bytes that are sent as a binary attachment.
///
/// Deserialized from an event, it shares the received bytes. Serialized in an emit or an ack, it adds an
/// attachment to the packet and leaves a placeholder in the JSON. Serialized anywhere else, it is what
/// `serde` makes of bytes.
///
/// ```
/// # use imks::socket::Binary;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Upload {
///     name: String,
///     content: Binary,
/// }
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Binary(pub Bytes);

impl fmt::Debug for Binary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Binary({} bytes)", self.0.len())
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

thread_local! {
    /// The attachments of the payload that is being read.
    static READING: RefCell<Option<Vec<Bytes>>> = const { RefCell::new(None) };
    /// What was found in the payload that is being written, preceded by the number of the first attachment.
    static WRITING: RefCell<Option<(usize, Found)>> = const { RefCell::new(None) };
}

/// The values of a payload that JSON does not have.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The attachments.
    pub(super) attachments: Vec<Bytes>,
    /// The other values, by their position in the writer.
    pub(super) notes: Vec<Note>,
}

/// Runs `read` with access to these attachments.
pub(crate) fn reading<R>(attachments: &[Bytes], read: impl FnOnce() -> R) -> R {
    if attachments.is_empty() {
        return read();
    }
    let outer = READING.replace(Some(attachments.to_vec()));
    let _restore = Restore(outer);
    read()
}

/// A guard that restores the attachments of the outer payload, even if `read` panics.
struct Restore(Option<Vec<Bytes>>);

impl Drop for Restore {
    fn drop(&mut self) {
        READING.set(self.0.take());
    }
}

/// Runs `write` and collects the values it serializes that JSON does not have. [`Binary`] values are numbered
/// from `first`.
pub(super) fn writing<R>(first: usize, write: impl FnOnce() -> R) -> (R, Found) {
    WRITING.set(Some((first, Found::default())));
    let written = write();
    let found = WRITING.take().map(|(_, found)| found).unwrap_or_default();
    (written, found)
}

/// Adds a value to what [`writing`] collects.
pub(super) fn note(note: Note) {
    WRITING.with_borrow_mut(|writing| {
        if let Some((_, found)) = writing {
            found.notes.push(note);
        }
    });
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = WRITING.with_borrow_mut(|writing| {
            let (first, found) = writing.as_mut()?;
            found.attachments.push(self.0.clone());
            Some(*first + found.attachments.len() - 1)
        });
        match number {
            Some(number) => Placeholder(number).serialize(serializer),
            None => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BinaryVisitor)
    }
}

struct BinaryVisitor;

impl<'de> Visitor<'de> for BinaryVisitor {
    type Value = Binary;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("binary data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Binary, A::Error> {
        let (mut is_placeholder, mut number) = (false, None);
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &*key {
                PLACEHOLDER => is_placeholder = map.next_value()?,
                NUMBER => number = Some(map.next_value::<usize>()?),
                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        let number =
            number.filter(|_| is_placeholder).ok_or_else(|| A::Error::custom("not a placeholder"))?;
        let found = READING.with_borrow(|reading| reading.as_ref()?.get(number).cloned());
        found.map(Binary).ok_or_else(|| A::Error::custom("placeholder without an attachment"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Binary, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element::<u8>()? {
            bytes.push(byte);
        }
        Ok(Binary(bytes.into()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Binary, E> {
        Ok(Binary(Bytes::copy_from_slice(bytes)))
    }
}
