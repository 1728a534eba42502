//! The caller's own data (drafts, bookmarks), which needs no permission in a channel.

use std::fmt;

use uuid::Uuid;

use super::parts::Messaging;
use crate::models::Db;

/// Access to what belongs to the caller alone. [`Ctx::own`](super::ctx::Ctx::own) issues it.
pub(super) struct Own {
    messaging: Messaging,
    user: Uuid,
}

impl Own {
    /// Creates the access. Only for [`Ctx`](super::ctx::Ctx), which knows the caller.
    pub(super) fn new(messaging: &Messaging, user: Uuid) -> Self {
        Self { messaging: messaging.clone(), user }
    }

    /// Returns the caller, whose rows queries have to select.
    pub(super) fn user(&self) -> Uuid {
        self.user
    }

    /// Returns the database, for queries about the caller's own rows.
    pub(super) fn db(&self) -> &Db {
        self.messaging.db()
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Own").field("user", &self.user).finish_non_exhaustive()
    }
}
