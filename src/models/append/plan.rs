//! What a batch of writes does to the channels it touches: numbers, ids, verdicts. Pure: everything it needs was
//! read under the channels' locks before, everything it decides is written after (docs/adr/0007).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::{DeleteMessage, Deletion, EditMessage, Job, NewMessage, Write};
use crate::clock::{Micros, Timestamp};
use crate::models::message::{FLAG_ALSO_IN_CHANNEL, FLAG_AUTOMATED, Message, ReplyPreview};
use crate::models::message_id;
use crate::{ImksError, ImksResult};

/// Counters of a channel, as locked.
#[derive(Debug, Clone, Default, FromRow)]
pub(super) struct ChannelState {
    pub channel_id: Uuid,
    pub last_seq: i64,
    pub last_cseq: i64,
    pub last_rev: i64,
    pub last_ms: i64,
    pub last_message_id: Option<Uuid>,
    pub last_message_at: Option<Micros>,
    pub message_count: i64,
}

/// A send that was stored before with the same nonce.
#[derive(Debug, Clone, Copy, FromRow)]
pub(super) struct StoredKey {
    /// Which job of the batch.
    pub job: i64,
    pub message_id: Uuid,
    pub content_hash: i64,
    pub created_at: Micros,
}

/// The latest message of somebody who sends in slow mode.
#[derive(Debug, Clone, Copy, FromRow)]
pub(super) struct LastSend {
    pub channel_id: Uuid,
    pub author_id: Uuid,
    pub at: Micros,
}

/// What the locks showed.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Every channel of the batch, by id.
    pub states: Vec<ChannelState>,
    pub keys: Vec<StoredKey>,
    /// Of those who send in slow mode, as far as they have sent before.
    pub last_sends: Vec<LastSend>,
    /// Every message the batch refers to, as far as it exists.
    pub messages: HashMap<Uuid, Message>,
}

/// What to write, and what to answer to each job.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub verdicts: Vec<ImksResult<Verdict>>,
    pub sends: Vec<Minted>,
    /// Old messages whose nonce is used anew.
    pub released: Vec<Uuid>,
    pub mentions: Vec<Mention>,
    /// Messages whose mention rows are replaced.
    pub unmention: Vec<Uuid>,
    pub changed: Vec<Message>,
    pub edits: Vec<Edit>,
    pub changes: Vec<Change>,
    pub tombstones: Vec<Tombstone>,
    /// Channels with new counters.
    pub states: Vec<ChannelState>,
}

#[derive(Debug)]
pub(super) enum Verdict {
    /// The next of [`Plan::sends`].
    Sent,
    /// Sent before, in this very batch: the n-th of [`Plan::sends`].
    Repeated(usize),
    /// Sent before.
    Stored {
        message: Box<Message>,
        reply_to: Option<Box<ReplyPreview>>,
    },
    Edited {
        message: Box<Message>,
        reply_to: Option<Box<ReplyPreview>>,
        changed: bool,
    },
    Deleted {
        deletion: Deletion,
        changed: bool,
    },
}

/// A new message with its numbers. The content stays in the job.
#[derive(Debug)]
pub(super) struct Minted {
    pub job: usize,
    pub id: Uuid,
    pub seq: i64,
    pub cseq: i64,
    pub created_at: Micros,
    pub flags: i32,
    pub content_hash: i64,
    pub mentions: Option<String>,
    pub reply_to: Option<Box<ReplyPreview>>,
}

/// A row of `message_mention`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    pub message_id: Uuid,
    pub kind: i64,
    pub target_id: Uuid,
    pub author_id: Uuid,
    pub channel_id: Uuid,
    pub seq: i64,
    pub thread_id: Option<Uuid>,
    pub at: Micros,
}

/// The text a message had before an edit.
#[derive(Debug)]
pub(super) struct Edit {
    pub message_id: Uuid,
    pub version: i64,
    pub channel_id: Uuid,
    pub editor_id: Uuid,
    pub body: String,
    pub mentions: Option<String>,
    pub at: Micros,
}

/// A row of `channel_change`.
#[derive(Debug)]
pub(super) struct Change {
    pub channel_id: Uuid,
    pub rev: i64,
    pub kind: i64,
    pub message_id: Uuid,
    pub seq: i64,
    pub actor_id: Uuid,
    pub at: Micros,
}

