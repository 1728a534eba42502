//! Conversions from the generated messages to the types of [`super::types`]. A wrong answer is refused here,
//! before it reaches any other code.

use uuid::Uuid;

use super::types::{
    Allowed, ChannelInfo, ChannelKind, CustomEmoji, Effective, IncomingWebhook, Membership, Notification,
    NotifyLevel, Revocation, SigningAlgorithm, SigningKey, SigningKeys, UserInfo, Verdict,
};
use super::v1;
use crate::clock::Micros;
use crate::error::{ImksError, ImksResult};

pub(super) fn id(text: &str) -> ImksResult<Uuid> {
    // The parser also accepts other notations, which the contract excludes: an id has 36 characters.
    let parsed = if text.len() == 36 { Uuid::parse_str(text).ok() } else { None };
    parsed.ok_or_else(|| malformed("an id"))
}

pub(super) fn optional_id(text: &str) -> ImksResult<Option<Uuid>> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

/// Logs a malformed answer and returns the error for it. The caller treats it as an outage and decides
/// nothing from it.
pub(super) fn malformed(what: &'static str) -> ImksError {
    tracing::warn!(what, "the core's answer does not keep the contract");
    ImksError::Unavailable("core")
}

fn some_micros(value: i64) -> Option<Micros> {
    (value > 0).then_some(value)
}

impl TryFrom<v1::User> for UserInfo {
    type Error = ImksError;
    fn try_from(user: v1::User) -> ImksResult<Self> {
        Ok(Self {
            id: id(&user.id)?,
            username: user.username.into(),
            avatar: user.avatar,
            bot: user.bot,
            deleted: user.deleted,
        })
    }
}

impl TryFrom<v1::Channel> for ChannelInfo {
    type Error = ImksError;
    fn try_from(channel: v1::Channel) -> ImksResult<Self> {
        use v1::channel::Kind;
        let kind = match channel.kind() {
            Kind::Public => ChannelKind::Public,
            Kind::Private => ChannelKind::Private,
            Kind::Dm => ChannelKind::Dm,
            Kind::GroupDm => ChannelKind::GroupDm,
            Kind::Announcement => ChannelKind::Announcement,
            Kind::Unspecified => return Err(malformed("a channel kind")),
        };
        Ok(Self {
            id: id(&channel.id)?,
            workspace_id: optional_id(&channel.workspace_id)?,
            kind,
            name: channel.name,
            archived: channel.archived,
            read_only: channel.read_only,
            slow_mode_s: channel.slow_mode_s,
            retention_days: (channel.retention_days > 0).then_some(channel.retention_days),
            version: channel.version,
        })
    }
}

impl TryFrom<v1::Membership> for Membership {
    type Error = ImksError;
    fn try_from(member: v1::Membership) -> ImksResult<Self> {
        let notify_level = match member.notify_level() {
            v1::membership::NotifyLevel::None => NotifyLevel::None,
            v1::membership::NotifyLevel::Mentions => NotifyLevel::Mentions,
            _ => NotifyLevel::All,
        };
        Ok(Self {
            channel_id: id(&member.channel_id)?,
            user_id: id(&member.user_id)?,
            name: member.channel_name,
            joined_at: member.joined_at_us,
            joined_seq: member.joined_seq,
            notify_level,
            muted_until: some_micros(member.muted_until_us),
            role_ids: member.role_ids.iter().map(|role| id(role)).collect::<ImksResult<_>>()?,
            workspace_id: optional_id(&member.workspace_id)?,
        })
    }
}

impl TryFrom<v1::Effective> for Effective {
    type Error = ImksError;
    fn try_from(effective: v1::Effective) -> ImksResult<Self> {
        Ok(Self {
            channel_id: id(&effective.channel_id)?,
            bits: effective.bits,
            expires_in_ms: effective.expires_in_ms,
            archived: effective.archived,
            read_only: effective.read_only,
            slow_mode_s: effective.slow_mode_s,
        })
    }
}

impl From<v1::CheckResponse> for Allowed {
    fn from(answer: v1::CheckResponse) -> Self {
        match (answer.allowed, answer.visible) {
            (true, _) => Self::Yes,
            (false, true) => Self::No,
            (false, false) => Self::Hidden,
        }
    }
}

impl TryFrom<v1::SigningKey> for SigningKey {
    type Error = ImksError;
    fn try_from(key: v1::SigningKey) -> ImksResult<Self> {
        use v1::signing_key::{Algorithm, Status};
        let algorithm = match key.algorithm() {
            Algorithm::Eddsa if key.public_key.len() == 32 => SigningAlgorithm::EdDsa,
            Algorithm::Es256 if key.public_key.len() == 65 && key.public_key[0] == 4 => {
                SigningAlgorithm::Es256
            }
            _ => return Err(malformed("a signing key")),
        };
        if key.kid.is_empty() || key.kid.len() > KID_BYTES_MAX || key.issuer.is_empty() {
            return Err(malformed("a signing key's name"));
        }
        Ok(Self {
            revoked: key.status() == Status::Revoked,
            algorithm,
            issuer: key.issuer,
            kid: key.kid,
            public_key: key.public_key,
            not_before: key.not_before_us,
            not_after: some_micros(key.not_after_us),
        })
    }
}

