//! The sending of a message: the checks under the channel's lock, and the event for its members.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::append::records::Write;
use super::append::{LockedChannel, Mutation, References};
use super::channel_key::Expect;
use super::message::{
    ContentType, FLAG_ALSO_IN_CHANNEL, FLAG_AUTOMATED, Forward, MessageDetail, MessageType, Priority,
    ReplyPreview, is_counted,
};
use super::message_attachment::Attachment;
use super::message_author::{LastSend, Wrote};
use super::message_embed::Embeds;
use super::message_forward::Forwarded;
use super::message_mention::{MentionRows, Mentioned, OwnRow, written};
use super::message_poll::{NewPoll, Poll};
use super::message_row::Message;
use super::message_stream_state::StreamState;
use super::text::{Mentions, MessageBody, Metadata, Nonce};
use super::{message_attachment_use, message_poll_vote, message_stream, message_thread};
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
    /// The message that the sender asked to forward. It may itself forward the one that was copied.
    pub forwards: Option<Uuid>,
    /// The users and roles that are mentioned.
    pub mentions: Mentions,
    /// The people behind the roles and `here`.
    pub mentioned: Mentioned,
    /// The `FLAG_*` of [`super::message`].
    pub flags: i32,
    /// When the message deletes itself.
    pub expires_at: Option<Micros>,
    /// How much the message matters.
    pub priority: Priority,
    /// Whether readers are asked to acknowledge it.
    pub ack_requested: bool,
    /// Whether more text may come.
    pub stream: bool,
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
    /// The scheduled message that this one was.
    pub scheduled_id: Option<Uuid>,
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
        message_attachment_use::refer(references, &self.attachments);
        let scope = references.scope();
        let (author, slow) = ((scope.actor.id, scope.channel_id), !scope.slow_mode.is_zero());
        self.nonce.iter().for_each(|nonce| references.nonce(nonce));
        if let Some(expect) = &self.expect {
            expect.refers(references);
        }
        if slow {
            references.rows::<LastSend>(author);
        }
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Sent> {
        let content_hash = self.content_hash()?;
        if let Some(first) = self.sent_before(channel, content_hash)? {
            return Ok(first);
        }
        if let Some(expect) = &self.expect {
            expect.check(channel)?;
        }
        self.check_thread(channel)?;
        let reply_to = self.quoted(channel)?;
        self.check_slow_mode(channel)?;
        let attachments = self.attachments(channel)?;
        let message = channel.append(self.row(channel, &attachments)?, content_hash, reply_to)?;
        message_attachment_use::attach(channel, message.id, &attachments);
        self.advance_author(channel, &message)?;
        if let Some(forward) = &self.forward_of {
            channel.insert(Forwarded {
                message_id: message.id,
                channel_id: message.channel_id,
                author_id: forward.author.id,
                original_id: forward.id,
            });
        }
        self.mention(channel, &message);
        if let Some(expect) = &self.expect {
            expect.apply(channel);
        }
        message_stream::start(channel, &message);
        if let Some(poll) = &self.poll {
            message_poll_vote::start(channel, &message, poll)?;
        }
        channel.tell("message:new", Arc::clone(&message) as _)?;
        message_thread::replied(channel, &message)?;
        Ok(Sent { message, duplicate: false })
    }
}

/// A send that is refused now. It may repeat one that was not: time has passed since, and rights and other messages
/// come and go.
#[derive(Debug)]
pub struct Repeat(pub NewMessage);

impl Mutation for Repeat {
    type Done = Sent;

    fn refers(&self, references: &mut References<'_>) {
        self.0.nonce.iter().for_each(|nonce| references.nonce(nonce));
    }

    /// # Errors
    /// [`ImksError::NotFound`] when nothing was sent before.
    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Sent> {
        let first = self.0.sent_before(channel, self.0.content_hash()?)?;
        first.ok_or(ImksError::NotFound("earlier message"))
    }
}

impl NewMessage {
    /// Returns the message of the first send with the same nonce, if there was one.
    fn sent_before(&self, channel: &LockedChannel<'_>, content_hash: i64) -> ImksResult<Option<Sent>> {
        let Some(nonce) = &self.nonce else { return Ok(None) };
        let first = channel.sent_before(nonce, content_hash)?;
        Ok(first.map(|message| Sent { message, duplicate: true }))
    }

    fn check_thread(&self, channel: &LockedChannel<'_>) -> ImksResult<()> {
        let Some(thread) = self.thread_id else { return Ok(()) };
        let root = channel.message(thread).ok().filter(|root| root.thread_id.is_none());
        match root.ok_or(ImksError::NotFound("thread"))?.deleted_at {
            Some(_) => Err(ImksError::MessageDeleted),
            None => Ok(()),
        }
    }

