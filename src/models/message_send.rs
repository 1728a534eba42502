//! The sending of a message: the checks under the channel's lock, and the event for its members.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::append::records::Write;
use super::append::{LockedChannel, Mutation, References};
use super::channel_key::Expect;
use super::message::{
    ContentType, FLAG_ALSO_IN_CHANNEL, FLAG_AUTOMATED, Forward, MessageDetail, MessageType, ReplyPreview,
    is_counted,
};
use super::message_attachment::Attachment;
use super::message_author::LastSend;
use super::message_embed::Embeds;
use super::message_mention::{MentionRows, Mentioned, OwnRow, written};
use super::message_poll::{NewPoll, Poll};
use super::message_row::Message;
use super::text::{Mentions, MessageBody, Metadata, Nonce};
use super::{message_attachment, message_poll_vote, message_thread};
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// A message to send.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The text.
    pub body: MessageBody,
    /// The `type` on the wire.
    pub kind: MessageType,
    /// How clients render the body.
    pub content_type: ContentType,
    /// The root of the thread; must be a message of the same channel that is not itself a thread reply.
    pub thread_id: Option<Uuid>,
    /// Whether a thread reply also appears in the channel, and counts as unread there.
    pub also_send_to_channel: bool,
    /// The message that this one quotes; must be in the same channel.
    pub reply_to_message_id: Option<Uuid>,
    /// A copy of the message that this one forwards.
    pub forward_of: Option<Box<Forward>>,
    /// The users and roles that are mentioned.
    pub mentions: Mentions,
    /// The people behind the roles and `here`.
    pub mentioned: Mentioned,
    /// The `FLAG_*` of [`super::message`].
    pub flags: i32,
    /// When the message deletes itself.
    pub expires_at: Option<Micros>,
    /// The poll that starts with the message.
    pub poll: Option<NewPoll>,
    /// What programs read beside the body.
    pub metadata: Option<Metadata>,
    /// The files that the message has.
    pub attachments: Vec<Uuid>,
    /// The cards that the message shows.
    pub embeds: Embeds,
    /// The client's own id of this send. Repeated within 24 hours by the same author in the same channel, it
    /// returns the first message.
    pub nonce: Option<Nonce>,
    /// What must be so when the message is stored.
    pub expect: Option<Expect>,
    /// Whether a person sent it, and has thereby read the channel. False for scheduled messages, webhooks and
    /// bots.
    pub interactive: bool,
}

/// A message that is stored, by this send or by an earlier one with the same nonce.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The message as everybody sees it.
    pub message: Arc<MessageDetail>,
    /// Whether an earlier send stored it.
    pub duplicate: bool,
}

impl Mutation for NewMessage {
    type Done = Sent;

    fn refers(&self, references: &mut References<'_>) {
        for id in self.thread_id.into_iter().chain(self.reply_to_message_id) {
            references.message(id);
        }
        message_attachment::refer(references, &self.attachments);
        let scope = references.scope();
        let (author, slow) = ((scope.actor.id, scope.channel_id), !scope.slow_mode.is_zero());
        if let Some(nonce) = &self.nonce {
            // Slow mode, a condition or used attachments would refuse a repeat before the unique index could detect it.
            let refuses = slow || self.expect.is_some() || !self.attachments.is_empty();
            references.nonce(nonce, refuses);
        }
        if let Some(expect) = &self.expect {
            expect.refers(references);
        }
        if slow {
            references.rows::<LastSend>(author);
        }
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Sent> {
        let content_hash = self.content_hash();
        if let Some(nonce) = &self.nonce
            && let Some(message) = channel.sent_before(nonce, content_hash)?
        {
            return Ok(Sent { message, duplicate: true });
        }
        if let Some(expect) = &self.expect {
            expect.check(channel)?;
        }
        self.check_thread(channel)?;
        let reply_to = self.quoted(channel)?;
        self.check_slow_mode(channel)?;
        let attachments = message_attachment::usable(channel, &self.attachments)?;
        let message = channel.append(self.row(channel, &attachments), content_hash, reply_to)?;
        message_attachment::attach(channel, message.id, &attachments);
        self.advance_author(channel, &message)?;
        self.mention(channel, &message);
        if let Some(expect) = &self.expect {
            expect.apply(channel);
        }
        if let Some(poll) = &self.poll {
            message_poll_vote::start(channel, &message, poll);
        }
        channel.tell("message:new", Arc::clone(&message) as _)?;
        message_thread::replied(channel, &message)?;
        Ok(Sent { message, duplicate: false })
    }
}

impl NewMessage {
    fn check_thread(&self, channel: &LockedChannel<'_>) -> ImksResult<()> {
        let Some(thread) = self.thread_id else { return Ok(()) };
        let root = channel.message(thread).ok().filter(|root| root.thread_id.is_none());
        match root.ok_or(ImksError::NotFound("thread"))?.deleted_at {
            Some(_) => Err(ImksError::MessageDeleted),
            None => Ok(()),
        }
    }

