//! The people of a conversation: what is theirs alone, and their devices.

use std::collections::BTreeMap;

use crate::client::TestClient;
use crate::replica::Replica;

/// A draft: its version and text; nothing where it was cleared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    pub version: i64,
    pub body: Option<String>,
    pub user_rev: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    pub removed: bool,
    pub note: Option<String>,
    pub user_rev: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    pub id: String,
    pub channel: usize,
    pub body: String,
    pub version: i64,
    pub cancelled: bool,
    pub user_rev: i64,
}

/// One user.
pub struct Person {
    pub name: String,
    pub id: String,
    pub token: String,
    /// The number of their last change.
    pub rev: i64,
    /// By channel and thread.
    pub drafts: BTreeMap<(usize, Option<usize>), Draft>,
    /// By channel and message.
    pub bookmarks: BTreeMap<(usize, usize), Bookmark>,
    pub scheduled: Vec<Scheduled>,
    pub devices: Vec<Device>,
}

/// A program that somebody uses, connected or not.
pub struct Device {
    pub client: Option<TestClient>,
    pub replica: Replica,
}

impl Person {
    pub fn next_rev(&mut self) -> i64 {
        self.rev += 1;
        self.rev
    }

    /// Clears a draft if there is one; whether there was.
    pub fn clear_draft(&mut self, place: (usize, Option<usize>), user_rev: i64) -> bool {
        let Some(draft) = self.drafts.get_mut(&place).filter(|draft| draft.body.is_some()) else {
            return false;
        };
        *draft = Draft { version: draft.version + 1, body: None, user_rev };
        true
    }
}