/// A row of `message_tombstone`.
#[derive(Debug)]
pub(super) struct Tombstone {
    pub channel_id: Uuid,
    pub seq: i64,
    pub counted: bool,
    pub thread_id: Option<Uuid>,
}

/// `channel_change.kind`.
pub(crate) const CHANGE_EDIT: i64 = 0;
/// `channel_change.kind`.
pub(crate) const CHANGE_DELETE: i64 = 1;

/// `message_mention.kind`: a user.
pub(crate) const MENTION_USER: i64 = 0;
/// `message_mention.kind`: a role.
pub(crate) const MENTION_ROLE: i64 = 1;
/// `message_mention.kind`: everybody in the channel.
pub(crate) const MENTION_CHANNEL: i64 = 2;
/// `message_mention.kind`: everybody online.
pub(crate) const MENTION_HERE: i64 = 3;
/// `message_mention.kind`: no mention at all, but the author's own message behind the own read position.
pub(crate) const MENTION_SELF: i64 = 4;

/// How long a nonce is remembered.
pub(crate) const NONCE_LIFETIME: Micros = 24 * 3_600 * 1_000_000;

/// Decides the whole batch. `now` may be earlier than what is stored: ids and times never go back.
pub(super) fn plan(jobs: &[Job], loaded: Loaded, now: Micros, random: &[u64]) -> Plan {
    let sends = jobs.iter().filter(|job| matches!(job.write, Write::Send(_))).count();
    let mut planner = Planner {
        keys: loaded.keys.into_iter().map(|key| (key.job, key)).collect(),
        states: loaded.states.into_iter().map(|state| (state, false)).collect(),
        messages: loaded.messages,
        seen: HashMap::with_capacity(sends),
        last_sends: loaded
            .last_sends
            .iter()
            .map(|last| ((last.channel_id, last.author_id), last.at))
            .collect(),
        dirty: Vec::new(),
        plan: Plan { sends: Vec::with_capacity(sends), ..Plan::default() },
        now,
        random,
    };
    planner.states.sort_unstable_by_key(|(state, _)| state.channel_id);
    for (index, job) in jobs.iter().enumerate() {
        let verdict = match &job.write {
            Write::Send(message) => planner.send(index, message),
            Write::Edit(edit) => planner.edit(edit),
            Write::Delete(delete) => planner.delete(delete),
        };
        planner.plan.verdicts.push(verdict);
    }
    planner.finish()
}

struct Planner<'a> {
    keys: HashMap<i64, StoredKey>,
    states: Vec<(ChannelState, bool)>,
    messages: HashMap<Uuid, Message>,
    /// Sends of this batch by (channel, author, nonce).
    seen: HashMap<(Uuid, Uuid, &'a str), usize>,
    /// Of those who send in slow mode, by (channel, author).
    last_sends: HashMap<(Uuid, Uuid), Micros>,
    dirty: Vec<Uuid>,
    plan: Plan,
    now: Micros,
    random: &'a [u64],
}

impl<'a> Planner<'a> {
    fn send(&mut self, job: usize, message: &'a NewMessage) -> ImksResult<Verdict> {
        let content_hash = content_hash(message);
        let Some(nonce) = message.nonce.as_deref() else {
            let reply_to = self.checked_references(message)?;
            self.wait_over(message)?;
            return self.mint(job, message, content_hash, reply_to);
        };
        if let Some(verdict) = self.stored_before(job, content_hash) {
            return verdict;
        }
        let reply_to = self.checked_references(message)?;
        let wait_over = self.wait_over(message);
        match self.seen.entry((message.channel_id, message.author.id, nonce)) {
            Entry::Occupied(first) if self.plan.sends[*first.get()].content_hash != content_hash => {
                return Err(ImksError::NonceConflict);
            }
            Entry::Occupied(first) => return Ok(Verdict::Repeated(*first.get())),
            Entry::Vacant(free) => {
                wait_over?;
                free.insert(self.plan.sends.len())
            }
        };
        self.mint(job, message, content_hash, reply_to)
    }

