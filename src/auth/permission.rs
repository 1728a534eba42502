//! The permissions in the core's contract, and the rules that apply them to an answer of the core
//! (docs/rpc.md). Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{ImksError, ImksResult, Precondition};
use crate::pb::{Effective, v1};

/// A permission of a user in a channel. The discriminant is the bit position in the core's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Permission {
    /// See the channel and receive its events.
    ViewChannel = 0,
    /// Send messages and typing indicators.
    SendMessages = 1,
    /// Read earlier messages.
    ReadHistory = 2,
    /// React to messages.
    AddReactions = 3,
    /// Send files.
    AttachFiles = 4,
    /// Send links that are displayed with a preview.
    EmbedLinks = 5,
    /// Start polls.
    CreatePoll = 6,
    /// Reply in threads.
    SendInThreads = 7,
    /// Mention everyone who has a role.
    MentionRoles = 8,
    /// Mention everyone in the channel.
    MentionEveryone = 9,
    /// Pin messages. Sensitive.
    PinMessages = 10,
    /// Change messages of other users. Sensitive.
    ManageMessages = 11,
    /// Write in a read-only channel. Sensitive.
    ManageChannel = 12,
}

impl Permission {
    /// All permissions, in the order of their bits.
    #[cfg(feature = "testing")]
    pub const ALL: [Self; 13] = [
        Self::ViewChannel,
        Self::SendMessages,
        Self::ReadHistory,
        Self::AddReactions,
        Self::AttachFiles,
        Self::EmbedLinks,
        Self::CreatePoll,
        Self::SendInThreads,
        Self::MentionRoles,
        Self::MentionEveryone,
        Self::PinMessages,
        Self::ManageMessages,
        Self::ManageChannel,
    ];

    /// Returns the name on the wire, as in `details.permission` of the error `forbidden`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ViewChannel => "VIEW_CHANNEL",
            Self::SendMessages => "SEND_MESSAGES",
            Self::ReadHistory => "READ_HISTORY",
            Self::AddReactions => "ADD_REACTIONS",
            Self::AttachFiles => "ATTACH_FILES",
            Self::EmbedLinks => "EMBED_LINKS",
            Self::CreatePoll => "CREATE_POLL",
            Self::SendInThreads => "SEND_IN_THREADS",
            Self::MentionRoles => "MENTION_ROLES",
            Self::MentionEveryone => "MENTION_EVERYONE",
            Self::PinMessages => "PIN_MESSAGES",
            Self::ManageMessages => "MANAGE_MESSAGES",
            Self::ManageChannel => "MANAGE_CHANNEL",
        }
    }

    /// Returns the bit of this permission in a set of permissions.
    pub fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Whether every check asks the core, and fails if the core does not answer.
    pub fn is_sensitive(self) -> bool {
        matches!(self, Self::PinMessages | Self::ManageMessages | Self::ManageChannel)
    }

    /// Whether a stale answer may be used while the core does not answer. This covers ordinary reading and
    /// writing.
    pub(super) fn survives_outage(self) -> bool {
        matches!(
            self,
            Self::ViewChannel
                | Self::SendMessages
                | Self::ReadHistory
                | Self::AddReactions
                | Self::SendInThreads
        )
    }

    /// Whether the permission is to change the channel, which an archived channel does not allow.
    fn writes(self) -> bool {
        !matches!(self, Self::ViewChannel | Self::ReadHistory)
    }

    pub(super) fn on_wire(self) -> v1::Permission {
        v1::Permission::try_from(i32::from(self as u8) + 1).unwrap_or_default()
    }
}

/// A granted permission and its conditions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grant {
    /// The minimum time between two messages of this user in the channel; zero means no minimum.
    pub slow_mode: Duration,
    /// Whether the channel is archived, so that nothing in it changes. Permissions to change it are not granted then.
    pub archived: bool,
}

/// The core's answer about one user in one channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct CachedGrant {
    bits: u64,
    archived: bool,
    read_only: bool,
    slow_mode: Duration,
    pub(super) asked_at: Instant,
    pub(super) fresh_until: Instant,
    /// The time until which the core is not asked again, because it did not answer the last request.
    pub(super) outage_until: Option<Instant>,
}

impl CachedGrant {
    /// Creates a grant from an answer that was requested at `asked_at` and is fresh for `ttl` from then on.
    pub(super) fn new(effective: &Effective, asked_at: Instant, ttl: Duration) -> Self {
        Self {
            bits: effective.bits,
            archived: effective.archived,
            read_only: effective.read_only,
            slow_mode: Duration::from_secs(effective.slow_mode_s.into()).min(SLOW_MODE_MAX),
            asked_at,
            fresh_until: asked_at + ttl,
            outage_until: None,
        }
    }

    pub(super) fn allows(&self, permission: Permission) -> ImksResult<Grant> {
        let has = |permission: Permission| self.bits & permission.bit() != 0;
        if !has(Permission::ViewChannel) {
            return Err(ImksError::NotFound("channel"));
        }
        if self.archived && permission.writes() {
            return Err(ImksError::FailedPrecondition(Precondition::ChannelArchived));
        }
        if self.read_only && permission.writes() && !has(Permission::ManageChannel) {
            return Err(ImksError::FailedPrecondition(Precondition::ChannelReadOnly));
        }
        if !has(permission) {
            return Err(ImksError::Forbidden(permission.name()));
        }
        let exempt = has(Permission::ManageMessages) || has(Permission::ManageChannel);
        let slow_mode = if exempt { Duration::ZERO } else { self.slow_mode };
        Ok(Grant { slow_mode, archived: self.archived })
    }
}

/// The longest slow mode; longer ones are reduced to it.
const SLOW_MODE_MAX: Duration = Duration::from_secs(21_600);
