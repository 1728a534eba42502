//! The core's answers as imks uses them: a value that exists was checked (`parse.rs`).

use std::sync::Arc;

use uuid::Uuid;

use crate::clock::Micros;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    /// Id of the user.
    pub id: Uuid,
    /// Name shown to others.
    pub username: Arc<str>,
    /// Where the picture is; empty when there is none.
    pub avatar: String,
    /// Whether a program acts here.
    pub bot: bool,
    /// Whether the account is closed.
    pub deleted: bool,
}

/// What kind of conversation a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Anybody may be added, and everybody knows of it.
    Public,
    /// Known to its members only.
    Private,
    /// Two people.
    Dm,
    /// A few people without a name for it.
    GroupDm,
    /// Few write, many read.
    Announcement,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Id of the channel.
    pub id: Uuid,
    /// Workspace, where the core has such a thing.
    pub workspace_id: Option<Uuid>,
    /// What kind of conversation it is.
    pub kind: ChannelKind,
    /// Name shown to members.
    pub name: String,
    /// Nothing changes any more.
    pub archived: bool,
    /// Only those with `MANAGE_CHANNEL` write.
    pub read_only: bool,
    /// Seconds between two messages of one user; 0 is no limit.
    pub slow_mode_s: u32,
    /// Days that messages are kept; `None` is for ever.
    pub retention_days: Option<u32>,
    /// Rises with every change.
    pub version: i64,
}

/// What a member wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyLevel {
    /// Every message.
    All,
    /// Mentions.
    Mentions,
    /// Nothing.
    None,
}

/// One user in one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Id of the channel.
    pub channel_id: Uuid,
    /// Id of the user.
    pub user_id: Uuid,
    /// Name of the channel.
    pub name: String,
    /// Since when.
    pub joined_at: Micros,
    /// Last message of the channel at that time, where the core knows it.
    pub joined_seq: Option<i64>,
    /// What the member wants to hear of.
    pub notify_level: NotifyLevel,
    /// Until when the channel is silent for this member.
    pub muted_until: Option<Micros>,
    /// Roles of the member in this channel.
    pub role_ids: Vec<Uuid>,
}

impl Membership {
    /// Whether the channel is silent for this member at `now`.
    pub fn is_muted(&self, now: Micros) -> bool {
        self.muted_until.is_some_and(|until| until > now)
    }
}

/// What a user may do in a channel, as the core says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// Id of the channel.
    pub channel_id: Uuid,
    /// Bit set over `v1::Permission`; 0 for who is no member.
    pub bits: u64,
    /// How long the core wants this to be used, in milliseconds; 0 leaves it to the cache.
    pub expires_in_ms: u32,
    /// State of the channel: nothing changes any more.
    pub archived: bool,
    /// State of the channel: only those with `MANAGE_CHANNEL` write.
    pub read_only: bool,
    /// State of the channel: seconds between two messages of one user; 0 for none.
    pub slow_mode_s: u32,
}

/// The core's answer to a question about one permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// The user has the permission.
    Yes,
    /// The user sees the channel, and lacks the permission.
    No,
    /// The user may not even know of the channel.
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
    /// Who signs with it.
    pub issuer: String,
    /// Its name in the header of a token.
    pub kid: String,
    /// The one algorithm it is used with, whatever a token says.
    pub algorithm: SigningAlgorithm,
    /// Ed25519: 32 bytes; P-256: 65 bytes.
    pub public_key: Vec<u8>,
    /// Not accepted before.
    pub not_before: Micros,
    /// Not accepted from then on.
    pub not_after: Option<Micros>,
    /// To be dropped at once.
    pub revoked: bool,
}

/// The set of keys at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeys {
    /// Usable keys; those that do not parse are left out.
    pub keys: Vec<SigningKey>,
    /// To be sent with the next question.
    pub etag: String,
}

/// The core's verdict on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Good.
    Valid {
        /// The user of the token.
        user: UserInfo,
        /// Session it belongs to.
        session_id: Option<Uuid>,
        /// When it was issued.
        issued_at: Micros,
        /// End of the token.
        expires_at: Micros,
    },
    /// Not a token of ours.
    Invalid,
    /// Good once.
    Expired,
    /// Withdrawn.
    Revoked,
}

/// Tokens issued at or before `revoked_at` are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// The user whose tokens are withdrawn.
    pub user_id: Option<Uuid>,
    /// The session whose tokens are withdrawn.
    pub session_id: Option<Uuid>,
    /// When it was withdrawn.
    pub revoked_at: Micros,
}
