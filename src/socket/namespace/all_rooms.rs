//! The rooms of a namespace on all nodes.

use std::collections::BTreeSet;

use super::namespace::Namespace;
use crate::error::ImksResult;
use crate::node::NodeId;

/// The result of [`Namespace::all_rooms`].
#[derive(Debug, Default)]
pub struct AllRooms {
    /// The names of the rooms, the own rooms of sockets among them.
    pub rooms: BTreeSet<String>,
    /// The nodes that did not answer in time.
    pub silent: Vec<NodeId>,
}

impl Namespace {
    /// Returns the rooms that have members on any node. Other nodes have
    /// [`Config::request_timeout`](crate::socket::Config::request_timeout) to answer. [`Namespace::room_names`] asks nobody.
    pub async fn all_rooms(&self) -> ImksResult<AllRooms> {
        self.delivery().settle().await;
        let (mut rooms, silent) = self.cluster().all_rooms(self.path())?.await;
        rooms.extend(self.room_names().iter().map(|room| room.to_string()));
        rooms.extend(self.sockets().iter().map(|socket| socket.id().to_owned()));
        Ok(AllRooms { rooms, silent })
    }
}