    fn stored_before(&mut self, job: usize, content_hash: i64) -> Option<ImksResult<Verdict>> {
        let key = *i64::try_from(job).ok().and_then(|job| self.keys.get(&job))?;
        if key.created_at < self.now - NONCE_LIFETIME {
            self.plan.released.push(key.message_id);
            return None;
        }
        if key.content_hash != content_hash {
            return Some(Err(ImksError::NonceConflict));
        }
        let Some(message) = self.messages.get(&key.message_id) else {
            return Some(Err(ImksError::MessageDeleted));
        };
        let reply_to = self.quoted_by(message);
        Some(Ok(Verdict::Stored { message: Box::new(message.clone()), reply_to }))
    }

    /// Slow mode: whether the author may send again. A repeat never comes here.
    fn wait_over(&self, message: &NewMessage) -> ImksResult<()> {
        let Some(last) = self.last_sends.get(&(message.channel_id, message.author.id)) else { return Ok(()) };
        let passed = Duration::from_micros(u64::try_from(self.now - last).unwrap_or_default());
        match message.slow_mode.saturating_sub(passed) {
            Duration::ZERO => Ok(()),
            retry_after => Err(ImksError::SlowMode { retry_after }),
        }
    }

    fn quoted_by(&self, message: &Message) -> Option<Box<ReplyPreview>> {
        let quoted = self.messages.get(&message.reply_to_message_id?)?;
        Some(Box::new(quoted.into()))
    }

    fn checked_references(&self, message: &NewMessage) -> ImksResult<Option<Box<ReplyPreview>>> {
        let here = |id: Uuid| self.messages.get(&id).filter(|row| row.channel_id == message.channel_id);
        if let Some(thread) = message.thread_id {
            let root = here(thread).filter(|root| root.thread_id.is_none());
            if root.ok_or(ImksError::NotFound("thread"))?.deleted_at.is_some() {
                return Err(ImksError::MessageDeleted);
            }
        }
        let Some(target) = message.reply_to_message_id else { return Ok(None) };
        Ok(Some(Box::new(here(target).ok_or(ImksError::NotFound("message"))?.into())))
    }

    fn mint(
        &mut self,
        job: usize,
        message: &NewMessage,
        content_hash: i64,
        reply_to: Option<Box<ReplyPreview>>,
    ) -> ImksResult<Verdict> {
        let random = self.random.get(self.plan.sends.len()).copied().unwrap_or_default();
        let now = self.now;
        let flags = flags(message);
        let state = self.state(message.channel_id)?;
        state.last_seq += 1;
        state.last_cseq += i64::from(is_counted(message.thread_id, flags));
        let created_at = now.max(state.last_ms.saturating_mul(1_000));
        state.last_ms = created_at / 1_000;
        let id = message_id::mint(state.last_ms, state.last_seq, random);
        state.last_message_id = Some(id);
        state.last_message_at = Some(created_at);
        state.message_count += 1;
        let (seq, cseq) = (state.last_seq, state.last_cseq);
        if !message.slow_mode.is_zero() {
            self.last_sends.insert((message.channel_id, message.author.id), created_at);
        }
        if !message.interactive && is_counted(message.thread_id, flags) {
            self.plan.mentions.push(Mention {
                kind: MENTION_SELF,
                target_id: message.author.id,
                ..self.mention(message, seq, id)
            });
        }
        self.mentions_of(message, seq, id);
        let mentions = message.mentions.stored();
        self.plan.sends.push(Minted {
            job,
            id,
            seq,
            cseq,
            created_at,
            flags,
            content_hash,
            mentions,
            reply_to,
        });
        Ok(Verdict::Sent)
    }

    fn mention(&self, message: &NewMessage, seq: i64, message_id: Uuid) -> Mention {
        Mention {
            message_id,
            kind: MENTION_USER,
            target_id: message.author.id,
            author_id: message.author.id,
            channel_id: message.channel_id,
            seq,
            thread_id: message.thread_id,
            at: self.now,
        }
    }

    fn mentions_of(&mut self, message: &NewMessage, seq: i64, message_id: Uuid) {
        if message.mentions.is_empty() {
            return;
        }
        for (kind, target_id) in targets(&message.mentions, message.channel_id) {
            let row = Mention { kind, target_id, ..self.mention(message, seq, message_id) };
            self.plan.mentions.push(row);
        }
    }

