//! The names of rooms that calls take: one name, or several as an array, a slice or a vector.

use std::borrow::Cow;
use std::sync::Arc;

/// The name of a room: any kind of text.
pub trait RoomName {
    /// Returns the name.
    fn name(&self) -> &str;
}

/// The names of one room or of several, for calls such as [`Broadcast::to`](crate::socket::Broadcast::to).
///
/// ```
/// # fn run(socket: &imks::socket::Socket, rooms: Vec<String>) -> imks::ImksResult<()> {
/// socket.join(["lobby", "news"]);
/// socket.to("lobby").emit("said", "to one room")?;
/// socket.to(["lobby", "news"]).except(&rooms).emit("said", "to two, but not to those")
/// # }
/// ```
pub trait RoomNames<'a> {
    /// Calls `visit` for each name.
    fn for_each(self, visit: impl FnMut(&'a str));
}

macro_rules! room_name {
    ($($text:ty),*) => {
        $(impl RoomName for $text {
            fn name(&self) -> &str {
                self
            }
        })*
    };
}

room_name!(str, String, Arc<str>, Box<str>, Cow<'_, str>);

impl<T: RoomName + ?Sized> RoomName for &T {
    fn name(&self) -> &str {
        (**self).name()
    }
}

impl<'a, T: RoomName + ?Sized> RoomNames<'a> for &'a T {
    fn for_each(self, mut visit: impl FnMut(&'a str)) {
        visit(self.name());
    }
}

impl<'a, T: RoomName> RoomNames<'a> for &'a [T] {
    fn for_each(self, visit: impl FnMut(&'a str)) {
        self.iter().map(RoomName::name).for_each(visit);
    }
}

impl<'a, T: RoomName> RoomNames<'a> for &'a Vec<T> {
    fn for_each(self, visit: impl FnMut(&'a str)) {
        self.as_slice().for_each(visit);
    }
}

impl<'a, T: RoomName, const N: usize> RoomNames<'a> for &'a [T; N] {
    fn for_each(self, visit: impl FnMut(&'a str)) {
        self.as_slice().for_each(visit);
    }
}

impl<'a, T: RoomName + ?Sized, const N: usize> RoomNames<'a> for [&'a T; N] {
    fn for_each(self, visit: impl FnMut(&'a str)) {
        self.into_iter().map(RoomName::name).for_each(visit);
    }
}

impl<'a, T: RoomName + ?Sized> RoomNames<'a> for Vec<&'a T> {
    fn for_each(self, visit: impl FnMut(&'a str)) {
        self.into_iter().map(RoomName::name).for_each(visit);
    }
}