    fn attachments(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Vec<Attachment>> {
        let usable = |id: &Uuid| message_attachment_use::usable(channel, *id, self.scheduled_id);
        self.attachments.iter().map(usable).collect()
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
        let now = channel.now();
        let Some(last) = last_send(channel)?.map(|last| last.at) else { return Ok(()) };
        let passed = Duration::from_micros(u64::try_from(now - last).unwrap_or_default());
        match slow_mode.saturating_sub(passed) {
            Duration::ZERO => Ok(()),
            retry_after => Err(ImksError::SlowMode { retry_after }),
        }
    }

    /// Creates the row without the fields that only the channel can fill in.
    fn row(&self, channel: &LockedChannel<'_>, attachments: &[Attachment]) -> ImksResult<Message> {
        let author = &channel.scope().actor;
        Ok(Message {
            author_id: author.id,
            author_username: author.username.as_ref().into(),
            kind: self.kind as i32,
            content_type: self.content_type as i32,
            body: self.body.as_str().into(),
            thread_id: self.thread_id,
            reply_to_message_id: self.reply_to_message_id,
            mentions: self.mentions.stored()?,
            forward_of: self.forward_of.as_deref().map(Forward::stored).transpose()?,
            flags: self.stored_flags(),
            expires_at: self.expires_at,
            poll: self.poll.as_ref().map(|poll| Poll::new(poll, channel.now()).stored()).transpose()?,
            attachment_count: i32::try_from(attachments.len()).unwrap_or(i32::MAX),
            attachments: message_attachment_use::stored(attachments)?,
            embeds: self.embeds.stored()?,
            priority: self.priority as i32,
            acks: self.ack_requested.then_some(0),
            stream: self.stream.then_some(StreamState::Active as i32),
            nonce: self.nonce.as_ref().map(|nonce| nonce.as_str().into()),
            metadata: self.metadata.as_ref().map(|metadata| metadata.as_str().into()),
            version: 1,
            ..Message::default()
        })
    }

    /// Records that the author has read the channel up to this message, if a person sent it, else only that they wrote.
    /// Slow mode counts from a scheduled one too.
    fn advance_author(&self, channel: &mut LockedChannel<'_>, message: &MessageDetail) -> ImksResult<()> {
        let is_slow = !channel.scope().slow_mode.is_zero();
        let (author_id, channel_id, at) = (message.author.id, message.channel_id, message.created_at.0);
        let (seq, cseq) = match (self.interactive, self.scheduled_id) {
            (true, _) => (message.seq, channel.counted()?),
            (false, Some(_)) if is_slow => last_send(channel)?.map_or((0, 0), |last| (last.seq, last.cseq)),
            (false, _) => {
                channel.insert(Wrote { author_id, channel_id });
                return Ok(());
            }
        };
        channel.insert(LastSend { author_id, channel_id, seq, cseq, at });
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
        // Programs read nothing, so nobody counts what they wrote themselves.
        let is_of_program = matches!(self.kind, MessageType::Bot | MessageType::Webhook);
        if !self.interactive && !is_of_program && is_counted(message.thread_id, message.flags) {
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
    fn content_hash(&self) -> ImksResult<i64> {
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
        if self.priority != Priority::Normal || self.ack_requested {
            add(&[self.priority as u8, u8::from(self.ack_requested)]);
        }
        if self.stream {
            add(b"stream");
        }
        self.expires_at.iter().for_each(|at| add(&at.to_be_bytes()));
        self.forwards.iter().for_each(|id| add(id.as_bytes()));
        for (kind, target) in written(&self.mentions) {
            add(&kind.to_be_bytes());
            add(target.as_bytes());
        }
        self.poll.iter().flat_map(NewPoll::content).for_each(|part| add(&part));
        self.metadata.iter().for_each(|metadata| add(metadata.as_str().as_bytes()));
        self.attachments.iter().for_each(|id| add(id.as_bytes()));
        self.embeds.stored()?.iter().for_each(|embeds| add(embeds.as_bytes()));
        Ok(hash.cast_signed())
    }
}

/// Returns what the actor sent last in the channel, in slow mode.
fn last_send(channel: &mut LockedChannel<'_>) -> ImksResult<Option<LastSend>> {
    let key = (channel.scope().actor.id, channel.scope().channel_id);
    match channel.write_of::<LastSend>(&key) {
        Some(Write::Stored(last)) => Ok(Some(*last)),
        Some(Write::Removed) | None => Ok(channel.rows::<LastSend>(&key)?.first().copied()),
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
            forwards: None,
            mentions: Mentions::default(),
            mentioned: Mentioned::default(),
            flags,
            expires_at: None,
            priority: Priority::Normal,
            ack_requested: false,
            stream: false,
            poll: None,
            metadata: None,
            attachments: Vec::new(),
            embeds: Embeds::default(),
            nonce: None,
            expect: None,
            scheduled_id: None,
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
        let hash = send(0).content_hash().unwrap();
        assert_eq!(hash, send(0).content_hash().unwrap());
        for other in [
            send(1),
            NewMessage { body: MessageBody::new("hello!").unwrap(), ..send(0) },
            NewMessage { reply_to_message_id: Some(Uuid::from_u128(1)), ..send(0) },
            NewMessage { mentions: Mentions { here: true, ..Mentions::default() }, ..send(0) },
            NewMessage { stream: true, ..send(0) },
            NewMessage { priority: Priority::Urgent, ..send(0) },
            NewMessage { ack_requested: true, ..send(0) },
            NewMessage { metadata: Some(Metadata::new("{}").unwrap()), ..send(0) },
        ] {
            assert_ne!(other.content_hash().unwrap(), hash, "{other:?}");
        }
    }
}