impl From<v1::GetSigningKeysResponse> for SigningKeys {
    fn from(answer: v1::GetSigningKeysResponse) -> Self {
        let keys = answer.keys.into_iter().take(KEYS_MAX).filter_map(|key| key.try_into().ok()).collect();
        Self { keys, etag: answer.etag }
    }
}

impl TryFrom<v1::VerifyTokenResponse> for Verdict {
    type Error = ImksError;
    fn try_from(answer: v1::VerifyTokenResponse) -> ImksResult<Self> {
        use v1::verify_token_response::Reason;
        if !answer.valid {
            return Ok(match answer.reason() {
                Reason::Expired => Self::Expired,
                Reason::Revoked => Self::Revoked,
                _ => Self::Invalid,
            });
        }
        let user = UserInfo {
            id: id(&answer.user_id)?,
            username: answer.username.into(),
            avatar: String::new(),
            bot: false,
            deleted: false,
        };
        let session_id = optional_id(&answer.session_id)?;
        Ok(Self::Valid { user, session_id, issued_at: answer.issued_at_us, expires_at: answer.expires_at_us })
    }
}

impl TryFrom<v1::Revocation> for Revocation {
    type Error = ImksError;
    fn try_from(revocation: v1::Revocation) -> ImksResult<Self> {
        Ok(Self {
            user_id: optional_id(&revocation.user_id)?,
            session_id: optional_id(&revocation.session_id)?,
            revoked_at: revocation.revoked_at_us,
        })
    }
}

impl TryFrom<v1::Webhook> for IncomingWebhook {
    type Error = ImksError;
    fn try_from(webhook: v1::Webhook) -> ImksResult<Self> {
        let name = webhook.name;
        if name.trim().is_empty()
            || name.chars().count() > NAME_CHARS_MAX
            || name.chars().any(char::is_control)
        {
            return Err(malformed("the name of a webhook"));
        }
        let avatar = if is_picture(&webhook.avatar) { webhook.avatar } else { String::new() };
        let (id, channel_id) = (id(&webhook.id)?, id(&webhook.channel_id)?);
        Ok(Self { id, channel_id, name, avatar, enabled: webhook.enabled })
    }
}

impl TryFrom<v1::Emoji> for CustomEmoji {
    type Error = ImksError;
    fn try_from(emoji: v1::Emoji) -> ImksResult<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
        let is_name = !emoji.name.is_empty() && emoji.name.len() <= EMOJI_BYTES_MAX;
        if !is_name || !emoji.name.bytes().all(allowed) || !is_picture(&emoji.image_url) {
            return Err(malformed("an emoji"));
        }
        let (id, workspace_id) = (id(&emoji.id)?, id(&emoji.workspace_id)?);
        Ok(Self { id, workspace_id, name: emoji.name, image_url: emoji.image_url })
    }
}

impl From<&Notification> for v1::Notification {
    fn from(it: &Notification) -> Self {
        Self {
            id: it.id.to_string(),
            user_id: it.user_id.to_string(),
            channel_id: it.channel_id.to_string(),
            message_id: it.message_id.to_string(),
            seq: it.seq,
            thread_id: it.thread_id.map(|thread| thread.to_string()).unwrap_or_default(),
            author_id: it.author_id.to_string(),
            author_username: it.author_username.clone().into(),
        }
    }
}

/// Whether a text is an address in the web that clients can show a picture from.
fn is_picture(url: &str) -> bool {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    is_web && url.len() <= URL_BYTES_MAX && !url.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// The longest name of a webhook, in characters.
const NAME_CHARS_MAX: usize = 64;
/// The longest name of a custom emoji without its colons, in bytes.
const EMOJI_BYTES_MAX: usize = 62;
/// The longest address of a picture, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// The longest key id.
pub(crate) const KID_BYTES_MAX: usize = 128;
/// The number of keys taken from one answer; the rest is ignored.
const KEYS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::pb::fuzzing::read_core_answer;

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read_core_answer(&bytes);
        }

        #[test]
        fn a_key_is_usable_or_refused(
            issuer in ".{0,8}", kid in ".{0,200}", algorithm in -1..5_i32, status in -1..5_i32,
            public_key in prop::collection::vec(any::<u8>(), 0..70), not_before_us: i64, not_after_us: i64,
        ) {
            let key = v1::SigningKey { issuer, kid, algorithm, public_key, not_before_us, not_after_us, status };
            let keys = vec![key.clone()];
            let listed = v1::GetSigningKeysResponse { keys, ..Default::default() }.encode_to_vec();
            prop_assert_eq!(read_core_answer(&listed).len(), usize::from(SigningKey::try_from(key.clone()).is_ok()));
            if let Ok(key) = SigningKey::try_from(key) {
                prop_assert!(!key.issuer.is_empty() && (1..=KID_BYTES_MAX).contains(&key.kid.len()));
                prop_assert!([32, 65].contains(&key.public_key.len()));
            }
        }

        #[test]
        fn an_answer_with_a_wrong_id_decides_nothing(text in "[0-9a-f-]{0,40}", valid: bool, bits: u64) {
            let is_id = Uuid::parse_str(&text).is_ok() && text.len() == 36;
            let verdict = v1::VerifyTokenResponse { valid, user_id: text.clone(), ..Default::default() };
            prop_assert_eq!(Verdict::try_from(verdict).is_ok(), is_id || !valid);
            let effective = v1::Effective { channel_id: text, bits, ..Default::default() };
            prop_assert_eq!(Effective::try_from(effective).is_ok(), is_id);
        }
    }
}