    fn edit(&mut self, edit: &EditMessage) -> ImksResult<Verdict> {
        let now = self.now;
        let row = self.target(edit.channel_id, edit.message_id, edit.required_author)?;
        if row.deleted_at.is_some() {
            return Err(ImksError::MessageDeleted);
        }
        let mentions = edit.mentions.as_ref().map_or_else(|| row.mentions.clone(), super::Mentions::stored);
        // Before the version check: a client that repeats its own edit must not be told that it lost.
        if row.body == edit.body && row.mentions == mentions {
            let message = Box::new(row.clone());
            return Ok(Verdict::Edited { reply_to: self.quoted_by(&message), message, changed: false });
        }
        if edit.expected_version.is_some_and(|expected| expected != row.version) {
            return Err(ImksError::VersionMismatch { current: row.version });
        }
        let mentions_changed = row.mentions != mentions;
        let before = Edit {
            message_id: row.id,
            version: row.version,
            channel_id: row.channel_id,
            editor_id: edit.editor_id,
            body: std::mem::replace(&mut row.body, edit.body.clone()),
            mentions: std::mem::replace(&mut row.mentions, mentions),
            at: now,
        };
        row.version += 1;
        row.edit_count += 1;
        row.edited_at = Some(now.max(row.created_at));
        self.plan.edits.push(before);
        if mentions_changed {
            self.rewrite_mentions(edit);
        }
        let message = self.change(edit.message_id, edit.editor_id, CHANGE_EDIT)?;
        Ok(Verdict::Edited { reply_to: self.quoted_by(&message), message: Box::new(message), changed: true })
    }

    fn rewrite_mentions(&mut self, edit: &EditMessage) {
        let Some((row, mentions)) = self.messages.get(&edit.message_id).zip(edit.mentions.as_ref()) else {
            return;
        };
        self.plan.mentions.retain(|mention| mention.message_id != row.id);
        self.plan.unmention.push(row.id);
        for (kind, target_id) in targets(mentions, row.channel_id) {
            self.plan.mentions.push(Mention {
                message_id: row.id,
                kind,
                target_id,
                author_id: row.author_id,
                channel_id: row.channel_id,
                seq: row.seq,
                thread_id: row.thread_id,
                at: self.now,
            });
        }
    }

    fn delete(&mut self, delete: &DeleteMessage) -> ImksResult<Verdict> {
        let now = self.now;
        let row = self.target(delete.channel_id, delete.message_id, delete.required_author)?;
        if let Some(deleted_at) = row.deleted_at {
            return Ok(Verdict::Deleted { deletion: deletion(row, deleted_at), changed: false });
        }
        row.deleted_at = Some(now.max(row.created_at));
        row.deleted_by = Some(delete.actor_id);
        let message = self.change(delete.message_id, delete.actor_id, CHANGE_DELETE)?;
        self.state(message.channel_id)?.message_count -= 1;
        self.plan.mentions.retain(|mention| mention.message_id != message.id);
        self.plan.unmention.push(message.id);
        self.plan.tombstones.push(Tombstone {
            channel_id: message.channel_id,
            seq: message.seq,
            counted: is_counted(message.thread_id, message.flags),
            thread_id: message.thread_id,
        });
        Ok(Verdict::Deleted { deletion: deletion(&message, now.max(message.created_at)), changed: true })
    }

    fn target(&mut self, channel: Uuid, id: Uuid, author: Option<Uuid>) -> ImksResult<&mut Message> {
        let row = self.messages.get_mut(&id).filter(|row| row.channel_id == channel);
        let row = row.ok_or(ImksError::NotFound("message"))?;
        match author {
            Some(author) if author != row.author_id => Err(ImksError::Forbidden("MANAGE_MESSAGES")),
            _ => Ok(row),
        }
    }

