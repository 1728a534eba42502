//! Where something applies: a channel, or a whole workspace. On the command line and in the HTTP API a place is
//! written `team` (a channel of the first workspace), `acme/team`, `acme/` (the workspace), or as an id.

use uuid::Uuid;

use super::user::unknown;
use super::workspace::MAIN;
use super::{Channel, Directory};
use crate::error::{ImksError, ImksResult};

/// The ids of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The workspace; `None` for a direct conversation.
    pub workspace: Option<Uuid>,
    /// The channel; `None` for a whole workspace.
    pub channel: Option<Uuid>,
}

impl Place {
    /// Returns the id of the channel, or else of the workspace.
    pub(super) fn id(&self) -> Uuid {
        self.channel.or(self.workspace).unwrap_or_default()
    }

    /// Returns the id of the workspace, or the nil id, which no workspace has.
    pub(super) fn workspace_id(&self) -> Uuid {
        self.workspace.unwrap_or_default()
    }
}

impl From<&Channel> for Place {
    fn from(channel: &Channel) -> Self {
        Self { workspace: channel.workspace_id, channel: Some(channel.id) }
    }
}

impl Directory {
    /// Returns the place with this name or id.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn place(&self, name: &str) -> ImksResult<Place> {
        if let Some(workspace) = name.strip_suffix('/') {
            return Ok(Place { workspace: Some(self.workspace(workspace).await?.id), channel: None });
        }
        if let Some(channel) = self.channel_named(name).await? {
            return Ok(Place::from(&channel));
        }
        match Uuid::parse_str(name) {
            Ok(_) => Ok(Place { workspace: Some(self.workspace(name).await?.id), channel: None }),
            Err(_) => Err(unknown("channel", name)),
        }
    }

    /// Returns the channel with this name or id.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn channel_by_name(&self, name: &str) -> ImksResult<Channel> {
        self.channel_named(name).await?.ok_or_else(|| unknown("channel", name))
    }

    /// Returns the id of the workspace in the name of a channel, and the rest of the name.
    pub(super) async fn split<'a>(&self, name: &'a str) -> ImksResult<(Uuid, &'a str)> {
        match name.split_once('/') {
            Some((workspace, name)) => Ok((self.workspace(workspace).await?.id, name)),
            None => Ok((MAIN, name)),
        }
    }
}

/// Returns the error for a place that has to be a channel.
pub(super) fn not_a_channel(name: &str) -> ImksError {
    ImksError::invalid("channel", format!("{name:?} is a workspace, and this needs a channel"))
}