    fn quoted(&self, channel: &LockedChannel<'_>) -> ImksResult<Option<Box<ReplyPreview>>> {
        let Some(target) = self.reply_to_message_id else { return Ok(None) };
        Ok(Some(Box::new(channel.message(target)?.into())))
    }

    /// Checks whether the author may send again in slow mode.
    fn check_slow_mode(&self, channel: &mut LockedChannel<'_>) -> ImksResult<()> {
        let slow_mode = channel.scope().slow_mode;
        if slow_mode.is_zero() {
            return Ok(());
        }
        let (key, now) = ((channel.scope().actor.id, channel.scope().channel_id), channel.now());
        let in_batch = match channel.write_of::<LastSend>(&key) {
            Some(Write::Stored(last)) => Some(last.at),
            Some(Write::Removed) | None => None,
        };
        let stored = channel.rows::<LastSend>(&key)?;
        let Some(last) = in_batch.or(stored.first().map(|last| last.at)) else { return Ok(()) };
        let passed = Duration::from_micros(u64::try_from(now - last).unwrap_or_default());
        match slow_mode.saturating_sub(passed) {
            Duration::ZERO => Ok(()),
            retry_after => Err(ImksError::SlowMode { retry_after }),
        }
    }

    /// Creates the row without the fields that only the channel can fill in.
    fn row(&self, channel: &LockedChannel<'_>, attachments: &[Attachment]) -> Message {
        let author = &channel.scope().actor;
        Message {
            author_id: author.id,
            author_username: author.username.as_ref().into(),
            kind: self.kind as i32,
            content_type: self.content_type as i32,
            body: self.body.as_str().into(),
            thread_id: self.thread_id,
            reply_to_message_id: self.reply_to_message_id,
            mentions: self.mentions.stored(),
            forward_of: self.forward_of.as_deref().map(Forward::stored),
            flags: self.stored_flags(),
            expires_at: self.expires_at,
            poll: self.poll.as_ref().map(|poll| Poll::new(poll, channel.now()).stored()),
            attachment_count: i32::try_from(attachments.len()).unwrap_or(i32::MAX),
            attachments: message_attachment::stored(attachments),
            embeds: self.embeds.stored(),
            nonce: self.nonce.as_ref().map(|nonce| nonce.as_str().into()),
            metadata: self.metadata.as_ref().map(|metadata| metadata.as_str().into()),
            version: 1,
            ..Message::default()
        }
    }

    /// Records that the author has read the channel up to this message, if a person sent it.
    fn advance_author(&self, channel: &mut LockedChannel<'_>, message: &MessageDetail) -> ImksResult<()> {
        if self.interactive {
            channel.insert(LastSend {
                author_id: message.author.id,
                channel_id: message.channel_id,
                seq: message.seq,
                cseq: channel.counted()?,
                at: message.created_at.0,
            });
        }
        Ok(())
    }

