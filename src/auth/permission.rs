//! The permissions of the core's contract, and what an answer of the core allows (docs/rpc.md). Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{ImksError, ImksResult, Precondition};
use crate::pb::{Effective, v1};

/// What a user may do in a channel. The value is the bit position in the core's answer.
#[cfg_attr(
    not(feature = "testing"),
    expect(dead_code, reason = "the whole contract; features to come use the rest")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Permission {
    /// Know of the channel and get its events.
    ViewChannel = 0,
    /// Write messages, show that one is typing.
    SendMessages = 1,
    /// Read what was written before.
    ReadHistory = 2,
    /// React to messages.
    AddReactions = 3,
    /// Send files.
    AttachFiles = 4,
    /// Send links that are shown with a preview.
    EmbedLinks = 5,
    /// Start polls.
    CreatePoll = 6,
    /// Answer in threads.
    SendInThreads = 7,
    /// Call for everybody of a role.
    MentionRoles = 8,
    /// Call for the whole channel.
    MentionEveryone = 9,
    /// Pin messages. Sensitive.
    PinMessages = 10,
    /// Change what others wrote. Sensitive.
    ManageMessages = 11,
    /// Write in a read-only channel. Sensitive.
    ManageChannel = 12,
}

impl Permission {
    /// All of them, in the order of their bits.
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

    /// The name on the wire, as in `details.permission` of `forbidden`.
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

    /// The bit in a set of permissions.
    pub fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Whether the core is asked each time, and its silence is a refusal.
    pub fn is_sensitive(self) -> bool {
        matches!(self, Self::PinMessages | Self::ManageMessages | Self::ManageChannel)
    }

    /// Whether an old answer will do while the core is silent: reading and writing of members.
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

    /// Whether it changes the channel, which an archived one does not allow.
    fn writes(self) -> bool {
        !matches!(self, Self::ViewChannel | Self::ReadHistory)
    }

    pub(super) fn on_wire(self) -> v1::Permission {
        v1::Permission::try_from(i32::from(self as u8)).unwrap_or_default()
    }
}

/// A permission that was given, and what goes with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grant {
    /// Time between two messages of this user in the channel; zero for none.
    pub slow_mode: Duration,
}

/// An answer of the core.
#[derive(Debug, Clone, Copy)]
pub(super) struct CachedGrant {
    bits: u64,
    archived: bool,
    read_only: bool,
    slow_mode: Duration,
    pub(super) asked_at: Instant,
    pub(super) fresh_until: Instant,
    /// The core was silent when asked again; do not ask before this.
    pub(super) outage_until: Option<Instant>,
}

impl CachedGrant {
    /// Takes an answer that was asked for at `asked_at`, and is good for `ttl` from then.
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
        Ok(Grant { slow_mode: if exempt { Duration::ZERO } else { self.slow_mode } })
    }
}

/// Longest time between two messages of one user; more is taken as this.
const SLOW_MODE_MAX: Duration = Duration::from_secs(21_600);