    /// Gives a changed message its `rev` and the change its row.
    fn change(&mut self, message_id: Uuid, actor_id: Uuid, kind: i64) -> ImksResult<Message> {
        let channel_id = self.messages.get(&message_id).map(|row| row.channel_id);
        let state = self.state(channel_id.ok_or(ImksError::NotFound("message"))?)?;
        state.last_rev += 1;
        let rev = state.last_rev;
        let row = self.messages.get_mut(&message_id).ok_or(ImksError::NotFound("message"))?;
        row.rev = rev;
        let (channel_id, seq, at) = (row.channel_id, row.seq, self.now);
        if !self.dirty.contains(&message_id) {
            self.dirty.push(message_id);
        }
        self.plan.changes.push(Change { channel_id, rev, kind, message_id, seq, actor_id, at });
        Ok(row.clone())
    }

    fn state(&mut self, channel: Uuid) -> ImksResult<&mut ChannelState> {
        let index = self.states.binary_search_by_key(&channel, |(state, _)| state.channel_id);
        let index = index.map_err(|_| ImksError::Internal("channel not locked"))?;
        self.states[index].1 = true;
        Ok(&mut self.states[index].0)
    }

    fn finish(mut self) -> Plan {
        self.plan.states =
            self.states.into_iter().filter(|(_, dirty)| *dirty).map(|(state, _)| state).collect();
        self.plan.changed = self.dirty.iter().filter_map(|id| self.messages.remove(id)).collect();
        self.plan.unmention.sort_unstable();
        self.plan.unmention.dedup();
        self.plan
    }
}

fn deletion(row: &Message, deleted_at: Micros) -> Deletion {
    Deletion {
        channel_id: row.channel_id,
        id: row.id,
        rev: row.rev,
        deleted_at: Timestamp(deleted_at),
        deleted_by: row.deleted_by.unwrap_or_default(),
        thread_id: row.thread_id,
        seq: row.seq,
    }
}

/// The sender's flags and those that only the server sets.
fn flags(message: &NewMessage) -> i32 {
    let also_in_channel = message.thread_id.is_some() && message.also_send_to_channel;
    message.flags & !(FLAG_ALSO_IN_CHANNEL | FLAG_AUTOMATED)
        | if also_in_channel { FLAG_ALSO_IN_CHANNEL } else { 0 }
        | if message.interactive { 0 } else { FLAG_AUTOMATED }
}

/// Whether a message counts as unread in its channel; a reply that stands only in its thread does not.
pub(super) fn is_counted(thread: Option<Uuid>, flags: i32) -> bool {
    thread.is_none() || flags & FLAG_ALSO_IN_CHANNEL != 0
}