    fn mention(&self, channel: &mut LockedChannel<'_>, message: &MessageDetail) {
        let at = channel.now();
        let rows = |targets| MentionRows {
            message_id: message.id,
            author_id: message.author.id,
            channel_id: message.channel_id,
            seq: message.seq,
            thread_id: message.thread_id,
            at,
            targets,
        };
        let people = self.mentioned.people(&self.mentions, message.channel_id, message.author.id);
        if !people.is_empty() {
            channel.insert(rows(people));
        }
        if !self.interactive && is_counted(message.thread_id, message.flags) {
            channel.insert(OwnRow(rows(Vec::new())));
        }
    }

    /// Returns the sender's flags together with those that only the server sets.
    fn stored_flags(&self) -> i32 {
        let also_in_channel = self.thread_id.is_some() && self.also_send_to_channel;
        self.flags & !(FLAG_ALSO_IN_CHANNEL | FLAG_AUTOMATED)
            | if also_in_channel { FLAG_ALSO_IN_CHANNEL } else { 0 }
            | if self.interactive { 0 } else { FLAG_AUTOMATED }
    }

    /// Returns a hash that tells whether two sends with one nonce have the same content. It is FNV-1a,
    /// because it must not change between versions of the standard library.
    fn content_hash(&self) -> i64 {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut add = |bytes: &[u8]| {
            for byte in bytes.iter().chain(&[0xff]) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        add(self.body.as_str().as_bytes());
        add(&(self.kind as i32).to_be_bytes());
        add(&(self.content_type as i32).to_be_bytes());
        add(&self.stored_flags().to_be_bytes());
        add(self.thread_id.unwrap_or_default().as_bytes());
        add(self.reply_to_message_id.unwrap_or_default().as_bytes());
        self.expires_at.iter().for_each(|at| add(&at.to_be_bytes()));
        self.forward_of.iter().for_each(|forward| add(forward.id.as_bytes()));
        for (kind, target) in written(&self.mentions) {
            add(&kind.to_be_bytes());
            add(target.as_bytes());
        }
        self.poll.iter().flat_map(NewPoll::content).for_each(|part| add(&part));
        self.metadata.iter().for_each(|metadata| add(metadata.as_str().as_bytes()));
        self.attachments.iter().for_each(|id| add(id.as_bytes()));
        self.embeds.stored().iter().for_each(|embeds| add(embeds.as_bytes()));
        hash.cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(flags: i32) -> NewMessage {
        NewMessage {
            body: MessageBody::new("hello").unwrap(),
            kind: MessageType::Default,
            content_type: ContentType::Markdown,
            thread_id: None,
            also_send_to_channel: false,
            reply_to_message_id: None,
            forward_of: None,
            mentions: Mentions::default(),
            mentioned: Mentioned::default(),
            flags,
            expires_at: None,
            poll: None,
            metadata: None,
            attachments: Vec::new(),
            embeds: Embeds::default(),
            nonce: None,
            expect: None,
            interactive: true,
        }
    }

    #[test]
    fn flags_of_the_server_cannot_be_sent_and_come_from_what_was_sent() {
        assert_eq!(send(1 | FLAG_ALSO_IN_CHANNEL | FLAG_AUTOMATED).stored_flags(), 1);
        let reply = NewMessage { thread_id: Some(Uuid::nil()), also_send_to_channel: true, ..send(0) };
        assert_eq!(reply.stored_flags(), FLAG_ALSO_IN_CHANNEL);
        assert_eq!(NewMessage { interactive: false, ..send(0) }.stored_flags(), FLAG_AUTOMATED);
    }

    #[test]
    fn the_stored_hash_of_a_content_never_changes_and_differs_for_another_content() {
        let hash = send(0).content_hash();
        assert_eq!(hash, send(0).content_hash());
        for other in [
            send(1),
            NewMessage { body: MessageBody::new("hello!").unwrap(), ..send(0) },
            NewMessage { reply_to_message_id: Some(Uuid::from_u128(1)), ..send(0) },
            NewMessage { mentions: Mentions { here: true, ..Mentions::default() }, ..send(0) },
            NewMessage { metadata: Some(Metadata::new("{}").unwrap()), ..send(0) },
        ] {
            assert_ne!(other.content_hash(), hash, "{other:?}");
        }
    }
}
