//! The core's answers as types. Every value has been checked when it was created (`parse.rs`).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::clock::Micros;

/// A user of the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    /// The id of the user.
    pub id: Uuid,
    /// The name shown to others.
    pub username: Arc<str>,
    /// The address of the picture; empty if there is none.
    pub avatar: String,
    /// Whether the user is a program.
    pub bot: bool,
    /// Whether the account is closed.
    pub deleted: bool,
}

/// The kind of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Visible to everyone; anyone may be added.
    Public,
    /// Visible to its members only.
    Private,
    /// A direct conversation of two people.
    Dm,
    /// A conversation of a few people, without a name.
    GroupDm,
    /// A channel in which few write and many read.
    Announcement,
}

impl ChannelKind {
    /// Whether the channel is a conversation of a fixed set of people.
    pub fn is_direct(self) -> bool {
        matches!(self, Self::Dm | Self::GroupDm)
    }

    /// Returns the name on the wire to clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Dm => "dm",
            Self::GroupDm => "group_dm",
            Self::Announcement => "announcement",
        }
    }
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The id of the channel.
    pub id: Uuid,
    /// The workspace of the channel, if the core has workspaces.
    pub workspace_id: Option<Uuid>,
    /// The kind of the channel.
    pub kind: ChannelKind,
    /// The name shown to members.
    pub name: String,
    /// Whether the channel is archived, so that it can no longer change.
    pub archived: bool,
    /// Whether only users with `MANAGE_CHANNEL` may write.
    pub read_only: bool,
    /// The minimum number of seconds between two messages of one user; 0 means no minimum.
    pub slow_mode_s: u32,
    /// The number of days that messages are kept; `None` means without limit.
    pub retention_days: Option<u32>,
    /// The version of the channel, which increases with every change.
    pub version: i64,
}

/// The messages that a member is notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyLevel {
    /// Every message.
    All,
    /// Messages that mention the member.
    Mentions,
    /// No messages.
    None,
}

/// The membership of one user in one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The id of the channel.
    pub channel_id: Uuid,
    /// The id of the user.
    pub user_id: Uuid,
    /// The name of the channel.
    pub name: String,
    /// When the user joined.
    pub joined_at: Micros,
    /// The number of the channel's last message when the user joined, if the core knows it.
    pub joined_seq: Option<i64>,
    /// The messages that the member is notified of.
    pub notify_level: NotifyLevel,
    /// The time until which the channel is muted for this member.
    pub muted_until: Option<Micros>,
    /// The roles of the member in this channel.
    pub role_ids: Vec<Uuid>,
    /// The workspace of the channel, if the core has workspaces.
    pub workspace_id: Option<Uuid>,
}

impl NotifyLevel {
    /// Returns the name on the wire to clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Mentions => "mentions",
            Self::None => "none",
        }
    }
}

impl Membership {
    /// Whether the channel is muted for this member at `now`.
    pub fn is_muted(&self, now: Micros) -> bool {
        self.muted_until.is_some_and(|until| until > now)
    }
}

/// The permissions of a user in a channel, as reported by the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// The id of the channel.
    pub channel_id: Uuid,
    /// A bit set of `v1::Permission`; 0 for a user who is not a member.
    pub bits: u64,
    /// How long the core wants this answer to be used, in milliseconds; 0 leaves it to the cache.
    pub expires_in_ms: u32,
    /// Whether the channel is archived.
    pub archived: bool,
    /// Whether only users with `MANAGE_CHANNEL` may write in the channel.
    pub read_only: bool,
    /// The minimum number of seconds between two messages of one user in the channel; 0 means no minimum.
    pub slow_mode_s: u32,
}

/// The core's answer about one permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// The user has the permission.
    Yes,
    /// The user may see the channel, but lacks the permission.
    No,
    /// The user may not see the channel.
    Hidden,
}

/// The two signature algorithms that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA over P-256 with SHA-256.
    Es256,
}

/// A public key of the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// The issuer that signs with the key.
    pub issuer: String,
    /// The id of the key in the header of a token.
    pub kid: String,
    /// The only algorithm that the key is used with, whatever a token says.
    pub algorithm: SigningAlgorithm,
    /// The public key: 32 bytes for Ed25519, 65 bytes for P-256.
    pub public_key: Vec<u8>,
    /// The time before which the key is not accepted.
    pub not_before: Micros,
    /// The time from which on the key is no longer accepted.
    pub not_after: Option<Micros>,
    /// Whether the key is revoked and must be removed at once.
    pub revoked: bool,
}

/// The core's set of signing keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeys {
    /// The usable keys, without those that do not parse.
    pub keys: Vec<SigningKey>,
    /// The version of the set, to be sent with the next request.
    pub etag: String,
}

/// The core's verdict on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The token is valid.
    Valid {
        /// The user of the token.
        user: UserInfo,
        /// The session that the token belongs to.
        session_id: Option<Uuid>,
        /// When the token was issued.
        issued_at: Micros,
        /// When the token expires.
        expires_at: Micros,
    },
    /// The core does not accept the token.
    Invalid,
    /// The token has expired.
    Expired,
    /// The token was revoked.
    Revoked,
}

/// A revocation of the tokens of a user or session that were issued at or before `revoked_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// The user whose tokens are revoked.
    pub user_id: Option<Uuid>,
    /// The session whose tokens are revoked.
    pub session_id: Option<Uuid>,
    /// The time of the revocation.
    pub revoked_at: Micros,
}

/// An incoming webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingWebhook {
    /// The id, which is the author of its messages.
    pub id: Uuid,
    /// The channel that it posts into.
    pub channel_id: Uuid,
    /// The name of the author, where a message has no name of its own.
    pub name: String,
    /// The address of a picture; empty if there is none.
    pub avatar: String,
    /// Whether it takes anything at the moment.
    pub enabled: bool,
}

/// A custom emoji.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CustomEmoji {
    /// The id.
    pub id: Uuid,
    /// The workspace that it belongs to.
    pub workspace_id: Uuid,
    /// What stands between the colons.
    pub name: String,
    /// The address of the picture.
    pub image_url: String,
}

/// A message that mentions a user who is not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The id, which is made of the message and the user.
    pub id: Uuid,
    /// Who is mentioned.
    pub user_id: Uuid,
    /// The channel of the message.
    pub channel_id: Uuid,
    /// The message.
    pub message_id: Uuid,
    /// The number of the message in the channel.
    pub seq: i64,
    /// The thread of the message, if it is in one.
    pub thread_id: Option<Uuid>,
    /// Who wrote the message.
    pub author_id: Uuid,
    /// The name of who wrote it.
    pub author_username: Box<str>,
}

/// What the core does with notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It has taken them over.
    Taken,
    /// It has no service for them.
    Unwanted,
}
