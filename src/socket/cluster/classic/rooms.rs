//! The names of rooms on the wire, where they are texts or numbers.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

/// The name of a room. Node.js servers also have rooms whose names are numbers; here they are the same as texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room<'a>(pub(super) Cow<'a, str>);

/// Returns the number that JavaScript writes like this, if it is an integer.
pub(super) fn number(room: &str) -> Option<i64> {
    let digits = room.strip_prefix('-').unwrap_or(room);
    let plain = digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = !digits.is_empty() && (!digits.starts_with('0') || room == "0");
    (plain && canonical).then(|| room.parse().ok()).flatten()
}

/// The most digits of integers that JavaScript surely holds exactly.
const DIGITS_MAX: usize = 15;

impl<'de: 'a, 'a> Deserialize<'de> for Room<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RoomVisitor;
        impl<'de> Visitor<'de> for RoomVisitor {
            type Value = Room<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a room")
            }
            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Room(Cow::Borrowed(name)))
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Room(Cow::Owned(name.to_owned())))
            }
            fn visit_u64<E: Error>(self, name: u64) -> Result<Self::Value, E> {
                Ok(Room(Cow::Owned(name.to_string())))
            }
            fn visit_i64<E: Error>(self, name: i64) -> Result<Self::Value, E> {
                Ok(Room(Cow::Owned(name.to_string())))
            }
            fn visit_f64<E: Error>(self, name: f64) -> Result<Self::Value, E> {
                Ok(Room(Cow::Owned(name.to_string())))
            }
        }
        deserializer.deserialize_any(RoomVisitor)
    }
}

/// Reads the names of not too many rooms from JSON.
pub(super) fn json_rooms<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Room<'a>>, D::Error> {
    struct RoomsVisitor;
    impl<'de> Visitor<'de> for RoomsVisitor {
        type Value = Vec<Room<'de>>;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("names of rooms")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut rooms = Vec::new();
            while let Some(room) = seq.next_element()? {
                if rooms.len() >= TARGETS_MAX {
                    return Err(A::Error::custom("too many rooms"));
                }
                rooms.push(room);
            }
            Ok(rooms)
        }
    }
    deserializer.deserialize_seq(RoomsVisitor)
}

/// Names of rooms for other nodes. A room whose name looks like a number is named as text and as a number, because
/// Node.js servers tell them apart.
#[derive(Debug)]
pub(super) struct Names<'r, 'a>(pub(super) &'r [Room<'a>]);

impl Names<'_, '_> {
    pub(super) fn len(&self) -> usize {
        self.0.len() + self.0.iter().filter(|Room(name)| number(name).is_some()).count()
    }
}

impl Serialize for Names<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_seq(Some(self.len()))?;
        for Room(name) in self.0 {
            names.serialize_element(name)?;
            if let Some(number) = number(name) {
                names.serialize_element(&number)?;
            }
        }
        names.end()
    }
}

/// Returns the names of rooms. A room that was named as text and as a number is one room.
pub(super) fn names<'r>(rooms: &'r [Room<'_>]) -> Vec<&'r str> {
    let mut names: Vec<&str> = Vec::with_capacity(rooms.len());
    for Room(name) in rooms {
        let again = number(name).is_some() && names.last() == Some(&&**name);
        names.extend((!again).then_some(&**name));
    }
    names
}

/// The maximum number of rooms that an event goes to, and of those that it does not go to.
pub(super) const TARGETS_MAX: usize = 65_536;