/// Rows of `message_mention`: kind and target, each pair once.
fn targets(mentions: &super::Mentions, channel: Uuid) -> Vec<(i64, Uuid)> {
    let users = mentions.users.iter().map(|user| (MENTION_USER, *user));
    let roles = mentions.roles.iter().map(|role| (MENTION_ROLE, *role));
    let wide = [(mentions.channel, MENTION_CHANNEL), (mentions.here, MENTION_HERE)];
    let wide = wide.into_iter().filter(|(set, _)| *set).map(|(_, kind)| (kind, channel));
    let mut all: Vec<_> = users.chain(roles).chain(wide).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Tells whether two sends with one nonce say the same. FNV-1a, because it must not change between versions of
/// the standard library.
fn content_hash(message: &NewMessage) -> i64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(message.body.as_bytes());
    add(&(message.kind as i32).to_be_bytes());
    add(&(message.content_type as i32).to_be_bytes());
    add(&flags(message).to_be_bytes());
    add(message.thread_id.unwrap_or_default().as_bytes());
    add(message.reply_to_message_id.unwrap_or_default().as_bytes());
    for (kind, target) in targets(&message.mentions, Uuid::nil()) {
        add(&kind.to_be_bytes());
        add(target.as_bytes());
    }
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;
    use crate::models::append::Mentions;
    use crate::models::message::{AuthorInfo, ContentType, MessageType};

    const CHANNEL: Uuid = Uuid::from_u128(1);

    fn job(body: &str, key: &str) -> Job {
        let message = NewMessage {
            channel_id: CHANNEL,
            author: AuthorInfo { id: Uuid::from_u128(2), username: "alice".into() },
            body: body.into(),
            kind: MessageType::Default,
            content_type: ContentType::Markdown,
            thread_id: None,
            also_send_to_channel: false,
            reply_to_message_id: None,
            mentions: Mentions::default(),
            flags: 0,
            nonce: Some(key.into()),
            interactive: true,
            slow_mode: Duration::ZERO,
        };
        let since = tokio::time::Instant::now();
        Job { write: Write::Send(message), reply: oneshot::channel().0, since }
    }

    fn loaded(state: ChannelState, keys: Vec<StoredKey>) -> Loaded {
        Loaded { states: vec![ChannelState { channel_id: CHANNEL, ..state }], keys, ..Loaded::default() }
    }

    proptest! {
        #[test]
        fn ids_and_times_follow_seq_however_the_clock_jumps(
            clocks in prop::collection::vec((0_i64..1 << 50, 1_usize..5), 1..20),
            random: [u64; 4],
        ) {
            let (mut state, mut all) = (ChannelState::default(), Vec::new());
            for (now, count) in clocks {
                let jobs: Vec<Job> = (0..count).map(|number| job("x", &number.to_string())).collect();
                let mut plan = plan(&jobs, loaded(state, vec![]), now, &random);
                all.append(&mut plan.sends);
                state = plan.states.remove(0);
            }
            prop_assert!(all.iter().map(|minted| minted.seq).eq(1..=all.len() as i64));
            prop_assert!(all.is_sorted_by(|a, b| a.id < b.id && a.created_at / 1_000 <= b.created_at / 1_000));
            prop_assert!(all.iter().all(|minted| message_id::seq_of(minted.id) == minted.seq));
        }
    }

    #[test]
    fn a_nonce_is_free_again_after_a_day() {
        let stored =
            |age| StoredKey { job: 0, message_id: Uuid::nil(), content_hash: 0, created_at: DAY - age };
        const DAY: Micros = NONCE_LIFETIME;
        let verdict = |age| {
            let plan = plan(&[job("x", "n")], loaded(ChannelState::default(), vec![stored(age)]), DAY, &[0]);
            plan.verdicts.into_iter().next().unwrap()
        };
        assert!(matches!(verdict(DAY), Err(ImksError::NonceConflict)));
        assert!(matches!(verdict(DAY + 1), Ok(Verdict::Sent)));
    }

    #[test]
    fn in_slow_mode_one_message_passes_and_its_repeat_is_no_second_one() {
        let slow = |body, key| {
            let mut job = job(body, key);
            let Write::Send(message) = &mut job.write else { panic!() };
            message.slow_mode = Duration::from_secs(10);
            job
        };
        let author_id = Uuid::from_u128(2);
        let at = |seconds: i64| {
            let last_sends = vec![LastSend { channel_id: CHANNEL, author_id, at: 100_000_000 }];
            let loaded = Loaded { last_sends, ..loaded(ChannelState::default(), vec![]) };
            let jobs = [slow("one", "a"), slow("two", "b"), slow("one", "a"), job("free", "c")];
            plan(&jobs, loaded, (100 + seconds) * 1_000_000, &[0; 4]).verdicts
        };
        let [early, later, repeat, exempt] = &at(4)[..] else { panic!() };
        for refused in [early, later, repeat] {
            let wait = refused.as_ref().unwrap_err().retry_after().unwrap();
            assert_eq!(wait, Duration::from_secs(6));
        }
        assert!(matches!(exempt, Ok(Verdict::Sent)));
        let [first, second, repeat, _] = &at(10)[..] else { panic!() };
        assert!(matches!(first, Ok(Verdict::Sent)));
        assert_eq!(second.as_ref().unwrap_err().retry_after(), Some(Duration::from_secs(10)));
        assert!(matches!(repeat, Ok(Verdict::Repeated(0))));
    }

    #[test]
    fn one_nonce_with_two_contents_in_a_batch_is_a_conflict_for_the_second() {
        let jobs = [job("one", "n"), job("two", "n"), job("one", "n")];
        let plan = plan(&jobs, loaded(ChannelState::default(), vec![]), 0, &[0]);
        assert_eq!(plan.sends.len(), 1);
        let [first, second, third] = &plan.verdicts[..] else { panic!() };
        assert!(matches!(first, Ok(Verdict::Sent)));
        assert!(matches!(second, Err(ImksError::NonceConflict)));
        assert!(matches!(third, Ok(Verdict::Repeated(0))));
    }
}
