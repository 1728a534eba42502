//! The connections of a server, by number, and what goes to all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::connection::{Message, RawConnection, RawSender};
use crate::client::error::ClientError;

/// The connections that are there. Cloning it is cheap, and all clones are the same registry.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<RwLock<Registered>>);

#[derive(Debug, Default)]
struct Registered {
    next: u64,
    senders: BTreeMap<u64, RawSender>,
}

/// What became of a message for many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// How many connections will send it.
    pub accepted: usize,
    /// The numbers of those for which so much waits already that they do not get it.
    pub too_slow: Vec<u64>,
}

impl Registry {
    /// Creates a registry without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connection, and returns its number.
    pub fn add(&self, connection: &RawConnection) -> u64 {
        let mut registered = self.0.write();
        registered.next += 1;
        let number = registered.next;
        registered.senders.insert(number, connection.sender());
        number
    }

    /// Removes a connection. Returns whether it was there.
    pub fn remove(&self, number: u64) -> bool {
        self.0.write().senders.remove(&number).is_some()
    }

    /// Returns the handle of a connection.
    pub fn get(&self, number: u64) -> Option<RawSender> {
        self.0.read().senders.get(&number).cloned()
    }

    /// Returns how many connections are there.
    pub fn len(&self) -> usize {
        self.0.read().senders.len()
    }

    /// Whether no connection is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends a message to all connections but one. It waits for nobody: a connection for which 64 messages wait is left
    /// out, and one that is gone is removed. A message that cannot be sent, such as a ping of more than 125 bytes, reaches
    /// nobody. All connections share its bytes.
    pub fn broadcast_except(&self, message: &Message, except: Option<u64>) -> Sent {
        let (mut sent, mut gone) = (Sent::default(), Vec::new());
        let Ok(frame) = message.clone().into_frame() else { return sent };
        for (number, sender) in &self.0.read().senders {
            if Some(*number) == except {
                continue;
            }
            match sender.try_send_frame(frame.clone()) {
                Ok(()) => sent.accepted += 1,
                Err(ClientError::Full) => sent.too_slow.push(*number),
                Err(_) => gone.push(*number),
            }
        }
        for number in gone {
            self.remove(number);
        }
        sent
    }
}
